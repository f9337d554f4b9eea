"""What a person reads at the end of a good `pulumi up`: where it is, how to ask, how to undo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pulumi

from components.health_gate import HealthGate

if TYPE_CHECKING:
    from components.vllm_server import VllmServer


def announce(server: VllmServer, gate: HealthGate) -> None:
    """Log it when the gate has passed; nothing in a preview.

    It goes to the log: in the outputs, each line would be one more thing that a diff shows.
    """
    if not pulumi.runtime.is_dry_run():
        pulumi.Output.all(gate.answerSeconds, gate.answerTokens, gate.memoryActual).apply(
            lambda told: pulumi.log.info(_text(server, *told))
        )


def _text(
    server: VllmServer, seconds: float, tokens: float, actual: Mapping[str, float] | None
) -> str:
    stack = pulumi.get_stack()
    lines = [
        f"{server.container_name} serves {server.model} at {server.url}",
        f"  first answer  {_speed(seconds, tokens)}",
        f"  ask it        {server.curl}",
        f"  undo          put Pulumi.{stack}.yaml back, then make up STACK={stack}",
        f"  stop it       make down STACK={stack}, or pulumi destroy --stack {stack}",
    ]
    if actual and "fullLengthSequences" in actual:
        fits = (
            f"{actual['fullLengthSequences']:.1f} requests of {actual['maxModelLen']:,.0f} tokens "
            f"at a time, {actual['kvTokens']:,.0f} tokens in all"
        )
        lines.insert(2, f"  fits          {fits}")
    return "\n".join(lines)


def _speed(seconds: float, tokens: float) -> str:
    """The gate's request. It is the first after a start, so its time includes compiling kernels."""
    if not tokens:
        return f"an embedding in {seconds:.2f} s"
    rate = f"{tokens / seconds:.1f} tokens/s"
    return f"{tokens:.0f} token in {seconds:.2f} s, {rate}; the first request is the slowest"
