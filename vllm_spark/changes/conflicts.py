"""What two stacks of one project both claim: a container's name, a port, a GPU.

Stacks of one Spark usually take turns, so none of this is refused. But two of them cannot be up at
the same time, and nobody sees that in the file of one stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from vllm_spark.changes.stack_version import StackVersion
from vllm_spark.config.sections import Endpoint
from vllm_spark.deployment.gpus import Devices
from vllm_spark.deployment.serving import container_name
from vllm_spark.problems import Problem

SERVER = "vllm"
"""The name of the one server of `__main__.py`, which containers without a name are named after."""


def new_conflicts(
    stack: StackVersion, before: Mapping[str, StackVersion], after: Mapping[str, StackVersion]
) -> list[Problem]:
    """A problem for each thing that other stacks claim as well, if one of them did not before."""
    if stack.settings is None or stack.settings.state == "stopped":
        return []
    earlier = before.get(stack.name)
    known = dict(_claims(earlier, before.values())) if earlier else {}
    return [
        _problem(what, others)
        for what, others in _claims(stack, after.values())
        if set(others) - set(known.get(what, ()))
    ]


_TOLD = {
    "container.name": (
        "the container has the same name as that of",
        "give each stack a name of its own",
    ),
    "endpoint.port": (
        "the address is also that of",
        "give a stack that shall be up beside others a port of its own",
    ),
    "container.gpus": (
        "the GPU is also that of",
        "keep the others down, or see vllm-spark:gpu.alongside",
    ),
}


def _problem(key: str, others: list[str]) -> Problem:
    what, fix = _TOLD[key]
    listed = ", ".join(others)
    return Problem(
        f"vllm-spark:{key}", f"{what} {listed}; on one host only one of them can be up", fix
    )


def _claims(stack: StackVersion, stacks: Iterable[StackVersion]) -> Iterator[tuple[str, list[str]]]:
    """Each claim of this stack that others have too, with the others' names."""
    for key in _TOLD:
        names = [
            other.name
            for other in stacks
            if other.name != stack.name and _shares(key, stack, other)
        ]
        if names:
            yield key, names


def _shares(key: str, stack: StackVersion, other: StackVersion) -> bool:
    mine, theirs = stack.settings, other.settings
    if mine is None or theirs is None or theirs.state == "stopped":
        return False
    if key == "container.name":
        ours = container_name(mine, SERVER, stack.name)
        return ours == container_name(theirs, SERVER, other.name)
    if key == "endpoint.port":
        return _one_address(mine.endpoint, theirs.endpoint)
    devices = Devices.of_config(mine.container.gpus)
    return devices.shares_a_gpu_with(Devices.of_config(theirs.container.gpus))


def _one_address(one: Endpoint, two: Endpoint) -> bool:
    everywhere = one.bind.is_unspecified or two.bind.is_unspecified
    return one.port == two.port and (everywhere or one.bind == two.bind)
