"""How long a stack's server will not answer, estimated from what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from vllm_spark.changes.report import Downtime, Step
from vllm_spark.changes.stack_version import StackVersion
from vllm_spark.changes.trial_provider import CONTAINER
from vllm_spark.deployment.last_good import LastGoodDeployment
from vllm_spark.deployment.serving import stop_seconds

_WORDS = {"create": "created", "update": "updated", "delete": "deleted", "same": "unchanged"}

Records = Mapping[str, Iterable[LastGoodDeployment]]
"""The last good deployments in the state of each stack, as far as states can be read."""


def downtime(
    steps: Iterable[Step],
    before: StackVersion | None,
    after: StackVersion,
    records: Callable[[], Records],
) -> Downtime:
    """What the engine's steps do to the containers, and for how long they do not answer.

    `records` reads them, which takes a second for each stack.
    """
    operations = {step.operation for step in steps if step.type == CONTAINER}
    replaced = {"replace", "create-replacement", "delete-replaced"}
    if not operations & replaced or before is None:
        done = [word for operation, word in _WORDS.items() if operation in operations]
        return Downtime(container=done[0] if done else "unchanged")
    if before.settings is None or after.settings is None:
        return Downtime(container="replaced", source="the config of its servers is in the program")
    if after.settings.state == "stopped":
        return Downtime(container="replaced", source="state: stopped; it is not started again")
    stop = stop_seconds(before.settings)
    start = _last_start(after.settings.model.id, after.name, records())
    if start is None:
        source = (
            f"no start of {after.settings.model.id} is recorded here; the stop takes up to {stop} s"
        )
        return Downtime(container="replaced", source=source)
    seconds, stack = start
    return Downtime(
        container="replaced",
        seconds=stop + seconds,
        source=f"stop timeout {stop} s, and {seconds:.0f} s for the last recorded start of "
        f"{after.settings.model.id} (state of stack {stack})",
    )


def _last_start(model: str, stack: str, records: Records) -> tuple[float, str] | None:
    """The seconds of a model's last start, and the stack that recorded it: its own first."""
    for name in sorted(records, key=lambda name: name != stack):
        for good in records[name]:
            if good.declared["model"]["id"] == model and good.ready_seconds is not None:
                return good.ready_seconds, name
    return None
