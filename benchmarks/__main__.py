"""`python -m benchmarks [NAME ...]`: measure and print these scenarios, or all of them."""

from __future__ import annotations

import argparse
import sys
import time
from types import ModuleType

from benchmarks import crash, first_answer, gate_cost, gate_delay, swap, unchanged, warm_caches
from benchmarks.report import machine, record
from vllm_spark.cli.prepare import ensure_parts_of, ensure_pulumi
from vllm_spark.config.stack_file import load_stack, stack_file
from vllm_spark.errors import SetupError

SCENARIOS: dict[str, ModuleType] = {
    "first-answer": first_answer,
    "gate-delay": gate_delay,
    "crash": crash,
    "gate-cost": gate_cost,
    "swap": swap,
    "warm-caches": warm_caches,
    "unchanged": unchanged,
}


def main() -> int:
    """Exit code 0, or 1 if the machine cannot be prepared."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--runs", type=int, help="number of runs, in place of the scenario's own")
    parser.add_argument("--record", action="store_true", help="record it in docs/benchmarks.md")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - SCENARIOS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(SCENARIOS)}")
    try:
        ensure_pulumi()
        ensure_parts_of(load_stack(stack_file("local")))
        for name in chosen.names or SCENARIOS:
            scenario = SCENARIOS[name]
            measured = scenario.measure(chosen.runs or scenario.RUNS)
            text = f"{measured}\n\n{machine()}, {time.strftime('%Y-%m-%d')}."
            print(f"\n{name}\n{text}", flush=True)
            if chosen.record:
                record(name, text)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
