"""What a command needs is made if it is missing, and said if it cannot be: CLI, plugins, Docker."""

from __future__ import annotations

import errno
import os
import subprocess
import types
from pathlib import Path
from typing import Any

import pulumi.automation as auto
import pytest

from tests.cli import vllm_spark
from tests.fake_daemon import FakeDaemon
from tests.programs import Programs
from vllm_spark.cli import prepare
from vllm_spark.cli.pulumi_command import read_state, run_pulumi, select
from vllm_spark.errors import DockerUnavailable, SetupError
from vllm_spark.setup import environment, plugins, pulumi_cli, steps


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs) -> Path:
    """A machine with nothing of Pulumi on it; its `.tools`."""
    tools = tmp_path / ".tools"
    monkeypatch.setattr(pulumi_cli, "OURS", tools / "pulumi")
    monkeypatch.setattr(environment, "OURS", tools / "pulumi")
    monkeypatch.setattr(environment, "PLUGIN_HOME", tools / "pulumi-home")
    monkeypatch.setattr(plugins, "PLUGIN_HOME", tools / "pulumi-home")
    monkeypatch.setattr(environment, "STATE", tmp_path / ".state")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(steps, "TOOLS", tools)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    # What the commands add to the environment of their process goes with the test.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tools


def version(number: str) -> str:
    return f'[ "$1" = version ] && echo v{number}; exit 0'


# The CLI


def test_a_cli_on_path_that_is_new_enough_is_taken(programs: Programs) -> None:
    programs.add("pulumi", version("3.259.0"))
    assert pulumi_cli.usable_cli()
    pulumi_cli.ensure_cli()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (version("3.200.0"), "your current CLI version is 3.200.0"),
        (version("4.0.0"), "CLI version 4.0.0"),
        ("exit 1", "returned non-zero exit status 1"),
        ("exit 0", "Could not parse the Pulumi CLI version"),
    ],
    ids=["too old", "too new", "broken", "something else"],
)
def test_a_cli_that_is_of_no_use_is_said_and_not_taken(
    script: str, said: str, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("pulumi", script)
    assert not pulumi_cli.usable_cli()
    assert said in capsys.readouterr().err


def test_a_cli_in_the_projects_tools_is_taken(machine: Path, programs: Programs) -> None:
    assert not pulumi_cli.usable_cli()
    programs.add("pulumi", version("3.259.0"))
    (machine / "pulumi" / "bin").mkdir(parents=True)
    (machine.parent / "bin" / "pulumi").rename(machine / "pulumi" / "bin" / "pulumi")
    assert pulumi_cli.usable_cli()
    assert environment.exports()["PATH"].startswith(str(machine / "pulumi" / "bin"))


def test_a_cli_that_is_missing_is_installed_in_the_version_that_was_tested(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(auto.PulumiCommand, "install", lambda **given: asked.append(given))
    pulumi_cli.ensure_cli()
    assert asked == [{"root": str(machine / "pulumi"), "version": pulumi_cli.VERSION}]
    assert f"installing v{pulumi_cli.VERSION}" in capsys.readouterr().err


def test_an_installer_that_fails_is_told_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(**_: object) -> None:
        raise OSError("get.pulumi.com: Name or service not known")

    monkeypatch.setattr(auto.PulumiCommand, "install", install)
    with pytest.raises(SetupError, match=r"failed: get\.pulumi\.com(.|\n)*fix: install Pulumi"):
        pulumi_cli.ensure_cli()


def test_an_installer_that_ran_and_failed_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def install(**_: object) -> None:
        script = "echo first; echo 'tar: pulumi: No space left on device'; exit 2"
        subprocess.check_output(["sh", "-c", script])

    monkeypatch.setattr(auto.PulumiCommand, "install", install)
    with pytest.raises(SetupError, match=r"exit status 2(.|\n)*\| tar: pulumi: No space left"):
        pulumi_cli.ensure_cli()


# The files of the checkout


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.EACCES, "`sudo chown -R $USER .`"),
        (errno.ENOSPC, "free some disk"),
        (errno.EDQUOT, "free some disk"),
        (errno.EROFS, "a folder that can be written"),
    ],
    ids=errno.errorcode.get,
)
def test_a_file_that_cannot_be_written_is_named_with_a_fix(
    number: int, fix: str, programs: Programs, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number), "/x/.state/passphrase")

    programs.add("pulumi", version("3.259.0"))
    monkeypatch.setattr(os, "open", refused)
    ran = vllm_spark("env")
    assert ran.exit_code == 2
    assert ran.stderr.startswith(f"error: /x/.state/passphrase: {os.strerror(number)}\n  fix: ")
    assert fix in ran.stderr


