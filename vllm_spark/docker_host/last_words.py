"""Why did the last start of a container end? From its log and from what Docker knows of its end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from vllm_spark.diagnosis.verdict import Diagnosis, diagnose

LINES = 5000
"""What is read of a log; a start of vLLM prints some hundreds."""


def why_it_ended(client: Any, container: dict[str, Any]) -> Diagnosis | None:
    """The verdict on the last start that has ended; None if no start has.

    `container` is its inspection. Of a container that Docker has started again, the start before.
    Raises what docker-py raises.
    """
    state = container["State"]
    if state["Running"] and not container["RestartCount"]:
        return None
    limits: dict[str, Any] = {}
    if state["Running"]:
        limits["until"] = datetime.fromisoformat(state["StartedAt"]).timestamp()
    log: bytes = client.api.logs(container["Id"], tail=LINES, **limits)
    lines = log.decode(errors="replace").splitlines()
    if state["Running"]:
        return diagnose(lines)
    return diagnose(lines, exit_code=state["ExitCode"], oom_killed=state["OOMKilled"])
