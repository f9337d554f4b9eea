"""The health gate as a Pulumi resource: `pulumi up` waits for it, so green means answered.

A dynamic provider, in an importable module because the state holds a reference to this module's
name, and only with a name does an edit of the code below make no difference to a stack. The
resource does not exist anywhere: what it records is that one start of one container has answered.
"""

from __future__ import annotations

import uuid
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, ResourceProvider, UpdateResult

from components import interruption
from components.container_watch import ContainerWatch
from components.plain_errors import PlainError
from engine.gate import Failed, Gate, Interrupted
from engine.memory_actual import actual_of
from engine.metrics import read_metrics
from engine.probe import Probe
from engine.sections import Health
from engine.watch import ContainerState


class HealthGateProvider(ResourceProvider):
    """Runs the gate on create and update; `read` notices that an answer is no longer true."""

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait for the model. PlainError leaves no resource behind, so the next up tries again."""
        return CreateResult(id_=f"gate-{uuid.uuid4().hex[:8]}", outs=_pass(props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Wait again: another container, another start, or an answer that is no longer true."""
        return UpdateResult(outs=_pass(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Changed if a question changed, or if the recorded answer is no longer true."""
        changed = any(olds.get(key) != news[key] for key in news if not key.startswith("__"))
        return DiffResult(changes=changed or not olds.get("healthy"))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """On refresh: is the start that answered still the one that runs?"""
        state = ContainerWatch(props["containerId"]).state()
        healthy = (
            isinstance(state, ContainerState)
            and state.running
            and state.start == props.get("startedAt")
        )
        return ReadResult(id_, {**props, "healthy": healthy})


def _pass(props: dict[str, Any]) -> dict[str, Any]:
    """The resource's outputs once the model has answered; PlainError if it did not."""
    name, url = str(props["containerName"]), str(props["url"])
    watch = ContainerWatch(str(props["containerId"]))
    watch.follow()
    gate = Gate(
        watch,
        Probe(url, str(props["model"]), props.get("apiKey")),
        lambda line: print(f"{name}: {line}", flush=True),
        timeout_seconds=float(props["timeoutSeconds"]),
        stall_seconds=float(props["stallSeconds"]),
        interrupted=interruption.interrupted,
    )
    interruption.listen()
    verdict = gate.run()
    if isinstance(verdict, Interrupted):
        raise PlainError(
            f"the wait for {name} was interrupted ({verdict.doing})\n"
            "  The container runs on; repeat the command to wait for it again."
        )
    if isinstance(verdict, Failed):
        # At once: stopping the container may take a while, and the error comes when all is over.
        print(f"{name} does not serve: {verdict.cause}; stopping it", flush=True)
        raise PlainError(_explain(name, verdict, watch.stop()))
    print(f"{name}: {props['model']} answered after {verdict.seconds:.1f} s", flush=True)
    return {
        **props,
        "healthy": True,
        "startedAt": verdict.start,
        "readySeconds": round(verdict.seconds, 1),
        "answerSeconds": round(verdict.answer.seconds, 3),
        "answerTokens": verdict.answer.tokens,
        "memoryActual": actual_of(verdict.facts, read_metrics(url)),
    }


def _explain(name: str, failed: Failed, container: str) -> str:
    """What a person reads when the gate fails; `container` says what became of it."""
    evidence = "".join(f"\n    | {line}" for line in failed.evidence)
    return (
        f"{name} does not serve\n"
        f"  cause: {failed.cause}\n"
        f"  mend:  {failed.mend}{evidence}\n"
        f"  The container {container}; `docker logs {name}` shows all of its log."
    )


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
