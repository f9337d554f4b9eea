"""Work in a hook of a resource: its lines are logged, and an expected error shows no frames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pulumi
import pytest
from pulumi.runtime._callbacks import _CallbackServicer

from components.hooks import fix_hook, in_a_thread
from components.vllm_image import fix_of_pull
from vllm_spark.diagnosis.verdict import diagnose
from vllm_spark.errors import PreflightError

Say = Callable[[str], None]


def shown(error: BaseException) -> str:
    """The text that the SDK makes of an error in a hook."""
    servicer: Any = _CallbackServicer
    return str(servicer.pretty_error(None, error))


def run(work: Callable[[Say], None]) -> None:
    # Not by asyncio.run: that leaves no event loop behind for Pulumi's mocks in other tests.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(in_a_thread(work))
    finally:
        loop.close()


def test_lines_are_logged_from_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr("pulumi.log.info", logged.append)

    def work(say: Say) -> None:
        say("one")
        say("two")

    run(work)
    assert logged == ["one", "two"]


def test_an_expected_error_is_its_text_and_no_frames() -> None:
    def work(_say: Say) -> None:
        raise PreflightError("container x runs\n  fix: stop it")

    with pytest.raises(Exception, match="container x runs") as failed:
        run(work)
    assert shown(failed.value).strip() == "container x runs\n  fix: stop it:"


def test_any_other_error_keeps_its_frames() -> None:
    def work(_say: Say) -> None:
        raise KeyError("a bug of ours")

    with pytest.raises(KeyError) as failed:
        run(work)
    assert "test_hooks_of_resources.py" in shown(failed.value)


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", "arm64 (aarch64)"),
        ("failed to register layer: write /x: no space left on device", "docker system df"),
        ("dial tcp 127.0.0.1:1: connect: connection refused", "for a typo"),
        ("no basic auth credentials", "vllm-spark:registryPassword"),
        ("manifest for nvcr.io/nvidia/vllm:25.99 not found: manifest unknown", "for a typo"),
        (
            "proxyconnect tcp: dial tcp: connection refused",
            "the daemon needs its own",
        ),
    ],
)
def test_a_failed_pull_has_the_fix_of_its_cause(said: str, fix: str) -> None:
    assert fix in fix_of_pull(diagnose([f"error pulling image: {said}", "plugin"]))


@pytest.mark.parametrize(("operation", "says"), [("create", True), ("delete", False)])
def test_a_failed_operation_is_logged_with_its_fix_and_not_tried_again(
    operation: str, says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr("pulumi.log.error", logged.append)
    hook = fix_hook("vllm-container", "vllm-x")
    failed = pulumi.ErrorHookArgs(
        urn="urn", id="", name="x", type="t", failed_operation=operation,
        errors=["1 error occurred:\n\t* error setting rlimit type 8: operation not permitted"],
    )  # fmt: skip
    assert hook.callback(failed) is False
    assert bool(logged) is says
    assert all(line.startswith("vllm-x: fix: lower or remove container.ulimits") for line in logged)
