"""What resources do in Pulumi's hooks: work in a thread, and the fix of a failed operation.

Work has lines of progress and plain errors.

The SDK (3.272, runtime/_callbacks.py) shows the frames of an error's `__traceback__` below it.
An expected error explains itself, so it has none. A unit test fails when a newer SDK shows some.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import TracebackType

import pulumi

from vllm_spark.diagnosis.answer import Diagnosis
from vllm_spark.diagnosis.verdict import diagnose
from vllm_spark.docker_host.interruption import listen
from vllm_spark.errors import VllmSparkError


class _PlainError(Exception):
    @property
    def __traceback__(self) -> TracebackType | None:  # type: ignore[override]
        return None


async def in_a_thread(work: Callable[[Callable[[str], None]], None]) -> None:
    """Do `work`, which is given a function that logs a line. Ctrl-C ends its waits."""
    if "--engine" in sys.orig_argv:
        listen(sys.orig_argv[sys.orig_argv.index("--engine") + 1])
    loop = asyncio.get_running_loop()

    def say(line: str) -> None:
        loop.call_soon_threadsafe(pulumi.log.info, line)

    try:
        await asyncio.to_thread(work, say)
    except VllmSparkError as error:
        raise _PlainError(str(error)) from None


def fix_hook(
    resource_name: str,
    what: str,
    fix_of: Callable[[Diagnosis], str | None] = lambda found: found.fix if found.rule else None,
) -> pulumi.ErrorHook:
    """A hook that logs the fix of a failed creation or update; a plugin says only what failed.

    `fix_of` gets what the failure catalogue makes of the plugin's message; None logs nothing.
    """

    def say(args: pulumi.ErrorHookArgs) -> bool:
        fix = fix_of(diagnose(line for error in args.errors for line in error.splitlines()))
        if args.failed_operation != "delete" and fix:
            pulumi.log.error(f"{what}: fix: {fix}")
        return False  # do not try again

    return pulumi.ErrorHook(f"{resource_name}-fix", say)
