"""What is said of a way back that cannot be gone; test_going_back.py has those that can."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_last_good import DECLARED, record
from vllm_spark.cli import rollback
from vllm_spark.cli.pulumi_command import Ended
from vllm_spark.config.settings import Settings
from vllm_spark.errors import RollbackError

SEALED = {"secure": "v1:abc:def"}
SETTINGS = Settings.from_declared(DECLARED)
REVERTING = Settings.from_declared({**DECLARED, "health": {"revertOnFailure": True}})


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stack whose last good server is gone; its config file, to be changed by a test."""
    file: dict[str, Any] = {"config": {"vllm-spark:apiKey": SEALED}}
    state = {"resources": [record(settings={**DECLARED, "apiKey": "**********"}, imageDigest="")]}
    monkeypatch.setattr(rollback, "read_state", lambda _stack: state)
    monkeypatch.setattr(rollback, "serving", lambda _good: "its container is gone")
    monkeypatch.setattr(rollback, "_image_id", lambda _name: "sha256:1111")
    monkeypatch.setattr(rollback, "_last_fetch", lambda _state, _server: None)
    monkeypatch.setattr(rollback, "_read", lambda _stack: file)
    monkeypatch.setattr(
        rollback, "run_pulumi", lambda *_arguments, stack, **_config: pytest.fail(stack)
    )
    return file


def test_a_way_back_that_fails_says_why_and_that_nothing_serves(
    stack: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del stack["config"]["vllm-spark:apiKey"]
    rollback.after_failed_up("spark", REVERTING, interrupted=False)
    told = capsys.readouterr().err
    assert "pulumi config set --secret vllm-spark:apiKey" in told
    assert "so did the way back" in told.splitlines()[-1]
    assert "nothing serves" in told.splitlines()[-1]


def test_nothing_is_deployed_when_the_old_image_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rollback, "_image_id", lambda _name: None)
    rollback.after_failed_up("spark", REVERTING, interrupted=False)
    assert "is gone from this host" in capsys.readouterr().err


def test_without_the_key_of_the_config_nothing_is_reverted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rollback.after_failed_up("spark", SETTINGS, interrupted=False)
    assert capsys.readouterr().err.endswith("make rollback STACK=spark\n")


def test_a_server_that_runs_and_does_not_answer_is_not_called_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollback, "run_pulumi", lambda *_arguments, **_stack: Ended(0))
    with pytest.raises(RollbackError, match=r"runs, but does not answer.*\n.*docker restart 4567"):
        rollback.roll_back("spark", None)
