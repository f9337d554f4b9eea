"""`make rollback STACK=x`: back to the last deployment that answered, through the same gate.

The state says what that was (`engine/last_good.py`). It is deployed by the same program with a
config file of its own, so that `Pulumi.<stack>.yaml`, which somebody is editing, stays as it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.errors import ImageNotFound, NotFound

from bootstrap.docker_engine import SILENT, ensure_docker, silent
from bootstrap.local_parts import ensure_pulumi
from bootstrap.steps import ROOT, Unready, say
from engine.last_good import (
    LastGood,
    NoWayBack,
    commands,
    differences,
    stack_file,
    without_secrets,
)
from engine.probe import NotYet, Probe, Ready
from engine.problems import ConfigError
from operations.pulumi_command import UP, read_state, run_pulumi

_NOTHING = "There is nothing to go back to: stack {stack} knows of no server that has answered."


def main() -> int:
    """Exit code 0 only if the last good deployment answers."""
    parser = argparse.ArgumentParser(prog="rollback", description=__doc__)
    parser.add_argument("--stack", default="local")
    stack = parser.parse_args().stack
    try:
        ensure_pulumi()
        ensure_docker()
        return roll_back(stack)
    except (ConfigError, Unready, NoWayBack) as error:
        say(f"error: {error}")
    except SILENT as error:
        say(f"error: {silent(error)}")
    except KeyboardInterrupt:
        say(f"Interrupted; `make status STACK={stack}` tells what serves.")
    return 1


def roll_back(stack: str) -> int:
    """Deploy the last good deployment again; 0 if it answers. The exceptions say why not."""
    state = read_state(stack)
    good = LastGood.of_state(state.get("resources", []))
    if good is None:
        say(_NOTHING.format(stack=stack))
        say(f"  mend: correct Pulumi.{stack}.yaml, then make up STACK={stack}")
        return 1
    file = _read(stack)
    written = without_secrets(file.get("config") or {})
    answer = serving(good)
    if isinstance(answer, Ready):
        say(f"Nothing to do: what runs is the last good deployment, {good}.")
        say(f"It answers at {good.settings.endpoint.base_url}, in {answer.seconds:.2f} s.")
        _tell_by_hand(written, good.config, stack)
        return 0
    config = good.pinned(_image_id(good.settings.image.name), _last_fetch(state))
    content = stack_file(file, config, good.secrets)
    _tell_plan(good, differences(written, config), content, stack)
    with tempfile.TemporaryDirectory() as directory:
        generated = Path(directory) / f"Pulumi.{stack}.yaml"
        generated.write_text(yaml.safe_dump(content))
        up = run_pulumi(*UP, "--config-file", str(generated), stack=stack)
    if up.code != 0:
        if not up.locked:
            say(f"The way back to {good} failed; its cause is above.")
        return up.code
    good = LastGood.of_state(read_state(stack)["resources"]) or good
    answer = serving(good)
    if not isinstance(answer, Ready):
        say(f"{good.settings.model.id} runs, but does not answer: {answer}")
        say(f"  mend: docker restart {good.container_id[:12]}, then make up STACK={stack}")
        return 1
    say(f"{good.settings.model.id} answers again at {good.settings.endpoint.base_url}.")
    _tell_by_hand(written, config, stack)
    return 0


def after_failed_up(stack: str, *, revert: bool) -> None:
    """What `make up` says last, and does if `revert` is set, when a deployment has failed."""
    good = LastGood.of_state(read_state(stack).get("resources", []))
    if good is None:
        say(_NOTHING.format(stack=stack))
        return
    answer = serving(good)
    if isinstance(answer, Ready):
        say(f"What answered before still does, untouched: {good}.")
        return
    if not revert:
        say(f"To go back to {good}:\n  make rollback STACK={stack}")
        return
    say("vllm-spark:health.revertOnFailure is set.")
    try:
        back = roll_back(stack) == 0
    except (NoWayBack, ConfigError, Unready) as error:
        say(f"error: {error}")
        back = False
    if back:
        say(f"The new deployment failed. What serves now is the last good one, {good}.")
    else:
        say(f"The new deployment failed, and so did the way back to {good}: nothing serves.")


def serving(good: LastGood) -> Ready | str:
    """Whether the very container of the last good deployment answers now; else why not."""
    client = docker.from_env()
    try:
        container = client.api.inspect_container(good.container_id)
    except NotFound:
        return "its container is gone"
    if not container["State"]["Running"]:
        return "its container does not run"
    environment = dict(entry.partition("=")[::2] for entry in container["Config"]["Env"])
    settings = good.settings
    probe = Probe(settings.endpoint.base_url, settings.served_name, environment.get("VLLM_API_KEY"))
    match probe.listening() or probe.answer():
        case Ready() as ready:
            return ready
        case NotYet(why):
            return why
        case refused:
            return refused.cause


def _read(stack: str) -> dict[str, Any]:
    """The stack's config file; it may hold any mistake in its values, but has to be YAML."""
    path = ROOT / f"Pulumi.{stack}.yaml"
    try:
        return dict(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise Unready(
            f"{path.name} cannot be read, and holds what the stack's secrets are sealed with: "
            f"{error}\n  mend: put it back, as from git, then repeat"
        ) from None


def _image_id(name: str) -> str | None:
    try:
        return str(docker.from_env().images.get(name).id)
    except ImageNotFound:
        return None


def _last_fetch(state: dict[str, Any]) -> str | None:
    """The command that the state's weights came by."""
    for resource in state["resources"]:
        if resource["urn"].endswith("command:local:Command::weights"):
            return str(resource["inputs"]["create"])
    return None


def _tell_plan(good: LastGood, changes: list[str], content: dict[str, Any], stack: str) -> None:
    say(f"Going back to {good}.")
    say(f"Against Pulumi.{stack}.yaml, which stays as it is:")
    say("".join(f"  {line}\n" for line in changes or ["no difference"]).rstrip())
    secrets = sorted(set(content["config"]) - set(without_secrets(content["config"])))
    if secrets:
        say(f"  secrets as that file has them now: {', '.join(secrets)}")


def _tell_by_hand(written: dict[str, Any], config: Any, stack: str) -> None:
    """What is left to a person: the file says something else than what serves."""
    lines = commands(written, config, stack)
    if lines:
        say(
            f"Pulumi.{stack}.yaml still says something else, and `make up STACK={stack}` would "
            "deploy that. Correct it, put it back, or have it say what serves:"
        )
        say("".join(f"  {line}\n" for line in ['eval "$(make -s env)"', *lines]).rstrip())


if __name__ == "__main__":
    sys.exit(main())
