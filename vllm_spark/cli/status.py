"""`vllm-spark status`: does the stack's server serve now? It asks Docker, then the server itself.

Running is not serving, so the proof is a one-token completion, as in the health gate. The running
container may differ from its declaration, so each difference is shown. `preview` shows only these;
it does not need Docker, and does not fail without it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import click
from docker.errors import NotFound

from vllm_spark.cli.options import json_option, server_option, stack_option
from vllm_spark.cli.prepare import require_pulumi
from vllm_spark.cli.servers import Server, servers_of
from vllm_spark.docker_host.connection import connect, docker_errors
from vllm_spark.docker_host.drift import drift_lines
from vllm_spark.docker_host.last_words import why_it_ended
from vllm_spark.errors import VllmSparkError
from vllm_spark.gate.metrics import read_metrics
from vllm_spark.gate.probe import NotYet, Probe, Ready, Refused

PATIENCE_SECONDS = 30.0


@dataclass
class Status:
    """A server's status. `serving` is "yes", "not yet" or "no", `detail` completes the sentence.

    `container` is None if there is none; `evidence` is the server's answer.
    """

    server: str
    container: str | None
    serving: str
    detail: str
    fix: str = ""
    evidence: list[str] = field(default_factory=list)
    last_end: str = ""
    """Why the last start ended, if the server does not answer."""
    load: str = ""
    drift: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"container  {self.container or 'none'}",
            f"serving    {self.serving}: {self.detail}",
        ]
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        lines += [f"  | {line}" for line in self.evidence]
        if self.last_end:
            lines.append(f"last end   {self.last_end}")
        if self.load:
            lines.append(f"load       {self.load}")
        if self.container is not None:
            lines += _drift_text(self.drift)
        return "\n".join(lines)


@click.command()
@stack_option
@server_option
@click.option("--drift", "by_drift", is_flag=True, help="Let the exit code tell of drift only.")
@json_option
def status(stack: str, server: str | None, by_drift: bool, as_json: bool) -> None:
    """Say whether the stack serves, now, and as declared.

    Exit code 0 if every server answers, 1 if one does not, 2 if that could not be found out. With
    --drift: 0 if every container is as declared, 1 if one is not, 2 if that could not be found out
    or if nothing is deployed.
    """
    require_pulumi()
    servers = servers_of(stack, server)
    found = [status_of(one, stack) for one in servers]
    if as_json:
        click.echo(json.dumps({"stack": stack, "servers": [vars(one) for one in found]}))
    elif not found:
        click.echo(f"stack {stack} is not up\n  fix: make up STACK={stack}")
    for one in () if as_json else found:
        click.echo(f"{f'server     {one.server}' + chr(10) if len(found) > 1 else ''}{one}")
    if by_drift and not found:
        raise click.exceptions.Exit(2)
    if not found or any(one.drift if by_drift else one.serving != "yes" for one in found):
        raise click.exceptions.Exit(1)


def show_drift(stack: str) -> None:
    """Print where containers differ from their declarations, or that this is not known."""
    try:
        with docker_errors():
            client: Any = connect()
            for server in servers_of(stack):
                try:
                    container = client.api.inspect_container(server.container)
                except NotFound:
                    click.echo(f"drift      container {server.container} is gone")
                    continue
                lines = drift_lines(client, server.settings, server.variables, container)
                click.echo("\n".join(_drift_text(lines)))
    except VllmSparkError as error:
        click.echo(f"drift      unknown: {error}")


def status_of(server: Server, stack: str) -> Status:
    """Ask Docker, then the server. DockerError if Docker does not answer."""
    client: Any = connect()
    try:
        container = client.api.inspect_container(server.container)
    except NotFound:
        gone = f"there is no container {server.container}"
        fix = f"make up STACK={stack}"
        return Status(server.name, None, "no", gone, fix, drift=["container: gone, declared"])
    found = _asked(server, container)
    if found.serving != "yes" and (end := why_it_ended(client, container)) is not None:
        found.last_end = end.cause
        found.fix = found.fix or end.fix
        found.evidence = found.evidence or list(end.evidence)
    found.drift = drift_lines(client, server.settings, server.variables, container)
    return found


def _asked(server: Server, container: dict[str, Any]) -> Status:
    state, settings = container["State"], server.settings
    never = state["StartedAt"].startswith("0001-")
    since = ", never started" if never else f" since {state['StartedAt'][:19]}Z"
    about = (
        f"{server.container}: {state['Status']}{since}, "
        f"restarts {container['RestartCount']}, image {container['Config']['Image']}"
    )
    if state["Paused"]:
        fix = f"docker unpause {server.container}"
        return Status(server.name, about, "no", "it is paused, so its process is suspended", fix)
    if not state["Running"]:
        ended = f"exit code {state['ExitCode']} {state['Error']}".rstrip()
        return Status(server.name, about, "no", ended)
    environment = dict(entry.partition("=")[::2] for entry in container["Config"]["Env"])
    url = settings.endpoint.base_url
    key = environment.get("VLLM_API_KEY")
    probe = Probe(url, settings.served_name, key, patience=PATIENCE_SECONDS)
    match probe.serves():
        case Ready(seconds):
            answered = f"{settings.served_name} answered in {seconds:.2f} s at {url}"
            return Status(server.name, about, "yes", answered, load=_load(url))
        case NotYet(why):
            return Status(server.name, about, "not yet", why)
        case Refused(cause, fix, evidence):
            return Status(server.name, about, "no", cause, fix, list(evidence))


def _drift_text(drift: list[str]) -> list[str]:
    return [f"drift      {line}" for line in drift or ["none: what runs is as declared"]]


def _load(url: str) -> str:
    found = read_metrics(url)
    if found is None:
        return "unknown: /metrics does not answer"
    if found.running is None or found.waiting is None or found.kv_used is None:
        return "unknown: /metrics does not have the names that vLLM gives"
    return (
        f"{found.running:.0f} running, {found.waiting:.0f} waiting, "
        f"KV cache {found.kv_used:.0%} used"
    )
