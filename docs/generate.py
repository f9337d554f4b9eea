"""Generates the parts of the documents that the program knows.

The documents call these functions in comments. `make docs` runs the calls with cogapp and writes
the results below them. A unit test runs them again, so a document cannot differ from the program.
Every function returns Markdown. Config keys and plans have modules of their own.
"""

from __future__ import annotations

import yaml
from click.testing import CliRunner

from docs.tables import markdown_table
from vllm_spark.changes.markdown import markdown
from vllm_spark.changes.report import read_report
from vllm_spark.cli.main import main
from vllm_spark.deployment.gpu_access import GpuOffer
from vllm_spark.diagnosis.verdict import diagnose
from vllm_spark.docker_host import (
    connection,
    container_watch,
    fetch,
    host,
    image_check,
    memory_wait,
    one_shot,
    preflight,
    pull,
)
from vllm_spark.gate import gate, metrics
from vllm_spark.gate.probe import Probe
from vllm_spark.images import DISPUTED, NGC_VERSIONS
from vllm_spark.in_image import fetch_weights
from vllm_spark.policy.rules import RULES
from vllm_spark.project import ROOT

REPORTS = ROOT / "tests" / "data" / "reports"


def policy_rules() -> str:
    """A table of the policy pack's rules, with the level that each has until a team sets one."""
    rows = []
    for name, rule in RULES.items():
        settings = ", ".join(f"`{key}`: {value}" for key, value in rule.options.items())
        level = "mandatory" if rule.mandatory else "advisory"
        rows.append([f"`{name}`", rule.demand, level, settings, rule.fix])
    return markdown_table(["rule", "what it demands", "level", "settings", "fix"], rows)


def report(name: str) -> str:
    """A recorded report of `vllm-spark plan`, as a quotation."""
    told = markdown(read_report(REPORTS / f"{name}.json"))
    return "\n".join(f"> {line}".rstrip() for line in told.splitlines())


def waits() -> str:
    """A table of everything that an `up` may wait for, with its limit."""
    ends, keeps = "it ends", "it ends; what was fetched is kept"
    rows: list[tuple[str, float, str]] = [
        ("one answer of the Docker daemon", connection.ANSWER_SECONDS, "1 s more, then it ends"),
        (
            "the removal of a container that was asked something, or that fetched",
            one_shot.GONE_SECONDS,
            f"{one_shot.REMOVE_SECONDS:.0f} s more, then it ends",
        ),
        ("the pull of an image", pull.LIMIT_SECONDS, ends),
        ("the hub's list of a repository's files", 4 * fetch_weights.HUB_SECONDS, keeps),
        ("a download from which nothing arrives", fetch_weights.STALL_SECONDS, keeps),
        ("a whole download", fetch.LIMIT_SECONDS, keeps),
        ("the image's words on GPU and flags", image_check.PATIENCE_SECONDS, ends),
        ("the memory of a remote host, and whether an image runs there", host.PRINT_SECONDS, ends),
        (
            "a server that a takeover stops",
            preflight.TAKEOVER_STOP_SECONDS,
            "it ends; Docker goes on stopping that server",
        ),
        (
            "memory that the old server gives back",
            memory_wait.WAIT_SECONDS,
            "it ends; the old server is gone, and the next `up` creates the new one",
        ),
        ("/health and the list of models", Probe.quick, ends),
        ("the model's answer", Probe.patience, ends),
        ("a Docker daemon that went away", gate.DAEMON_PATIENCE_SECONDS, ends),
        ("Docker's record of a start that ended", container_watch.EVENTS_SECONDS, ends),
        ("the end of a start that failed in its log", gate.ENDS_BY_ITSELF_SECONDS, ends),
        (
            "a failed server that is stopped",
            container_watch.STOP_SECONDS,
            "it ends; Docker goes on stopping the server",
        ),
        ("the metrics of a server that has answered", 2 * metrics.PATIENCE_SECONDS, ends),
    ]
    cells = [[what, f"{limit:,.0f} s", after] for what, limit, after in rows]
    return markdown_table(["wait for", "limit", "after Ctrl-C"], cells)


def plugin_differences() -> str:
    """What is left between the official docker plugin and the Python plugin of `offline/`."""
    known = yaml.safe_load((ROOT / "tests" / "offline" / "official.yaml").read_text())
    rows = [[row["what"], row["official"], row["ours"]] for row in known["differences"]]
    return markdown_table(["", "official plugin", "Python plugin"], rows)


def program_help() -> str:
    """A code block: `vllm-spark --help`, and its output."""
    shown = CliRunner().invoke(main, ["--help"], prog_name="vllm-spark", terminal_width=100)
    return f"```console\n$ vllm-spark --help\n{shown.output.rstrip()}\n```"


def nvidia_images() -> str:
    """A table of NVIDIA's images and the vLLM release in each."""
    images = [
        [f"`{tag}-py3`", version or "the image is asked", DISPUTED.get(tag, "")]
        for tag, version in NGC_VERSIONS.items()
    ]
    return markdown_table(["`nvcr.io/nvidia/vllm:`", "vLLM", "in doubt"], images)


def diagnoses(*logs: str) -> str:
    """A table of what `make diagnose` prints for these recorded logs (tests/data/logs)."""
    rows = []
    for log in logs:
        found = diagnose((ROOT / "tests" / "data" / "logs" / f"{log}.log").read_text().splitlines())
        rows.append([found.cause.replace("|", "&#124;"), (found.fix or "").replace("|", "&#124;")])
    return markdown_table(["cause", "fix"], rows)


def gpu_errors() -> str:
    """A table of what Docker says where it gives no GPU, each with the fix for that host."""
    rows = []
    for known in yaml.safe_load((ROOT / "tests" / "data" / "gpu_access.yaml").read_text()):
        found = diagnose(known["said"].splitlines())
        said = known["said"].splitlines()[-1].rpartition("during container init: ")[2]
        fix = GpuOffer.of(known["info"]).fix(found.rule, known.get("gpus", "all")) or found.fix
        rows.append([known["name"], f"`{said}`", fix])
    return markdown_table(["on this host", "Docker says", "fix"], rows)
