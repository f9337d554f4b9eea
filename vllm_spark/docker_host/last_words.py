"""Finds out why a container's last start ended, from its log and Docker's state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from vllm_spark.diagnosis.verdict import Diagnosis, diagnose
from vllm_spark.images import release_in

LINES = 5000
"""The number of log lines to read; a start of vLLM prints some hundreds."""


def why_it_ended(client: Any, container: dict[str, Any]) -> Diagnosis | None:
    """The verdict on the last start that has ended; None if no start has ended.

    `container` is its inspection. If Docker has started it again, this is the start before.
    Raises docker-py's exceptions.
    """
    state = container["State"]
    if state["Running"] and not container["RestartCount"]:
        return None
    # Docker's own words, if it could not start the container.
    if (refused := diagnose([state["Error"]])).rule:
        return refused
    limits: dict[str, Any] = {}
    if state["Running"]:
        limits["until"] = datetime.fromisoformat(state["StartedAt"]).timestamp()
    log: bytes = client.api.logs(container["Id"], tail=LINES, **limits)
    lines = log.decode(errors="replace").splitlines()
    version = release_in(container["Config"]["Image"])
    if state["Running"]:
        return diagnose(lines, version=version)
    killed = state["OOMKilled"]
    return diagnose(lines, exit_code=state["ExitCode"], oom_killed=killed, version=version)
