"""What can be found wrong before a container is touched is found here, while the old one serves.

A dynamic provider like the health gate, and like it a record of something that was true once: that
the host could take this container, and the image its flags. It runs when the container's
declaration changes, and when a refresh has found the container not running, since it is then about
to be started. What it checks is in preflight_checks.py, imported only when it runs.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, UpdateResult

from components.interruption import InterruptibleProvider

if TYPE_CHECKING:
    from engine.settings import Settings


class PreflightProvider(InterruptibleProvider):
    """Checks on create and update; `read` notices that the container does not run any more."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Check. PlainError leaves no resource behind, so the next up checks again."""
        return CreateResult(id_=f"preflight-{uuid.uuid4().hex[:8]}", outs=_checked(props, {}))

    def update(self, _id: str, olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Check again, before the container is replaced or started."""
        return UpdateResult(outs=_checked(props, olds))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Changed if the container will be, or if it does not run."""
        changed = any(olds.get(key) != news[key] for key in news if not key.startswith("__"))
        return DiffResult(changes=changed or not olds.get("passed"))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """On refresh: is the container that passed still there and running, and as declared?"""
        from components.preflight_checks import as_declared

        return ReadResult(id_, {**props, "passed": as_declared(props)})


def _checked(props: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    from components.preflight_checks import check

    return check(props, before)


class Preflight(pulumi.dynamic.Resource, module="spark", name="Preflight"):
    """Complete when the host can take the container that `settings` declare."""

    def __init__(
        self,
        resource_name: str,
        *,
        container_name: str,
        settings: Settings,
        image_id: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            PreflightProvider(),
            resource_name,
            {
                "containerName": container_name,
                "stack": pulumi.get_stack(),
                "imageId": image_id,
                # Of secrets it holds only whether they are there.
                "declared": settings.model_dump_json(by_alias=True, exclude={"health", "state"}),
                "passed": None,
                "flagsAccepted": None,
            },
            opts,
        )
