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
from vllm_spark.cli import prepare, pulumi_command
from vllm_spark.cli.pulumi_command import read_state, run_pulumi, select
from vllm_spark.config import stack_file
from vllm_spark.errors import DiskFull, DockerUnavailable, SetupError
from vllm_spark.setup import environment, plugins, pulumi_cli, steps


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs) -> Path:
    """A machine with nothing of Pulumi on it; its `.tools`."""
    tools = tmp_path / ".tools"
    monkeypatch.setattr(pulumi_cli, "OURS", tools / "pulumi")
    monkeypatch.setattr(environment, "OURS", tools / "pulumi")
    monkeypatch.setattr(environment, "PLUGIN_HOME", tools / "pulumi-home")
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


def have(home: Path, name: str, program: str = "\x7fELF") -> Path:
    """The program of a plugin, in this PULUMI_HOME."""
    folder = home / "plugins" / f"resource-{name}-v{plugins.wanted()[name]}"
    folder.mkdir(parents=True)
    launcher = folder / f"pulumi-resource-{name}"
    launcher.write_text(program)
    return launcher


def test_plugins_that_are_missing_are_installed_in_the_versions_of_their_sdks(
    programs: Programs, machine: Path
) -> None:
    programs.add("pulumi")
    have(machine.parent / "home", "docker")
    plugins.ensure_plugins()
    number = plugins.wanted()["command"]
    assert programs.calls("pulumi") == [f"plugin install resource command {number}"]


def test_plugins_that_are_there_are_left_alone(programs: Programs, machine: Path) -> None:
    programs.add("pulumi")
    for name in plugins.PLUGINS:
        have(machine.parent / "home", name)
    plugins.ensure_plugins()
    assert not programs.calls("pulumi")


def test_a_plugin_that_cannot_be_downloaded_is_told_in_pulumis_words(programs: Programs) -> None:
    programs.add("pulumi", "echo 'error: 403 from get.pulumi.com' >&2; exit 255")
    with pytest.raises(SetupError, match=r"exit code 255(.|\n)*403 from(.|\n)*internet") as failed:
        plugins.ensure_plugins()
    assert "install the docker plugin" in str(failed.value)


def test_stand_ins_give_way_to_the_official_plugins_which_are_asked_for_once_a_day(
    programs: Programs, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("pulumi")
    launchers = [have(machine / "pulumi-home", name, "#!/bin/sh\n") for name in plugins.PLUGINS]
    plugins.ensure_plugins()
    assert not programs.calls("pulumi")
    for launcher in launchers:
        os.utime(launcher, (0, 0))
    plugins.ensure_plugins()
    assert programs.calls("pulumi") == [
        f"plugin install resource {name} {plugins.wanted()[name]} --reinstall"
        for name in plugins.PLUGINS
    ]
    assert "official docker plugin takes the place of the stand-in" in capsys.readouterr().err


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
def test_what_has_no_room_on_the_disk_gets_no_substitute(
    missing: str, offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> None:
        steps.run("install it", ["sh", "-c", "echo no space left on device; exit 1"], fix="none")

    monkeypatch.setattr(prepare, "ensure_cli", lambda: None)
    monkeypatch.setattr(prepare, missing, no_room)
    with pytest.raises(DiskFull, match="fix: free some disk"):
        prepare.ensure_pulumi()
    assert not offline.made


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


def test_a_stack_is_selected_whatever_its_name_begins_with(programs: Programs) -> None:
    programs.add("pulumi", "exit 6")
    assert select("-x") == 6
    assert programs.calls("pulumi") == ["stack select -- -x"]


SALT = "encryptionsalt: v1:abc:def\n"
SECRET = "config:\n  vllm-spark:apiKey:\n    secure: v1:x\n"
WRITES = f"printf '{SALT}' >> Pulumi.x.yaml"
"""What Pulumi does to the config file beside Pulumi.yaml when it creates a stack."""

LAST = "for last; do :; done"
"""Sets $last to the program's last argument: the event log, in the folder of the copy."""


@pytest.fixture
def project(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with stack `x`; its config file."""
    root = machine.parent
    monkeypatch.setattr(stack_file, "ROOT", root)
    monkeypatch.setattr(pulumi_command, "ROOT", root)
    (root / "Pulumi.yaml").write_text("name: test\n")
    file = root / "Pulumi.x.yaml"
    file.write_text("config: {}\n")
    return file


def test_a_stack_is_created_without_an_edit_of_its_config_file(
    programs: Programs, project: Path
) -> None:
    none = "[ -e made ] || { echo \"error: no stack named 'x' found\" >&2; exit 255; }"
    programs.add(
        "pulumi",
        f'case "$2" in select) {none};; init) {WRITES}; touch {project.parent}/made;; esac',
    )
    assert select("x") == 0
    calls = ["stack select -- x", "stack init --no-select -- x", "stack select -- x"]
    assert programs.calls("pulumi") == calls
    assert project.read_text() == "config: {}\n"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ('{"diagnosticEvent": {"severity": "error", "message": "plugin ended"}}', "plugin ended"),
        ('{"resOpFailedEvent": {"metadata": {"urn": "urn::x"}}}', "urn::x failed"),
    ],
    ids=["a diagnostic", "an operation"],
)
def test_an_exit_code_of_0_does_not_stand_beside_an_error(
    event: str, said: str, project: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("pulumi", f"{LAST}; echo '{event}' > $last")
    assert run_pulumi("up", stack="x").code == 1
    assert said in capsys.readouterr().err


def test_a_warning_is_no_error(project: Path, programs: Programs) -> None:
    warning = '{"diagnosticEvent": {"severity": "warning", "message": "x"}}'
    programs.add("pulumi", f"{LAST}; echo '{warning}' > $last")
    assert run_pulumi("up", stack="x").code == 0


def test_pulumi_writes_into_a_copy_of_the_config_file(programs: Programs, project: Path) -> None:
    programs.add("pulumi", f"{LAST}; cd $(dirname $last); {WRITES}")
    run_pulumi("up", stack="x")
    assert project.read_text() == "config: {}\n"


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("config: {}\n" + SALT, "config: {}\n"),
        (f"{SALT}config:\n  a:b: encryptionsalt\n", "config:\n  a:b: encryptionsalt\n"),
        (SECRET + SALT, SECRET + SALT),
        (SALT, ""),
    ],
    ids=["no secret", "salt first", "with a secret", "nothing else"],
)
def test_a_salt_that_no_secret_needs_does_not_lock_other_clones_out(
    text: str, given: str, project: Path, programs: Programs, capfd: pytest.CaptureFixture[str]
) -> None:
    project.write_text(text)
    programs.add("pulumi", f'{LAST}; cat "$(dirname $last)/Pulumi.x.yaml"')
    run_pulumi("preview", "--diff", stack="x")
    assert capfd.readouterr().out == given


def test_a_wrong_passphrase_is_told_with_the_fix(
    project: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add(
        "pulumi", "echo 'error: get stack secrets manager: incorrect passphrase' >&2; exit 1"
    )
    assert run_pulumi("up", stack="x").code == 1
    assert "Pulumi.x.yaml" in (said := capsys.readouterr().err)
    assert "fix: set PULUMI_CONFIG_PASSPHRASE" in said
    wrong = "echo \"error: no stack named 'x' found; incorrect passphrase\" >&2; exit 255"
    programs.add("pulumi", wrong)
    assert select("x") == 255
    assert "fix: set PULUMI_CONFIG_PASSPHRASE" in capsys.readouterr().err


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
