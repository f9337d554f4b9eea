"""`vllm-spark rollback`: deploys the last deployment that answered again, through the same gate.

The state records that deployment (`deployment/last_good.py`). The same program deploys it with a
temporary config file, so that `Pulumi.<stack>.yaml`, which the user may be editing, stays as it is.
"""

from __future__ import annotations

from typing import Any

import click
import yaml
from docker.errors import ImageNotFound, NotFound

from vllm_spark.cli.options import server_option, stack_option
from vllm_spark.cli.prepare import ensure_pulumi
from vllm_spark.cli.pulumi_command import UP, read_state, run_pulumi
from vllm_spark.cli.servers import choose
from vllm_spark.config.settings import Settings
from vllm_spark.config.stack_file import encrypted, for_pulumi, stack_file
from vllm_spark.deployment.config_diff import commands, differences
from vllm_spark.deployment.last_good import LastGoodDeployment, without_secrets
from vllm_spark.docker_host.connection import connect, docker_errors
from vllm_spark.errors import RollbackError, SetupError, VllmSparkError
from vllm_spark.gate.probe import NotYet, Probe, Ready
from vllm_spark.setup.steps import say

_NOTHING = "There is nothing to go back to: stack {stack} knows of no server that has answered."


@click.command()
@stack_option
@server_option
def rollback(stack: str, server: str | None) -> None:
    """Return to the last deployment that answered; ends when it answers again."""
    ensure_pulumi()
    connect()
    roll_back(stack, server)


def roll_back(stack: str, server: str | None) -> None:
    """Deploy the last good deployment of a server again. An exception says why that failed."""
    state = read_state(stack)
    records = LastGoodDeployment.of_state(state.get("resources", []))
    if not records:
        raise RollbackError(
            _NOTHING.format(stack=stack)
            + f"\n  fix: correct Pulumi.{stack}.yaml, then make up STACK={stack}"
        )
    good = records[choose(server, records, stack)]
    file = _read(stack)
    written = without_secrets(file.get("config") or {})
    answer = serving(good)
    if isinstance(answer, Ready):
        say(f"Nothing to do: what runs is the last good deployment, {good}.")
        say(f"It answers at {good.settings.endpoint.base_url}, in {answer.seconds:.2f} s.")
        _tell_by_hand(written, good.config, stack)
        return
    image = good.settings.image.name
    pinned = good.pinned(_image_id(image), _last_fetch(state, good.server))
    config = {**good.config, **{f"vllm-spark:{key}": pinned[key] for key in ("model", "image")}}
    content = good.stack_file(file, pinned)
    _tell_plan(good, [*map(str, differences(written, config))], content, stack)
    ended = run_pulumi(*UP, stack=stack, config=yaml.safe_dump(content))
    if ended.code != 0:
        if not ended.locked:
            say(f"The way back to {good} failed; its cause is above.")
        raise click.exceptions.Exit(ended.code)
    good = LastGoodDeployment.of_state(read_state(stack)["resources"]).get(good.server, good)
    answer = serving(good)
    if not isinstance(answer, Ready):
        raise RollbackError(
            f"{good.settings.model.id} runs, but does not answer: {answer}\n"
            f"  fix: docker restart {good.container_id[:12]}, then make up STACK={stack}"
        )
    say(f"{good.settings.model.id} answers again at {good.settings.endpoint.base_url}.")
    _tell_by_hand(written, config, stack)


def after_failed_up(stack: str, settings: Settings | None, *, interrupted: bool) -> None:
    """The end of `up` after a failed deployment: prints the way back, or rolls back if configured.

    `settings` are those of the stack file, None if the program has them elsewhere.
    """
    records = LastGoodDeployment.of_state(read_state(stack).get("resources", []))
    if not records and not interrupted:
        say(_NOTHING.format(stack=stack))
    for good in records.values():
        wanted = (settings or good.settings).health.revert_on_failure
        _after_failed_up(good, stack, revert=wanted and not interrupted)


def _after_failed_up(good: LastGoodDeployment, stack: str, *, revert: bool) -> None:
    answer = serving(good)
    if isinstance(answer, Ready):
        say(f"What answered before still does, untouched: {good}.")
        return
    if not revert:
        say(f"To go back to {good}:\n  make rollback STACK={stack}")
        return
    say("vllm-spark:health.revertOnFailure is set.")
    try:
        roll_back(stack, good.server)
    except VllmSparkError as error:
        say(f"error: {error}")
    except click.exceptions.Exit:
        pass
    else:
        say(f"The new deployment failed. What serves now is the last good one, {good}.")
        return
    say(f"The new deployment failed, and so did the way back to {good}: nothing serves.")


def serving(good: LastGoodDeployment) -> Ready | str:
    """The answer of the last good deployment's own container; else why it does not answer."""
    with docker_errors():
        try:
            container: Any = connect().api.inspect_container(good.container_id)
        except NotFound:
            return "its container is gone"
    if not container["State"]["Running"] or container["State"]["Paused"]:
        return "its container does not run"
    environment = dict(entry.partition("=")[::2] for entry in container["Config"]["Env"])
    settings = good.settings
    probe = Probe(settings.endpoint.base_url, settings.served_name, environment.get("VLLM_API_KEY"))
    match probe.serves():
        case Ready() as ready:
            return ready
        case NotYet(why):
            return why
        case refused:
            return refused.cause


def _read(stack: str) -> dict[str, Any]:
    """The stack's config file. Its values may be wrong, but it must be YAML."""
    path = stack_file(stack)
    try:
        return dict(yaml.safe_load(for_pulumi(path)))
    except (OSError, yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        raise SetupError(
            f"{path.name} cannot be read, and holds what the stack's secrets are encrypted with: "
            f"{error}\n  fix: put it back, as from git, then repeat"
        ) from None


def _image_id(name: str) -> str | None:
    try:
        return str(connect().images.get(name).id)
    except ImageNotFound:
        return None


def _last_fetch(state: dict[str, Any], server: str) -> str | None:
    """The identity of the fetch that this server's weights in the state came from."""
    for resource in state["resources"]:
        if resource["urn"].endswith(f"dynamic/spark:Fetch::{server}-weights"):
            return str(resource["inputs"]["what"])
    return None


def _tell_plan(
    good: LastGoodDeployment, changes: list[str], content: dict[str, Any], stack: str
) -> None:
    say(f"Going back to {good}.")
    say(f"Against Pulumi.{stack}.yaml, which stays as it is:")
    say("".join(f"  {line}\n" for line in changes or ["no difference"]).rstrip())
    config = content["config"]
    secrets = sorted(key for key in config if encrypted(config[key]))
    if secrets:
        say(f"  secrets as that file has them now: {', '.join(secrets)}")


def _tell_by_hand(written: dict[str, Any], config: dict[str, Any], stack: str) -> None:
    """Print how to make the config file match what serves."""
    lines = commands(written, config, stack)
    if lines:
        say(
            f"Pulumi.{stack}.yaml still says something else, and `make up STACK={stack}` would "
            "deploy that. Correct it, put it back, or have it say what serves:"
        )
        say("".join(f"  {line}\n" for line in ['eval "$(make -s env)"', *lines]).rstrip())
