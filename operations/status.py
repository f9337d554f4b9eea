"""`make status`: does the stack's server serve, now? It asks Docker, then the server itself.

Running is not serving, so the last word is a one-token completion, as in the health gate. And what
runs need not be what the config declares: each difference is named. `--drift` tells those alone,
for `make preview`, which needs no Docker and so cannot fail for the lack of it.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timedelta
from typing import Any

import docker
from docker.errors import ImageNotFound, NotFound

from bootstrap.docker_engine import SILENT, silent
from bootstrap.steps import ROOT
from engine.drift import drift_of
from engine.metrics import read_metrics
from engine.probe import NotYet, Probe, Ready, Refused
from engine.problems import ConfigError
from engine.serving import container_name
from engine.settings import Settings, load_stack

PATIENCE_SECONDS = 30.0
STARTED_AT_ONCE = 60
"""Seconds from a container's making to its start; what starts later was started by somebody, by a
reboot, or by Docker."""


def main() -> int:
    """Exit code 0 if the model answers, 1 if not, 2 if that could not be found out."""
    parser = argparse.ArgumentParser(prog="status", description=__doc__)
    parser.add_argument("--stack", default="local")
    parser.add_argument("--drift", action="store_true", help="only what differs, and fail never")
    given = parser.parse_args()
    try:
        settings = load_stack(ROOT / f"Pulumi.{given.stack}.yaml")
        name = container_name(settings, given.stack)
        client: Any = docker.from_env()
        container = client.api.inspect_container(name)
        drift = drift_lines(client, settings, container)
    except NotFound:
        print(f"stack {given.stack} is not up: there is no container {name}")
        print(f"  mend: make up STACK={given.stack}")
        return 0 if given.drift else 1
    except (ConfigError, *SILENT) as error:
        said = str(error) if isinstance(error, ConfigError) else silent(error)
        if given.drift:
            print(f"drift      unknown: {said}")
            return 0
        print(f"error: {said}", file=sys.stderr)
        return 2
    code = 0 if given.drift else _tell(settings, container)
    print("\n".join(f"drift      {line}" for line in drift or ["none: what runs is as declared"]))
    return code


def drift_lines(client: Any, settings: Settings, container: dict[str, Any]) -> list[str]:
    """Where a container differs from its stack's config, a line each. Raises `SILENT`."""
    made_from = client.api.inspect_image(container["Image"])
    try:
        image_id = client.api.inspect_image(settings.image.name)["Id"]
    except ImageNotFound:
        image_id = "(not on this host)"
    lines = drift_of(settings, image_id, container, made_from)
    made, started = container["Created"], container["State"]["StartedAt"]
    if _moment(started) - _moment(made) > timedelta(seconds=STARTED_AT_ONCE):
        lines.append(f"start: made {made[:19]}Z, started again {started[:19]}Z")
    return lines


def _moment(text: str) -> datetime:
    """Docker's timestamps, to the second."""
    return datetime.fromisoformat(text[:19])


def _tell(settings: Settings, container: dict[str, Any]) -> int:
    state = container["State"]
    name = container["Name"].removeprefix("/")
    print(
        f"container  {name}: {state['Status']} since {state['StartedAt'][:19]}Z, "
        f"restarts {container['RestartCount']}, image {container['Config']['Image']}"
    )
    if not state["Running"]:
        print(f"serving    no: exit code {state['ExitCode']} {state['Error']}".rstrip())
        return 1
    environment = dict(entry.partition("=")[::2] for entry in container["Config"]["Env"])
    url = settings.endpoint.base_url
    probe = Probe(
        url, settings.served_name, environment.get("VLLM_API_KEY"), patience=PATIENCE_SECONDS
    )
    match probe.listening() or probe.answer():
        case Ready(seconds):
            print(f"serving    yes: {settings.served_name} answered in {seconds:.2f} s at {url}")
        case NotYet(why):
            print(f"serving    not yet: {why}")
            return 1
        case Refused(cause, mend, evidence):
            print(f"serving    no: {cause}\n  mend: {mend}")
            print("".join(f"  | {line}\n" for line in evidence), end="")
            return 1
    print(f"load       {_load(url)}")
    return 0


def _load(url: str) -> str:
    found = read_metrics(url)
    if found is None:
        return "unknown: /metrics does not answer"
    if found.running is None or found.waiting is None or found.kv_used is None:
        return "unknown: /metrics has not the names that vLLM gives"
    return (
        f"{found.running:.0f} running, {found.waiting:.0f} waiting, "
        f"KV cache {found.kv_used:.0%} used"
    )


if __name__ == "__main__":
    sys.exit(main())
