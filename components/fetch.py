"""A repository of the hub, in the cache, as a dynamic provider.

It is not a command of the command plugin, because the script would be an input of that command: an
upgrade of vllm-spark that edits the script would fetch the newest `main` under a running server.
Also, an interrupted command leaves its container downloading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, UpdateResult

from components.provider import Provider, fingerprint
from vllm_spark.deployment.records import RECORD, record_of
from vllm_spark.deployment.repositories import Repository
from vllm_spark.deployment.tenants import Identity
from vllm_spark.docker_host.fetch import Fetch as Fetching


class FetchProvider(Provider):
    """Fetches on create and update."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Fetch. An error leaves no resource behind, so the next up goes on."""
        return CreateResult(id_=record_of(props)["repository"]["id"], outs=_fetched(props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Fetch again: the repository, its source or its destination has changed."""
        return UpdateResult(outs=_fetched(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Changed if repository, source or destination changed; not image, token or release."""
        return DiffResult(changes=olds.get("what") != news.get("what"))

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Stop a running download. What is in the cache stays."""
        _of(props).stop()


def _of(props: dict[str, Any]) -> Fetching:
    record = record_of(props)
    return Fetching(
        identity=Identity(**record["identity"]),
        image=record["image"],
        cache=record["cache"],
        repository=Repository(**record["repository"]),
        environment={**record["environment"], **(props.get("secrets") or {})},
    )


def _fetched(props: dict[str, Any]) -> dict[str, Any]:
    return {**props, "commit": _of(props).run()}


class Fetch(pulumi.dynamic.Resource, module="spark", name="Fetch"):
    """Complete when the repository is in the cache; `commit` is the fetched commit.

    `environment` sets mirrors and proxies; `secrets` hold the hub's token and other secret
    variables. `what` identifies repository, revision, place and environment.
    """

    commit: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        identity: pulumi.Input[dict[str, str]],
        image: str,
        cache: str,
        repository: Repository,
        environment: Mapping[str, str],
        secrets: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> None:
        self.fingerprint = fingerprint([cache, vars(repository), dict(environment)])
        super().__init__(
            FetchProvider(),
            resource_name,
            {
                RECORD: {
                    "identity": identity,
                    "image": image,
                    "cache": cache,
                    "repository": vars(repository),
                    "environment": dict(environment),
                },
                "secrets": dict(secrets) or None,
                "what": self.fingerprint,
                "commit": None,
            },
            opts,
        )
