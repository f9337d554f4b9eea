"""The stand-in for `command:local:Command`, over gRPC."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from offline.plugins import write_plugin_dir
from tests.offline.plugin_client import NONE, UNKNOWN, Plugin, Start, secret


@pytest.fixture(scope="module")
def command(start: Start) -> Plugin:
    return start("command:local:Command")


def test_create_runs_the_command_and_keeps_what_it_printed(command: Plugin) -> None:
    id, state = command.create(create="echo out; echo err >&2")
    assert id
    assert (state["stdout"], state["stderr"]) == ("out", "err")


def test_environment_stdin_directory_and_interpreter_reach_the_command(
    command: Plugin, tmp_path: Path
) -> None:
    (tmp_path / "here").touch()
    _, state = command.create(
        create="ls; echo $GREETING; cat",
        environment={"GREETING": "hello"},
        stdin="from stdin",
        dir=str(tmp_path),
        interpreter=["/bin/sh", "-euc"],
    )
    assert state["stdout"] == "here\nhello\nfrom stdin"


def test_a_command_that_fails_fails_the_resource_with_all_it_printed(command: Plugin) -> None:
    with pytest.raises(RuntimeError) as failure:
        command.create(create="echo looking; echo no such model >&2; exit 3")
    text = str(failure.value)
    assert text.startswith("exit status 3: running ")
    assert "looking\n" in text and "no such model\n" in text
    assert "Traceback" not in text


def test_a_directory_that_does_not_exist_is_named(command: Plugin) -> None:
    with pytest.raises(RuntimeError, match="No such file or directory: /no/such"):
        command.create(create="true", dir="/no/such")


def test_each_line_is_logged_as_it_is_printed_unless_logging_says_no(command: Plugin) -> None:
    command.engine.lines.clear()
    command.create(create="echo out; echo err >&2")
    assert sorted(command.engine.lines) == ["err", "out"]
    command.engine.lines.clear()
    command.create(create="echo out; echo err >&2", logging="stderr")
    assert command.engine.lines == ["err"]
    command.engine.lines.clear()
    command.create(create="echo out; echo err >&2", logging="none")
    assert command.engine.lines == []


def test_what_a_secret_went_into_comes_out_secret(command: Plugin) -> None:
    _, state = command.create(
        create="echo $TOKEN", environment={"TOKEN": secret("hf_x")}, logging="none"
    )
    assert state["stdout"] == secret("hf_x")
    assert state["environment"] == {"TOKEN": secret("hf_x")}
    assert state["create"] == "echo $TOKEN"


def test_an_unchanged_command_has_no_diff(command: Plugin) -> None:
    inputs: dict[str, Any] = {"create": "true", "triggers": ["a", 1], "environment": {"A": "b"}}
    _, state = command.create(**inputs)
    assert command.diff(state, **inputs).changes == NONE


def test_a_changed_input_updates_and_a_changed_trigger_replaces(command: Plugin) -> None:
    _, state = command.create(create="true", triggers=["a"])
    edited = command.diff(state, create="false", triggers=["a"])
    assert (list(edited.diffs), list(edited.replaces)) == (["create"], [])
    triggered = command.diff(state, create="true", triggers=["b"])
    assert list(triggered.replaces) == ["triggers"]
    assert not triggered.deleteBeforeReplace


def test_update_runs_update_or_else_create_and_knows_the_last_output(command: Plugin) -> None:
    id, state = command.create(create="echo first")
    state = command.update(id, state, create="echo 'now '$PULUMI_COMMAND_STDOUT")
    assert state["stdout"] == "now first"
    state = command.update(id, state, create="false", update="echo updated")
    assert state["stdout"] == "updated"


def test_delete_runs_delete(command: Plugin, tmp_path: Path) -> None:
    id, state = command.create(create="echo made", delete="echo $PULUMI_COMMAND_STDOUT > gone")
    command.delete(id, state | {"dir": str(tmp_path)})
    assert (tmp_path / "gone").read_text() == "made\n"


def test_a_preview_runs_nothing_and_does_not_know_the_output(
    command: Plugin, tmp_path: Path
) -> None:
    id, state = command.create(preview=True, create="touch made", dir=str(tmp_path))
    assert id == ""
    assert state["stdout"] == UNKNOWN
    assert list(tmp_path.iterdir()) == []


def test_a_property_that_would_be_ignored_is_refused(command: Plugin) -> None:
    with pytest.raises(ValueError, match=r"does not know Command\.assetPaths"):
        command.check(create="true", assetPaths=["*"])


def test_another_resource_type_is_refused(start: Start) -> None:
    remote = start("command:remote:Command")
    with pytest.raises(RuntimeError, match="does not know command:remote:Command, only command:lo"):
        remote.check()


def test_cancel_kills_a_command_that_runs(start: Start) -> None:
    command = start("command:local:Command")
    with ThreadPoolExecutor() as pool:
        result = pool.submit(command.create, create="echo started; exec sleep 60")
        command.engine.wait_for("started")
        command.cancel()
        with pytest.raises(RuntimeError, match="signal 9: running"):
            result.result(timeout=30)


def test_a_plugin_ends_with_the_engine_that_started_it(tmp_path: Path) -> None:
    write_plugin_dir(tmp_path, "command", "1.2.3", Path(sys.executable))
    engine = subprocess.Popen(
        ["/bin/sh", "-c", '"$0" 127.0.0.1:1 & wait', tmp_path / "pulumi-resource-command"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert engine.stdout is not None
    assert int(engine.stdout.readline())
    engine.kill()
    # What the engine and the plugin both hold open ends when the second of them does.
    assert engine.communicate(timeout=30)[0] == ""


def test_a_plugin_that_the_engine_ends_says_nothing(tmp_path: Path) -> None:
    write_plugin_dir(tmp_path, "command", "1.2.3", Path(sys.executable))
    plugin = subprocess.Popen(
        [tmp_path / "pulumi-resource-command", "127.0.0.1:1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert plugin.stdout is not None
    assert int(plugin.stdout.readline())
    plugin.send_signal(signal.SIGINT)
    assert plugin.communicate(timeout=30) == ("", "")
