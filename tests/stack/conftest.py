"""Runs a program under Pulumi's mocks and records every resource that it declares."""

from __future__ import annotations

import asyncio
import json
import runpy
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

GIVEN: dict[str, dict[str, Any]] = {
    "docker:index/remoteImage:RemoteImage": {
        "imageId": "sha256:0123456789abcdef",
        "repoDigest": "repository@sha256:fedcba",
    },
    "pulumi-python:dynamic/spark:Fetch": {"commit": "0123abc"},
    "pulumi-python:dynamic/spark:HealthGate": {
        "readySeconds": 70.1,
        "answerSeconds": 0.05,
        "answerTokens": 1,
        "memoryActual": {"kvTokens": 46592, "maxModelLen": 2048, "fullLengthSequences": 22.75},
    },
}
"""What resources tell once they are there: a commit that was fetched, a gate that has passed."""


class Deployment(pulumi.runtime.Mocks):
    """What the program asked the engine for, the stack's outputs, and what SIGINT does to it."""

    def __init__(self) -> None:
        self.resources: list[pulumi.runtime.MockResourceArgs] = []
        self.outputs: dict[str, Any] = {}
        self.on_interrupt: object = None

    def new_resource(
        self, args: pulumi.runtime.MockResourceArgs
    ) -> tuple[str | None, dict[Any, Any]]:
        self.resources.append(args)
        return f"{args.name}-id", {**args.inputs, **GIVEN.get(args.typ, {})}

    def call(
        self, args: pulumi.runtime.MockCallArgs
    ) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program called {args.token}")

    def inputs(self, type_: str, name: str | None = None) -> dict[str, Any]:
        """The inputs of the one resource of this type, and of this name if it is given."""
        found = [one for one in self.resources if one.typ == type_ and name in (None, one.name)]
        assert len(found) == 1, f"{len(found)} of {type_} in {[one.typ for one in self.resources]}"
        return dict(found[0].inputs)

    def types(self) -> set[str]:
        return {one.typ for one in self.resources}


Deploy = Callable[..., Deployment]


async def _registered() -> None:
    pass


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """`deploy("spark", engine={...})`: the stack of that file, with whole keys replaced.

    `program` is the program to run; without it, the repository's.
    """

    for hook in ("register_error_hook", "register_resource_hook"):
        # Hooks are called back by the engine, and mocks have none.
        monkeypatch.setattr(
            f"pulumi.resource_hooks.{hook}", lambda _hook: asyncio.ensure_future(_registered())
        )
    monkeypatch.setattr("components.vllm_server.connect", lambda: None)

    def run(
        stack: str,
        *,
        secrets: dict[str, str] | None = None,
        program: Path = ROOT / "__main__.py",
        **keys: Any,
    ) -> Deployment:
        config = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
        config |= {f"vllm-spark:{key}": value for key, value in keys.items()}
        config |= {f"vllm-spark:{key}": value for key, value in (secrets or {}).items()}
        texts = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in config.items()
            if value is not None
        }
        deployment = Deployment()
        pulumi.runtime.set_mocks(deployment, project="vllm-spark", stack=stack, preview=False)
        pulumi.runtime.set_all_config(texts, [f"vllm-spark:{key}" for key in secrets or {}])

        @pulumi.runtime.test  # type: ignore[untyped-decorator]
        def declare() -> None:
            deployment.outputs = runpy.run_path(str(program), run_name="__main__")

        handler = signal.getsignal(signal.SIGINT)
        try:
            declare()
            deployment.on_interrupt = signal.getsignal(signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, handler)
        return deployment

    return run
