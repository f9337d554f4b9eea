"""Records the reports that docs/review.md shows: real runs of `vllm-spark plan` on three changes.

    .venv/bin/python -m tests.e2e.recorded_reports

writes tests/data/reports/<name>.json, which tests/e2e/test_plan.py compares with a new run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.e2e.clone import Clone
from tests.e2e.project import ROOT
from vllm_spark.changes.report import Report

REPORTS = ROOT / "tests" / "data" / "reports"

Edit = tuple[str, str]
"""A text of Pulumi.spark.yaml, and what replaces it."""

CHANGES: dict[str, tuple[Edit | None, Edit]] = {
    "flag": (None, ("max-num-seqs: 64", "max-num-seqs: 128")),
    "model": (None, ("id: Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "id: Qwen/Qwen3-32B-FP8")),
    "image": (
        ("max-num-seqs: 64", "max-num-seqs: 64\n    swap-space: 4"),
        ("name: nvcr.io/nvidia/vllm:25.09-py3", "name: vllm/vllm-openai:v0.28.0"),
    ),
}
"""What the base has already, and the change."""


def report_of(clone: Clone, name: str) -> Report:
    """The report of one change; the base is called `main`, since its commit differs every time."""
    before, change = CHANGES[name]
    for edit in filter(None, (before, change)):
        file = clone.directory / "Pulumi.spark.yaml"
        old, new = edit
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        if edit is before:
            clone.commit()
    ran = clone.plan("JSON=1 2>/dev/null || true")
    return Report.model_validate_json(ran.output).model_copy(update={"base": "main"})


def main() -> None:
    """Record them all."""
    REPORTS.mkdir(exist_ok=True)
    for name in CHANGES:
        with tempfile.TemporaryDirectory() as folder:
            report = report_of(Clone(Path(folder)), name)
        (REPORTS / f"{name}.json").write_text(f"{report.json_text()}\n")


if __name__ == "__main__":
    main()
