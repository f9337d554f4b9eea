"""Two facts about a server's container: which state owns it, and which release declared it.

`StateId`: two checkouts may have a stack of the same name, each with its own state. A container
belongs only to the state whose random id it carries.

`Release`: a container's labels are part of it, and Pulumi replaces a container whose labels change.
So the label must keep its release through an upgrade of vllm-spark that leaves the container as it
is; it changes only together with the container.
"""

from __future__ import annotations

import uuid
from typing import Any
from weakref import WeakKeyDictionary

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, UpdateResult

from components.provider import Provider, fingerprint
from vllm_spark import __version__


class StateIdProvider(Provider):
    """Chooses the id once."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Choose."""
        chosen = uuid.uuid4().hex[:12]
        return CreateResult(id_=chosen, outs={**props, "value": chosen})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Never changed."""
        return DiffResult(changes=False)


class StateId(pulumi.dynamic.Resource, module="spark", name="StateId"):
    """`value` is the id."""

    value: pulumi.Output[str]

    def __init__(self, resource_name: str) -> None:
        super().__init__(StateIdProvider(), resource_name, {"value": None})


_OF_PROGRAM: WeakKeyDictionary[Any, StateId] = WeakKeyDictionary()


def state_id() -> pulumi.Output[str]:
    """The id of this program's state: one resource, however many servers the program has."""
    engine = pulumi.runtime.settings.get_monitor()
    if engine not in _OF_PROGRAM:
        _OF_PROGRAM[engine] = StateId("state-id")
    return _OF_PROGRAM[engine].value


class ReleaseProvider(Provider):
    """Records the release each time the container is replaced."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """The first container."""
        return CreateResult(id_="release", outs={**props, "version": __version__})

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """The container is replaced."""
        return UpdateResult(outs={**props, "version": __version__})

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Changed if the container is replaced; an upgrade of vllm-spark alone changes nothing."""
        return DiffResult(changes=olds.get("container") != news["container"])


class Release(pulumi.dynamic.Resource, module="spark", name="Release"):
    """`version` is the release that declared the container, `container` the inputs to compare."""

    version: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        container: list[pulumi.Input[Any]],
        opts: pulumi.ResourceOptions,
    ) -> None:
        told = pulumi.Output.all(*container).apply(fingerprint)
        super().__init__(
            ReleaseProvider(), resource_name, {"container": told, "version": None}, opts
        )
