"""What the engine took stands beside the plan, with the difference in percent."""

from __future__ import annotations

from pathlib import Path

from vllm_spark.deployment.memory_actual import actual_of, compared
from vllm_spark.diagnosis.start_log import StartFacts, StartLog
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.gate.metrics import ServerMetrics
from vllm_spark.images import Version
from vllm_spark.memory.known_models import known_shapes
from vllm_spark.memory.limits import Machine
from vllm_spark.memory.plan import make_plan
from vllm_spark.problems import Unmodelled

LOGS = Path(__file__).parent.parent / "data" / "logs"
GUIDE = {
    "max-model-len": 32768,
    "gpu-memory-utilization": 0.85,
    "max-num-batched-tokens": 16384,
    "max-num-seqs": 64,
}


def test_a_real_start_differs_from_its_plan_by_less_than_three_percent() -> None:
    start = StartLog()
    for line in (LOGS / "healthy_stopped.log").read_text().splitlines():
        start.feed(line)
    shape = known_shapes()["Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"]
    plan = make_plan(shape, EngineFlags(GUIDE), Machine(memory_gib=139.80), Version.parse("0.26"))
    beside = compared(plan, actual_of(start.facts, None))
    assert beside["kvTokens"] == 956240
    differences = beside["differencePercent"]
    assert isinstance(differences, dict)
    assert set(differences) >= {"weightsGiB", "kvPoolGiB", "kvTokens", "fullLengthSequences"}
    assert all(abs(difference) < 3 for difference in differences.values()), differences


def test_metrics_tell_what_a_quiet_log_does_not() -> None:
    assert actual_of(StartFacts(), ServerMetrics(0, 0, 0, 1600)) == {"kvTokens": 1600}


def test_without_a_plan_there_is_no_difference() -> None:
    beside = compared(Unmodelled("a reason"), {"kvTokens": 1600})
    assert beside == {"kvTokens": 1600, "differencePercent": {}}
