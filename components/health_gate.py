"""The health gate as a Pulumi resource: `pulumi up` waits for it, so green means answered.

The dynamic provider is in an importable module, so that the state refers to it by name. Without a
name the state would hold the code itself, and every edit below would change the stack. The resource
exists nowhere else: it records that one start of one container has answered.
"""

from __future__ import annotations

import uuid
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, UpdateResult

from components.provider import Provider, fingerprint_of
from vllm_spark.config.sections import Health
from vllm_spark.deployment.records import RECORD, record_of
from vllm_spark.docker_host.container_watch import still_runs
from vllm_spark.docker_host.wait_for_answer import wait_for_answer
from vllm_spark.gate.probe import Probe


class HealthGateProvider(Provider):
    """Runs the gate on create and update; `read` notices that an answer is no longer true."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait for the model. An error leaves no resource behind, so the next up tries again."""
        return CreateResult(id_=f"gate-{uuid.uuid4().hex[:8]}", outs=_answered(props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Wait again: another container, another start, or an answer that is no longer true."""
        return UpdateResult(outs=_answered(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Changed if a question changed, or if the recorded answer is no longer true.

        Changed time limits do not count: they make no difference to a server that has answered.
        """
        changed = any(olds.get(key) != news.get(key) for key in ("question", "apiKey"))
        return DiffResult(changes=changed or not olds.get("healthy"))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """On refresh: is the start that answered still the one that runs?"""
        healthy = still_runs(record_of(props)["containerId"], props.get("startedAt"))
        return ReadResult(id_, {**props, "healthy": healthy})


def _answered(props: dict[str, Any]) -> dict[str, Any]:
    """The resource's outputs once the model has answered."""
    record = record_of(props)
    answered = wait_for_answer(
        record["containerName"],
        record["containerId"],
        Probe(record["url"], record["model"], props.get("apiKey")),
        timeout_seconds=float(record["timeoutSeconds"]),
        stall_seconds=float(record["stallSeconds"]),
    )
    return {
        **props,
        "healthy": True,
        "startedAt": answered.start,
        "readySeconds": answered.ready_seconds,
        "answerSeconds": answered.answer_seconds,
        "answerTokens": answered.answer_tokens,
        "memoryActual": answered.memory,
    }


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
        question = {
            "containerId": container_id,
            "containerName": container_name,
            "url": url,
            "model": model,
        }
        super().__init__(
            HealthGateProvider(),
            resource_name,
            {
                RECORD: {
                    **question,
                    # As text: numbers reach the provider as floats.
                    "timeoutSeconds": str(health.timeout_seconds),
                    "stallSeconds": str(health.stall_seconds),
                },
                "question": fingerprint_of(question),
                "apiKey": api_key,
                "healthy": None,
                "startedAt": None,
                "readySeconds": None,
                "answerSeconds": None,
                "answerTokens": None,
                "memoryActual": None,
            },
            opts,
        )
