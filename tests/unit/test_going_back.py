"""`vllm-spark rollback` from the state to the answer, with a daemon, and a stand-in for Pulumi."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli import vllm_spark
from tests.fake_daemon import FakeDaemon
from tests.unit.test_last_good import CONFIG, DECLARED, record
from vllm_spark.cli import rollback
from vllm_spark.cli.pulumi_command import Ended
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.last_good import LastGoodDeployment
from vllm_spark.errors import DockerUnavailable, SetupError
from vllm_spark.gate.probe import NotYet, Probe, Ready, Refused

SEALED = {"secure": "v1:abc:def"}
REVERTING = Settings.from_declared({**DECLARED, "health": {"revertOnFailure": True}})


class Deployed:
    """A state with a last good deployment, whose container a daemon has."""

    def __init__(self, daemon: FakeDaemon, image_id: str) -> None:
        self.container = daemon.add("vllm-spark", image=REVERTING.image.name, Env=["A=b"])
        fetch = {
            "urn": "urn:...::pulumi-python:dynamic/spark:Fetch::vllm-weights",
            "type": "pulumi-python:dynamic/spark:Fetch",
            "inputs": {"what": "0f0f0f"},
        }
        self.state: dict[str, Any] = {
            "resources": [
                {"urn": "urn:...::other", "type": "other"},
                fetch,
                {"urn": "", **record(containerId=self.container.id, imageId=image_id)},
            ]
        }
        self.file: dict[str, Any] = {"config": {**CONFIG, "other:key": 1}}
        self.configs: list[dict[str, Any]] = []
        self.answer: Any = Ready(0.5, 4)
        self.ends = Ended(0)

    def run(self, *_arguments: str, stack: str, config: str) -> Ended:
        """Pulumi: what it is given to deploy."""
        assert stack == "spark"
        self.configs.append(yaml.safe_load(config)["config"])
        return self.ends


@pytest.fixture
def deployed(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Deployed:
    it = Deployed(daemon, daemon.add_image(REVERTING.image.name))
    file = tmp_path / "Pulumi.spark.yaml"
    monkeypatch.setattr(rollback, "read_state", lambda _stack: it.state)
    monkeypatch.setattr(rollback, "run_pulumi", it.run)
    monkeypatch.setattr(rollback, "ensure_pulumi", lambda: None)
    monkeypatch.setattr(rollback, "stack_file", lambda _stack: file)
    monkeypatch.setattr(rollback, "_read", lambda _stack: it.file)
    monkeypatch.setattr(Probe, "listening", lambda _probe: None)
    monkeypatch.setattr(Probe, "answer", lambda _probe: it.answer)
    return it


def test_a_server_that_still_answers_is_left_alone(deployed: Deployed) -> None:
    deployed.file["config"]["vllm-spark:engine"] = {"max-num-seqs": 128}
    ran = vllm_spark("rollback", "--stack", "spark")
    assert ran.exit_code == 0
    assert "Nothing to do: what runs is the last good deployment, owner/model" in ran.stderr
    assert "Pulumi.spark.yaml still says something else" in ran.stderr
    assert "pulumi config set" in ran.stderr
    assert not deployed.configs


def test_the_last_good_settings_are_deployed_and_told(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.file["config"]["vllm-spark:engine"] = {"max-num-seqs": 128}
    deployed.file["config"]["vllm-spark:apiKey"] = SEALED
    deployed.container.exits(1)

    def run(*arguments: str, stack: str, config: str) -> Ended:
        deployed.container.starts()
        return deployed.run(*arguments, stack=stack, config=config)

    monkeypatch.setattr(rollback, "run_pulumi", run)
    ran = vllm_spark("rollback", "--stack", "spark")
    assert ran.exit_code == 0, ran.stderr
    (config,) = deployed.configs
    assert config["vllm-spark:rollback"] == {"vllm": DECLARED}, "nothing needs a pin"
    assert config["other:key"] == 1
    assert "engine.max-num-seqs: 128 => 64" in ran.stderr
    assert "secrets as that file has them now: vllm-spark:apiKey" in ran.stderr
    assert "owner/model answers again at http://127.0.0.1:8000/v1." in ran.stderr


def test_a_way_back_that_fails_ends_with_pulumis_code(deployed: Deployed) -> None:
    deployed.container.exits(1)
    deployed.ends = Ended(255)
    ran = vllm_spark("rollback", "--stack", "spark")
    assert ran.exit_code == 255
    assert "The way back to owner/model" in ran.stderr
    assert "failed; its cause is above." in ran.stderr
    deployed.ends = Ended(255, locked=True)
    assert "its cause is above" not in vllm_spark("rollback", "--stack", "spark").stderr


def test_a_stack_that_has_never_answered_has_no_way_back(deployed: Deployed) -> None:
    deployed.state = {}
    ran = vllm_spark("rollback", "--stack", "spark")
    assert ran.exit_code == 1
    assert "stack spark knows of no server that has answered" in ran.stderr
    assert "fix: correct Pulumi.spark.yaml" in ran.stderr


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("gone", "its container is gone"),
        ("ended", "its container does not run"),
        ("not yet", "the port does not answer yet"),
        ("refused", "the engine has died"),
    ],
)
def test_why_the_last_good_server_does_not_answer_is_known(
    what: str, said: str, deployed: Deployed
) -> None:
    if what == "gone":
        deployed.container.removed()
    elif what == "ended":
        deployed.container.exits(1)
    else:
        deployed.answer = NotYet(said) if what == "not yet" else Refused(said, "restart it", ())
    (good,) = LastGoodDeployment.of_state(deployed.state["resources"]).values()
    assert rollback.serving(good) == said


def test_what_answered_before_and_still_does_is_said_after_a_failed_up(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    rollback.after_failed_up("spark", REVERTING, interrupted=False)
    assert "What answered before still does, untouched: owner/model" in capsys.readouterr().err
    assert not deployed.configs


def test_a_stack_that_never_answered_says_so_after_a_failed_up(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.state = {}
    rollback.after_failed_up("spark", None, interrupted=False)
    assert "There is nothing to go back to" in capsys.readouterr().err


def test_ctrl_c_is_no_wish_to_go_back(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.container.exits(1)
    rollback.after_failed_up("spark", REVERTING, interrupted=True)
    assert "make rollback STACK=spark" in capsys.readouterr().err
    assert not deployed.configs


def test_a_way_back_by_itself_says_what_serves_now(
    deployed: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.container.exits(1)

    def run(*_arguments: str, **_config: str) -> Ended:
        deployed.container.starts()
        return Ended(0)

    monkeypatch.setattr(rollback, "run_pulumi", run)
    rollback.after_failed_up("spark", REVERTING, interrupted=False)
    assert "What serves now is the last good one, owner/model" in capsys.readouterr().err
    deployed.container.exits(1)
    monkeypatch.setattr(rollback, "run_pulumi", lambda *_, **__: Ended(255))
    rollback.after_failed_up("spark", REVERTING, interrupted=False)
    assert "nothing serves" in capsys.readouterr().err


def test_a_daemon_that_is_away_does_not_read_as_a_server_that_is_gone(
    deployed: Deployed, daemon: FakeDaemon
) -> None:
    daemon.goes_away()
    (good,) = LastGoodDeployment.of_state(deployed.state["resources"]).values()
    with pytest.raises(DockerUnavailable):
        rollback.serving(good)


@pytest.mark.parametrize("content", [None, "config: [", "just text"])
def test_a_config_file_that_cannot_be_read_is_said_with_what_is_lost(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "Pulumi.spark.yaml"
    monkeypatch.setattr(rollback, "stack_file", lambda _stack: file)
    if content is not None:
        file.write_text(content)
    with pytest.raises(SetupError, match=r"holds what the stack's secrets are encrypted with"):
        rollback._read("spark")
