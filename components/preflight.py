"""Finds what is wrong before a container is touched, while the old server still answers.

A dynamic provider, like the health gate. It records that the host had room for this container and
that the image accepted its flags. It runs when the server's declaration changes, and when a refresh
finds the container not running, because the container is then about to be started. The checks
themselves are in vllm_spark/docker_host/preflight.py.

It also keeps the declaration, so that `status`, drift and rollback know each server without running
the program that declares it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, UpdateResult

from components.provider import Provider, fingerprint_of
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.records import RECORD, record_of
from vllm_spark.deployment.tenants import Identity
from vllm_spark.docker_host.drift import as_declared
from vllm_spark.docker_host.preflight import Preflight as Checks


class PreflightProvider(Provider):
    """Checks on create and update; `read` notices that the container does not run any more."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Check. An error leaves no resource behind, so the next up checks again."""
        return CreateResult(id_=f"preflight-{uuid.uuid4().hex[:8]}", outs=_checked(props, {}))

    def update(self, _id: str, olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Check again, before the container is replaced or started."""
        return UpdateResult(outs=_checked(props, olds))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Changed if the container will change, or if it does not run.

        The gate's time limits do not count.
        """
        changed = olds.get("declaration") != news.get("declaration")
        return DiffResult(changes=changed or not olds.get("passed"))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """On refresh: is the container that passed still there, running, and as declared?"""
        record = record_of(props)
        declared = Settings.from_declared(record["settings"])
        passed = as_declared(record["containerName"], declared, record["variables"])
        return ReadResult(id_, {**props, "passed": passed})


def _checked(props: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    record = record_of(props)
    settings = Settings.from_declared(record["settings"])
    if settings.state == "stopped":
        known = {key: before.get(key) for key in ("flagsAccepted", "vllmVersion")}
        return {**props, "passed": True, **known}
    checks = Checks(
        name=record["containerName"],
        identity=Identity(**record["identity"]),
        settings=settings,
        image_id=record["imageId"],
        accepted=before.get("flagsAccepted") or "",
    )
    passed = checks.run()
    version = passed.version or settings.image.version
    return {
        **props,
        "passed": True,
        "flagsAccepted": passed.accepted,
        "vllmVersion": None if version is None else str(version),
    }


class Preflight(pulumi.dynamic.Resource, module="spark", name="Preflight"):
    """Complete when the host can take the container that `settings` declare.

    `vllmVersion` is the release of vLLM in the image, None if neither it nor the config tells. A
    server with `state: stopped` is not checked. `settings` hold only whether each secret is set;
    `variables` names the variables whose values are not in the settings.
    """

    vllmVersion: pulumi.Output[str | None]

    def __init__(
        self,
        resource_name: str,
        *,
        server: str,
        container_name: str,
        identity: pulumi.Input[dict[str, str]],
        settings: Settings,
        variables: Collection[str],
        image_id: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        declared = settings.declared()
        record = {
            "server": server,
            "containerName": container_name,
            "identity": identity,
            "imageId": image_id,
            "settings": declared,
            "variables": sorted(variables),
        }
        but_for_the_gate = {key: declared[key] for key in declared if key != "health"}
        super().__init__(
            PreflightProvider(),
            resource_name,
            {
                RECORD: record,
                "declaration": fingerprint_of({**record, "settings": but_for_the_gate}),
                "passed": None,
                "flagsAccepted": None,
                "vllmVersion": None,
            },
            opts,
        )
