"""The health gate as a Pulumi resource: `pulumi up` waits for it, so green means answered.

A dynamic provider, in an importable module because the state holds a reference to this module's
name, and only with a name does an edit of the code below make no difference to a stack. The
resource does not exist anywhere: what it records is that one start of one container has answered.

Every preview loads this module, in the program and in the provider's process, to find that nothing
is to do. What waits and asks (gate_wait.py) is imported when there is something to do.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, UpdateResult

from components.interruption import InterruptibleProvider

if TYPE_CHECKING:
    from engine.sections import Health


class HealthGateProvider(InterruptibleProvider):
    """Runs the gate on create and update; `read` notices that an answer is no longer true."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait for the model. PlainError leaves no resource behind, so the next up tries again."""
        return CreateResult(id_=f"gate-{uuid.uuid4().hex[:8]}", outs=_answered(props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Wait again: another container, another start, or an answer that is no longer true."""
        return UpdateResult(outs=_answered(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Changed if a question changed, or if the recorded answer is no longer true.

        A clock is no question: how long to wait does not matter to who has answered.
        """
        asked = [key for key in news if not key.startswith("__") and not key.endswith("Seconds")]
        changed = any(olds.get(key) != news[key] for key in asked)
        return DiffResult(changes=changed or not olds.get("healthy"))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """On refresh: is the start that answered still the one that runs?"""
        from components.container_watch import still_runs

        healthy = still_runs(props["containerId"], props.get("startedAt"))
        return ReadResult(id_, {**props, "healthy": healthy})


def _answered(props: dict[str, Any]) -> dict[str, Any]:
    from components.gate_wait import wait_for_answer

    return wait_for_answer(props)


class HealthGate(pulumi.dynamic.Resource, module="spark", name="HealthGate"):
    """Complete when the container `container_id` serves `model` at `url`."""

    readySeconds: pulumi.Output[float]
    answerSeconds: pulumi.Output[float]
    answerTokens: pulumi.Output[float]
    memoryActual: pulumi.Output[dict[str, float]]

    def __init__(
        self,
        resource_name: str,
        *,
        container_id: pulumi.Input[str],
        container_name: str,
        url: str,
        model: str,
        api_key: pulumi.Input[str] | None,
        health: Health,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            HealthGateProvider(),
            resource_name,
            {
                "containerId": container_id,
                "containerName": container_name,
                "url": url,
                "model": model,
                "apiKey": api_key,
                # As text: numbers reach the provider as floats.
                "timeoutSeconds": str(health.timeout_seconds),
                "stallSeconds": str(health.stall_seconds),
                "healthy": None,
                "startedAt": None,
                "readySeconds": None,
                "answerSeconds": None,
                "answerTokens": None,
                "memoryActual": None,
            },
            opts,
        )
