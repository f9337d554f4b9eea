"""The last good deployment, kept in the stack's state until a better one has answered.

It is separate from the health gate's resource. Pulumi keeps a resource's outputs when a later
update of it, or of its dependencies, fails; but a stopped server has no gate, so the gate's outputs
would be lost. This resource stays and costs nothing, because it makes no requests.
`vllm-spark rollback` reads it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, UpdateResult

from components.health_gate import HealthGate
from components.model_weights import ModelWeights
from components.provider import Provider, fingerprint_of
from components.vllm_image import VllmImage
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.records import RECORD, record_of


class LastGoodProvider(Provider):
    """Records its inputs. They hold a deployment only when the gate has passed."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Begin the record; it is empty for a server that has never run."""
        return CreateResult(id_="last-good", outs=_recorded({}, props))

    def update(self, _id: str, olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Another deployment has answered."""
        return UpdateResult(outs=_recorded(olds, props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Changed if another deployment has answered; never by a server that is stopped."""
        now = news.get("deployment")
        return DiffResult(changes=bool(now) and olds.get("deployment") != now)


def _recorded(olds: dict[str, Any], props: dict[str, Any]) -> dict[str, Any]:
    """The outputs. The time is that of the container's first answer; later changes keep it."""
    container = record_of(props).get("containerId")
    known = container is not None and record_of(olds).get("containerId") == container
    now = datetime.now(UTC).isoformat(timespec="seconds") if container else None
    return {**props, "answeredAt": olds["answeredAt"] if known else now}


class LastGood(pulumi.dynamic.Resource, module="spark", name="LastGood"):
    """What this deployment of one server is made of, recorded once `gate` has passed.

    Without a gate, as for a server that is stopped, the record stays what it was.
    """

    def __init__(
        self,
        resource_name: str,
        *,
        server: str,
        settings: Settings,
        gate: HealthGate | None,
        container_id: pulumi.Input[str],
        image: VllmImage,
        weights: ModelWeights | None,
        opts: pulumi.ResourceOptions,
    ) -> None:
        record: dict[str, Any] | None = None
        if gate is not None and weights is not None:
            record = {
                "server": server,
                "settings": settings.declared(),
                "imageId": image.pulled.image_id,
                "imageDigest": image.pulled.repo_digest,
                "commit": weights.commit,
                "fetched": weights.fetched,
                "containerId": container_id,
                "readySeconds": gate.readySeconds,
            }
        super().__init__(
            LastGoodProvider(),
            resource_name,
            {
                RECORD: record,
                "deployment": fingerprint_of(record) if record is not None else None,
                "answeredAt": None,
            },
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(depends_on=[gate] if gate is not None else [])
            ),
        )
