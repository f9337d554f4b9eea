"""Runs the health gate for one start of one container, and stops the server if it fails."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_spark.deployment.memory_actual import actual_of
from vllm_spark.docker_host.container_watch import ContainerWatch
from vllm_spark.docker_host.interruption import interrupted, until_interrupted
from vllm_spark.errors import GateError, Interrupted
from vllm_spark.gate.gate import Abandoned, Failed, Gate
from vllm_spark.gate.metrics import read_metrics
from vllm_spark.gate.probe import Probe


@dataclass(frozen=True)
class Answered:
    """One start of a container that has answered.

    `start` identifies the start. The seconds are those of the wait and of the answer itself.
    `memory` is the server's measured memory, by the keys of `memoryPlan`.
    """

    start: str
    ready_seconds: float
    answer_seconds: float
    answer_tokens: int
    memory: dict[str, float]


def wait_for_answer(
    name: str,
    container_id: str,
    probe: Probe,
    *,
    timeout_seconds: float,
    stall_seconds: float,
) -> Answered:
    """Return when the model has answered. Prints progress line by line.

    GateError says why it does not serve and whether the container was stopped. Interrupted after
    Ctrl-C; the container then stays as it is.
    """
    watch = ContainerWatch(container_id)
    if watch.start_again():
        print(f"{name}: was stopped; starting it again", flush=True)
    watch.follow()
    gate = Gate(
        watch,
        probe,
        lambda line: print(f"{name}: {line}", flush=True),
        timeout_seconds=timeout_seconds,
        stall_seconds=stall_seconds,
        version=watch.version(),
        interrupted=interrupted,
    )
    verdict = gate.run()
    if isinstance(verdict, Abandoned):
        raise _interrupted(name, verdict.doing)
    if isinstance(verdict, Failed):
        # Print it now: stopping the container may take long, and the error comes after that.
        print(f"{name} does not serve: {verdict.cause}; stopping it", flush=True)
        raise GateError(_explain(name, verdict, watch.stop()))
    print(f"{name}: {probe.model} answered after {verdict.seconds:.1f} s", flush=True)
    try:
        metrics = until_interrupted(lambda: read_metrics(probe.url))
    except Interrupted:
        raise _interrupted(name, "it has answered, and its metrics were read") from None
    return Answered(
        start=verdict.start,
        ready_seconds=round(verdict.seconds, 1),
        answer_seconds=round(verdict.answer.seconds, 3),
        answer_tokens=verdict.answer.tokens,
        memory=actual_of(verdict.facts, metrics),
    )


def _interrupted(name: str, doing: str) -> Interrupted:
    return Interrupted(
        f"the wait for {name} was interrupted ({doing})\n"
        f"  The container goes on: `docker logs -f {name}` follows it, `docker stop {name}` "
        "ends it. Repeat the command to wait for it again."
    )


def _explain(name: str, failed: Failed, container: str) -> str:
    """The message of a failed gate; `container` is the result of `stop`."""
    evidence = "".join(f"\n    | {line}" for line in failed.evidence)
    return (
        f"{name} does not serve\n"
        f"  cause: {failed.cause}\n"
        f"  fix:   {failed.fix}{evidence}\n"
        f"  The container {container}; `docker logs {name}` shows all of its log."
    )