# The plugins


def plugin(name: str) -> str:
    return f"resource-{name}-v{plugins.wanted()[name]}"


def test_plugins_that_are_missing_are_installed_in_the_versions_of_their_sdks(
    programs: Programs, machine: Path
) -> None:
    programs.add("pulumi")
    (machine.parent / "home" / "plugins" / plugin("docker")).mkdir(parents=True)
    plugins.ensure_plugins()
    number = plugins.wanted()["command"]
    assert programs.calls("pulumi") == [f"plugin install resource command {number}"]


def test_plugins_that_are_there_are_left_alone(programs: Programs, machine: Path) -> None:
    programs.add("pulumi")
    for name in plugins.PLUGINS:
        (machine.parent / "home" / "plugins" / plugin(name)).mkdir(parents=True)
    plugins.ensure_plugins()
    assert not programs.calls("pulumi")


def test_a_plugin_that_cannot_be_downloaded_is_told_in_pulumis_words(programs: Programs) -> None:
    programs.add("pulumi", "echo 'error: 403 from get.pulumi.com' >&2; exit 255")
    with pytest.raises(SetupError, match=r"exit code 255(.|\n)*403 from(.|\n)*internet") as failed:
        plugins.ensure_plugins()
    assert "install the docker plugin" in str(failed.value)


def test_a_checkout_with_stand_ins_stays_with_them(programs: Programs, machine: Path) -> None:
    (machine / "pulumi-home").mkdir(parents=True)
    with pytest.raises(SetupError, match="has taken the stand-ins"):
        plugins.ensure_plugins()


# A long step


def test_a_step_that_goes_on_says_its_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said: list[str] = []
    told = tmp_path / "told"

    def say(text: str) -> None:
        said.append(text)
        if "layer 2" in text:
            told.touch()

    monkeypatch.setattr(steps, "say", say)
    monkeypatch.setattr(steps, "HEARTBEAT_SECONDS", 0.01)
    waiting = f"printf 'layer 1\\rlayer 2\\n'; until [ -e {told} ]; do sleep 0.01; done"
    steps.run("pull", ["sh", "-c", waiting], fix="none")
    assert any(line.endswith("layer 2") for line in said)
    assert said[0] == "  pull ..."
    assert said[-1].startswith("  pull: done in")


# What a command needs, in all


class Offline(types.ModuleType):
    """Stands in for `offline.bootstrap`."""

    def __init__(self) -> None:
        super().__init__("offline.bootstrap")
        self.made: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.made.append(name)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Offline:
    stands_in = Offline()
    monkeypatch.setattr(prepare, "_offline", lambda: stands_in)
    return stands_in


def unavailable() -> None:
    raise SetupError("it cannot be downloaded")


def test_what_cannot_be_downloaded_is_made_where_the_checkout_can(
    offline: Offline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare, "ensure_cli", unavailable)
    monkeypatch.setattr(prepare, "ensure_plugins", unavailable)
    prepare.ensure_pulumi()
    assert offline.made == ["build_pulumi_cli", "install_python_plugins"]
    said = capsys.readouterr().err
    assert "it cannot be downloaded\n  building it from its Go module instead" in said
    assert "taking the Python plugins of offline/ instead" in said


