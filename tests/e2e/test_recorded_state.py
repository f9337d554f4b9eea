"""Today's program takes over stacks that earlier versions deployed (recorded_state.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.project import Project
from tests.e2e.recorded_state import RECORDED, SECRETS, STACK, restore

pytestmark = pytest.mark.e2e

VERSIONS = [file.stem for file in sorted(RECORDED.glob("*.json"))]


@pytest.fixture(params=VERSIONS)
def taken_over(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """A project whose stack is as that version left it. It is never deployed."""
    project = Project(tmp_path, STACK)
    restore(project, request.param)
    return project


def test_a_recorded_stack_previews_without_a_replacement(taken_over: Project) -> None:
    preview = taken_over.pulumi("preview", "--json")
    assert preview.code == 0, preview.output
    summary = json.loads(preview.output)["changeSummary"]
    assert summary["same"] > 10, "it is the recorded stack that was looked at"
    unasked = [change for change in summary if "replace" in change or change == "delete"]
    assert not unasked, "nobody asked for anything to be taken down"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_state_shows_no_secret(version: str) -> None:
    state = (RECORDED / f"{version}.json").read_text()
    assert not [value for value in SECRETS.values() if value in state]
