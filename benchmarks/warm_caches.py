"""A restart with and without the compiled kernels of the last start, with vLLM on the CPU.

The container is that of stack `local` with torch.compile on. Its compile caches are in a volume of
their own, new for every cold start. The weights are present in both cases.
"""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import datetime

import docker

from benchmarks.report import spread, table
from vllm_spark.config.settings import Settings
from vllm_spark.config.stack_file import load_stack, stack_file
from vllm_spark.deployment.serving import (
    CACHE_PATH,
    compile_caches,
    server_command,
    server_environment,
)
from vllm_spark.diagnosis.start_log import Phase, StartLog
from vllm_spark.flags.engine_flags import EngineFlags

RUNS = 3
# With its AOT path on, vLLM 0.32 on the CPU compiles again despite a full cache.
ENVIRONMENT = {"VLLM_USE_AOT_COMPILE": "0"}

Seconds = dict[str, float]
"""Seconds by phase, and `total`."""


def measure(runs: int) -> str:
    """Measure a cold start and then a warm start, `runs` times."""
    settings = load_stack(stack_file("local"))
    volumes = docker.from_env().volumes
    colds: list[Seconds] = []
    warms: list[Seconds] = []
    for run in range(runs):
        kernels = volumes.create(f"vllm-spark-benchmark-{os.getpid()}-{run}")
        try:
            colds.append(_start(settings, str(kernels.name)))
            warms.append(_start(settings, str(kernels.name)))
        finally:
            kernels.remove(force=True)
    phases = [phase.value for phase in Phase if any(phase.value in start for start in colds)]
    both = (colds, warms)
    rows = [
        [phase, *(spread([start.get(phase, 0.0) for start in starts], 1) for starts in both)]
        for phase in (*phases, "total")
    ]
    return table([f"phase, {runs} runs each", "without, s", "with kept caches, s"], rows)


def _start(settings: Settings, kernels: str) -> Seconds:
    """The duration of each phase of one start, by the log and Docker's timestamps of its lines."""
    flags = {name: value for name, value in settings.engine.items() if name != "enforce-eager"}
    compiling = settings.model_copy(update={"engine": EngineFlags(flags)})
    client = docker.from_env()
    caches = compile_caches(compiling, str(client.images.get(settings.image.name).id))
    container = client.containers.run(
        settings.image.name,
        server_command(compiling),
        environment={**server_environment(compiling), **caches, **ENVIRONMENT},
        volumes=[f"{settings.cache.source}:{CACHE_PATH}", f"{kernels}:{CACHE_PATH}/compiled"],
        ipc_mode=settings.container.ipc,
        detach=True,
    )
    try:
        container.reload()
        log, seconds = StartLog(), defaultdict[str, float](float)
        began = since = datetime.fromisoformat(container.attrs["State"]["StartedAt"]).timestamp()
        for line in container.logs(stream=True, follow=True, timestamps=True):
            stamp, _, text = line.decode(errors="replace").partition(" ")
            before = log.phase
            if log.feed(text) is not None:
                now = datetime.fromisoformat(stamp).timestamp()
                seconds[before.value] += now - since
                since = now
            if log.phase is Phase.READY:
                return {**seconds, "total": since - began}
        raise RuntimeError(f"it did not start:\n{container.logs(tail=20).decode()}")
    finally:
        container.remove(force=True)
