"""`make status`: does the stack's server serve, now? It asks Docker, then the server itself.

Running is not serving, so the last word is a one-token completion, as in the health gate.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import docker
from docker.errors import DockerException, NotFound

from bootstrap.steps import ROOT
from engine.metrics import read_metrics
from engine.probe import NotYet, Probe, Ready, Refused
from engine.problems import ConfigError
from engine.serving import container_name
from engine.settings import Settings, load_stack

PATIENCE_SECONDS = 30.0


def main() -> int:
    """Exit code 0 if the model answers, 1 if not, 2 if that could not be found out."""
    parser = argparse.ArgumentParser(prog="status", description=__doc__)
    parser.add_argument("--stack", default="local")
    stack = parser.parse_args().stack
    try:
        settings = load_stack(ROOT / f"Pulumi.{stack}.yaml")
        container = docker.from_env().api.inspect_container(container_name(settings, stack))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NotFound:
        print(f"stack {stack} is not up: there is no container {container_name(settings, stack)}")
        print(f"  mend: make up STACK={stack}")
        return 1
    except DockerException as error:
        print(f"error: cannot ask Docker: {error}\n  mend: start it, then repeat", file=sys.stderr)
        return 2
    return _tell(settings, container)


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
