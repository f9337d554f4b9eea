"""What the health gate does when it does something: wait for one start of one container.

Beside health_gate.py, which declares the resource and is loaded by every preview.
"""

from __future__ import annotations

from typing import Any

from components import interruption
from components.container_watch import ContainerWatch
from components.plain_errors import PlainError
from engine.gate import Failed, Gate, Interrupted
from engine.memory_actual import actual_of
from engine.metrics import read_metrics
from engine.probe import Probe


def wait_for_answer(props: dict[str, Any]) -> dict[str, Any]:
    """The resource's outputs once the model has answered; PlainError if it did not."""
    name, url = str(props["containerName"]), str(props["url"])
    watch = ContainerWatch(str(props["containerId"]))
    if watch.start_again():
        print(f"{name}: was stopped; starting it again", flush=True)
    watch.follow()
    gate = Gate(
        watch,
        Probe(url, str(props["model"]), props.get("apiKey")),
        lambda line: print(f"{name}: {line}", flush=True),
        timeout_seconds=float(props["timeoutSeconds"]),
        stall_seconds=float(props["stallSeconds"]),
        interrupted=interruption.interrupted,
    )
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
