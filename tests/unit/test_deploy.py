"""`up`, `preview`, `down`, `env`, `logs`, `stop` and `restart`, with stand-ins for the programs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli import vllm_spark
from tests.fake_daemon import FakeDaemon
from tests.programs import Programs
from tests.unit.test_drift import settings
from vllm_spark.cli import containers, deploy
from vllm_spark.cli.pulumi_command import UP, Ended
from vllm_spark.cli.servers import Server


class Pulumi:
    """What was asked of Pulumi, and how it ends."""

    def __init__(self) -> None:
        self.ends = Ended(0)
        self.selects = 0
        self.ran: list[tuple[str, ...]] = []
        self.after_failure: list[dict[str, Any]] = []

    def run(self, *arguments: str, stack: str) -> Ended:
        self.ran.append((*arguments, stack))
        return self.ends

    def failed(self, stack: str, _settings: object, **how: Any) -> None:
        self.after_failure.append({"stack": stack, **how})


@pytest.fixture(autouse=True)
def pulumi(monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon) -> Pulumi:
    """A Pulumi that does as it is told; nothing else is missing on the machine."""
    pulumi = Pulumi()
    monkeypatch.setattr(deploy, "load_stack_if_ours", lambda _path: settings())
    monkeypatch.setattr(deploy, "ensure_pulumi", lambda: None)
    monkeypatch.setattr(deploy, "ensure_parts_of", lambda _settings: None)
    monkeypatch.setattr(
        deploy,
        "show_changes",
        lambda stack, events: print(f"changes of {stack} in {len(events)} events"),
    )
    monkeypatch.setattr(deploy, "show_drift", lambda stack: print(f"drift of {stack}"))
    monkeypatch.setattr(deploy, "select", lambda _stack: pulumi.selects)
    monkeypatch.setattr(deploy, "run_pulumi", pulumi.run)
    monkeypatch.setattr(deploy, "after_failed_up", pulumi.failed)
    monkeypatch.setattr(containers, "require_pulumi", lambda: None)
    return pulumi


def test_an_up_that_works_says_no_more(pulumi: Pulumi) -> None:
    ran = vllm_spark("up", "--stack", "spark")
    assert ran.exit_code == 0
    assert pulumi.ran == [(*UP, "spark")]
    assert not pulumi.after_failure


def test_an_up_that_fails_says_how_to_go_back_and_ends_with_pulumis_code(pulumi: Pulumi) -> None:
    pulumi.ends = Ended(255)
    assert vllm_spark("up", "--stack", "spark").exit_code == 255
    assert pulumi.after_failure == [{"stack": "spark", "interrupted": False}]


def test_an_up_that_is_interrupted_says_how_it_goes_on(pulumi: Pulumi) -> None:
    pulumi.ends = Ended(1, interrupted=True)
    ran = vllm_spark("up", "--stack", "spark")
    assert ran.exit_code == 1
    assert "A container that was started goes on: make logs STACK=spark follows it" in ran.stderr
    assert "make up STACK=spark goes on from here." in ran.stderr
    assert pulumi.after_failure == [{"stack": "spark", "interrupted": True}]


def test_a_locked_stack_is_left_to_who_holds_it(pulumi: Pulumi) -> None:
    pulumi.ends = Ended(255, locked=True)
    assert vllm_spark("up").exit_code == 255
    assert not pulumi.after_failure


def test_a_server_that_stays_stopped_is_not_brought_back(
    pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy, "load_stack_if_ours", lambda _path: settings(state="stopped"))
    pulumi.ends = Ended(255)
    assert vllm_spark("up").exit_code == 255
    assert not pulumi.after_failure


@pytest.mark.parametrize("command", ["up", "preview", "down"])
def test_a_stack_that_cannot_be_selected_ends_it(command: str, pulumi: Pulumi) -> None:
    pulumi.selects = 6
    assert vllm_spark(command).exit_code == 6
    assert not pulumi.ran


def test_a_preview_ends_with_the_report_and_the_drift(pulumi: Pulumi) -> None:
    pulumi.ends = Ended(0, events=[{"sequence": 1}])
    ran = vllm_spark("preview", "--stack", "spark")
    assert pulumi.ran == [("preview", "--diff", "spark")]
    assert ran.stdout == "changes of spark in 1 events\ndrift of spark\n"


def test_a_preview_that_fails_ends_with_pulumis_code(pulumi: Pulumi) -> None:
    pulumi.ends = Ended(3)
    ran = vllm_spark("preview")
    assert (ran.exit_code, ran.stdout) == (3, "")


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ({"volume": "weights"}, "volume weights; `docker volume rm weights` removes them."),
        ({"hostPath": "/opt/hf"}, "/opt/hf; they are files of this host."),
    ],
)
def test_a_stack_that_is_taken_down_says_where_its_weights_are(
    cache: dict[str, str], said: str, pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy, "load_stack_if_ours", lambda _path: settings(cache=cache))
    ran = vllm_spark("down", "--stack", "spark")
    assert ran.stdout == f"The weights stay in {said}\n"
    assert pulumi.ran == [("destroy", "--yes", "--refresh", "spark")]


def test_nothing_is_taken_down_without_docker(pulumi: Pulumi, daemon: FakeDaemon) -> None:
    daemon.goes_away()
    ran = vllm_spark("down")
    assert ran.exit_code == 2
    assert "no Docker daemon answers at" in ran.stderr
    assert not pulumi.ran


def test_the_environment_is_printed_for_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "exports", lambda _before: {"A": "it's", "B": "b"})
    assert vllm_spark("env").stdout == "export A='it'\"'\"'s'\nexport B=b\n"


# What Docker does by itself


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("vllm", "vllm-spark", settings())
    monkeypatch.setattr(containers, "one_server", lambda _stack, _only: server)


@pytest.mark.parametrize(
    ("command", "call"),
    [("logs", "logs --follow --tail 200 vllm-spark"), ("stop", "stop vllm-spark")],
)
def test_the_servers_container_is_meant(
    command: str, call: str, up: None, programs: Programs
) -> None:
    programs.add("docker")
    assert vllm_spark(command).exit_code == 0
    assert programs.calls("docker") == [call]


def test_a_restart_ends_when_the_model_has_answered(
    up: None, programs: Programs, pulumi: Pulumi
) -> None:
    programs.add("docker")
    assert vllm_spark("restart", "--stack", "spark").exit_code == 0
    assert programs.calls("docker") == ["restart vllm-spark"]
    assert pulumi.ran == [(*UP, "spark")]


def test_a_restart_that_fails_deploys_nothing(up: None, programs: Programs, pulumi: Pulumi) -> None:
    programs.add("docker", "exit 7")
    assert vllm_spark("restart").exit_code == 7
    assert not pulumi.ran


def test_a_stack_that_is_not_up_has_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "one_server", lambda _stack, _only: None)
    ran = vllm_spark("logs", "--stack", "spark")
    assert ran.exit_code == 2
    assert "error: stack spark is not up\n  fix: make up STACK=spark" in ran.stderr


def test_a_machine_without_dockers_command_line_is_told(
    up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    ran = vllm_spark("stop")
    assert ran.exit_code == 2
    assert "there is no `docker` here" in ran.stderr


def test_ctrl_c_outside_of_pulumi_says_what_to_ask(
    monkeypatch: pytest.MonkeyPatch, pulumi: Pulumi
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(deploy, "ensure_pulumi", interrupted)
    ran = vllm_spark("up")
    assert ran.exit_code == 130
    assert "Interrupted; `make status` tells what serves." in ran.stderr