@pytest.mark.parametrize("missing", ["ensure_cli", "ensure_plugins"])
def test_in_an_installed_package_what_cannot_be_downloaded_is_an_error(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_offline", lambda: None)
    monkeypatch.setattr(prepare, "ensure_cli", lambda: None)
    monkeypatch.setattr(prepare, "ensure_plugins", lambda: None)
    monkeypatch.setattr(prepare, missing, unavailable)
    with pytest.raises(SetupError, match="it cannot be downloaded"):
        prepare.ensure_pulumi()


def test_the_environment_is_set_for_what_comes_after(
    offline: Offline, monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    monkeypatch.setattr(prepare, "ensure_cli", lambda: None)
    monkeypatch.setattr(prepare, "ensure_plugins", lambda: None)
    prepare.ensure_pulumi()
    assert os.environ["PULUMI_BACKEND_URL"] == (machine.parent / ".state").as_uri()
    assert not offline.made


def test_a_command_that_only_reads_makes_nothing(machine: Path, programs: Programs) -> None:
    ran = vllm_spark("status")
    assert ran.exit_code == 2
    assert "there is no Pulumi CLI here, so nothing was deployed\n  fix: make up" in ran.stderr
    programs.add("pulumi", version("3.259.0"))
    prepare.require_pulumi()
    assert os.environ["PULUMI_BACKEND_URL"].startswith("file://")


def test_a_docker_that_is_away_is_started_where_the_checkout_can(
    offline: Offline, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", daemon.address)
    prepare.ensure_parts_of(None)
    assert not offline.made
    daemon.goes_away()
    prepare.ensure_parts_of(None)
    assert offline.made == ["start_docker"]
    monkeypatch.setattr(prepare, "_offline", lambda: None)
    with pytest.raises(DockerUnavailable):
        prepare.ensure_parts_of(None)


def test_an_installed_package_has_no_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare._offline() is not None, "a checkout has them"

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    assert prepare._offline() is None


# Pulumi itself


def test_the_state_of_a_stack_is_read_without_a_lock(programs: Programs) -> None:
    programs.add("pulumi", """echo '{"deployment": {"resources": [{"type": "a"}]}}'""")
    assert read_state("spark") == {"resources": [{"type": "a"}]}
    assert programs.calls("pulumi") == ["stack export --stack spark"]


def test_a_stack_that_was_never_up_has_an_empty_state(programs: Programs) -> None:
    programs.add("pulumi", "echo \"error: no stack named 'spark' found\" >&2; exit 255")
    assert read_state("spark") == {}


def test_a_state_that_cannot_be_read_is_not_empty(programs: Programs) -> None:
    programs.add("pulumi", "echo 'error: could not list bucket: permission denied' >&2; exit 255")
    with pytest.raises(SetupError, match=r"state of stack spark: error: .*permission denied"):
        read_state("spark")


def test_a_stack_is_selected_and_created_whatever_its_name_begins_with(programs: Programs) -> None:
    programs.add("pulumi", "exit 6")
    assert select("-x") == 6
    assert programs.calls("pulumi") == ["stack select --create -- -x"]


LOCK = (
    "the stack is currently locked by 1 lock(s). Either wait... "
    "file:///x: created by me@{host} (pid {pid}) at 2026-11-24T22:21:00Z"
)


@pytest.mark.parametrize(
    ("host", "pid", "said"),
    [
        ("here", 2**22 + 1, "was killed: there is no process 4194305 any more.\n  fix: eval"),
        ("here", os.getpid(), "Nothing was changed by this one.\n  fix: wait for it"),
        ("elsewhere", 2**22 + 1, "on elsewhere. Nothing was changed by this one."),
    ],
    ids=["killed", "running", "elsewhere"],
)
def test_a_lock_is_told_by_who_holds_it(
    host: str,
    pid: int,
    said: str,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    programs.add("pulumi", f"echo '{LOCK.format(host=host, pid=pid)}' >&2; exit 255")
    ended = run_pulumi("up", stack="spark")
    assert (ended.code, ended.locked) == (255, True)
    assert said in capsys.readouterr().err
