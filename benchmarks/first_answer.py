"""The time to the first answer where nothing serves yet, next to sparkrun.

Both serve stack `local`: its model, flags and variables, from the same weights. First with the fake
server, whose load time is known, so that the rest is the tool's own; then with vLLM on the CPU.
Each keeps compile caches of its own; a first start, which is not counted, fills them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import docker
import requests
import yaml

from benchmarks.report import spread, table
from tests.e2e.fake_image import build_fake_image
from tests.e2e.project import FAKE_IMAGE, Project, free_port
from vllm_spark.config.settings import Settings
from vllm_spark.config.stack_file import load_stack, stack_file
from vllm_spark.deployment.serving import server_environment
from vllm_spark.errors import SetupError

RUNS = 5
SPARKRUN = "sparkrun==0.4.2"
PYTHONS = ("python3.14", "python3.13", "python3.12")
"""sparkrun needs one of these."""

LOAD = "5"
TICK = 0.1
PATIENCE_SECONDS = 900

NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *query-gpu*) echo "NVIDIA GB10" ;;
  *) echo "GPU 0: NVIDIA GB10 (UUID: GPU-00000000-0000-0000-0000-000000000000)" ;;
esac
"""
"""Without a GPU, sparkrun starts nothing."""


@dataclass(frozen=True)
class Way:
    """A way to serve: the port, what starts it, and what ends it."""

    port: int
    start: Callable[[], subprocess.Popen[bytes]]
    stop: Callable[[], None]


def measure(runs: int) -> str:
    """A table for each server, with each way `runs` times, in turn."""
    build_fake_image(docker.from_env())
    local = load_stack(stack_file("local"))
    environment = {**local.container.environment, "FAKE_LOAD": LOAD}
    fake = local.model_copy(
        update={
            "image": local.image.model_copy(update={"name": FAKE_IMAGE}),
            "container": local.container.model_copy(update={"environment": environment}),
        }
    )
    servers = {f"a server that loads in {LOAD} s": fake, "vLLM 0.32 on the CPU": local}
    return "\n\n".join(_beside_sparkrun(name, runs, servers[name]) for name in servers)


def _beside_sparkrun(server: str, runs: int, settings: Settings) -> str:
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        home = Path(directory)
        hub = home / ".cache" / "huggingface" / "hub"
        _copy_weights(settings, hub)
        with _ours(home, hub, settings) as make, _sparkrun(home, settings) as sparkrun:
            for _ in range(1 + runs):
                ours.append(_measured(make, settings))
                theirs.append(_measured(sparkrun, settings))
    del ours[0], theirs[0]
    ratios = [mine[0] / other[0] for mine, other in zip(ours, theirs, strict=True)]
    rows = [
        [f"`{command}`", *(spread(times, 1) for times in zip(*pairs, strict=True))]
        for command, pairs in (("sparkrun run", theirs), ("make up", ours))
    ]
    head = [f"{server}, {runs} runs each", "first answer, s", "the command itself, s"]
    ratio = f"Ratio of the first answers, median of pairs: {spread(ratios)}."
    return f"{table(head, rows)}\n\n{ratio}"


def _measured(way: Way, settings: Settings) -> tuple[float, float]:
    """Seconds until the model answers, and until the command ends."""
    began = time.monotonic()
    process = way.start()
    ended: list[float] = []

    def wait() -> None:
        process.wait()
        ended.append(time.monotonic() - began)

    waiter = Thread(target=wait, daemon=True)
    waiter.start()
    answered = _first_answer(way.port, settings.served_name, began)
    waiter.join()
    if process.returncode != 0:
        raise RuntimeError(f"{process.args!r} ended with exit code {process.returncode}")
    way.stop()
    return answered, ended[0]


def _first_answer(port: int, model: str, began: float) -> float:
    request = {"model": model, "prompt": "Hello", "max_tokens": 1}
    while (now := time.monotonic() - began) < PATIENCE_SECONDS:
        with suppress(requests.RequestException):
            url = f"http://127.0.0.1:{port}/v1/completions"
            if requests.post(url, json=request, timeout=60).status_code == 200:
                return time.monotonic() - began
        time.sleep(max(0.0, TICK - (time.monotonic() - began - now)))
    raise TimeoutError(f"nothing answers on port {port}")


def _copy_weights(settings: Settings, hub: Path) -> None:
    """The model from the stack's volume, as files of the host: sparkrun has no volumes."""
    hub.mkdir(parents=True)
    docker.from_env().containers.run(
        settings.image.name, ["-c", "cp --archive /from/models--* /to"], entrypoint="sh",
        volumes=[f"{settings.cache.source}:/from:ro", f"{hub}:/to"], remove=True,
    )  # fmt: skip


@contextmanager
def _ours(home: Path, hub: Path, settings: Settings) -> Iterator[Way]:
    place = home / "project"
    place.mkdir()
    project = Project(place, "benchmark")
    container = settings.container.model_dump(mode="json", exclude_unset=True)
    project.configure(
        cache={"hostPath": str(hub)},
        image={"name": settings.image.name},
        container={**container, "name": project.container},
    )

    def up() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "vllm_spark", "up", f"--stack={project.stack}"]
        output = (place / "up.txt").open("wb")
        return subprocess.Popen(
            command, cwd=place, env=project.environment, stdout=output, stderr=subprocess.STDOUT
        )

    def down() -> None:
        project.pulumi("destroy", "--yes")

    try:
        yield Way(project.port, up, down)
    finally:
        down()


@contextmanager
def _sparkrun(home: Path, settings: Settings) -> Iterator[Way]:
    venv = home / "venv"
    _run([_python(), "-m", "venv", str(venv)])
    _run([str(venv / "bin" / "pip"), "install", "--quiet", SPARKRUN])
    tools = home / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(NVIDIA_SMI)
    (tools / "nvidia-smi").chmod(0o755)
    port = free_port()
    recipe = home / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(_recipe(settings, port)))
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SPARKRUN_NO_TELEMETRY": "1",
    }
    program, here = str(venv / "bin" / "sparkrun"), [str(recipe), "--hosts=localhost"]

    def run() -> subprocess.Popen[bytes]:
        output = (home / "sparkrun.txt").open("wb")
        command = [program, "run", *here, "--offline"]
        return subprocess.Popen(
            command, cwd=home, env=environment, stdout=output, stderr=subprocess.STDOUT
        )

    def stop() -> None:
        command = [program, "stop", *here]
        subprocess.run(command, cwd=home, env=environment, capture_output=True, check=False)

    try:
        yield Way(port, run, stop)
    finally:
        stop()


def _recipe(settings: Settings, port: int) -> dict[str, object]:
    """The stack as a recipe of sparkrun: same flags, same variables, only this host."""
    flags = {name.replace("-", "_"): value for name, value in settings.engine.items()}
    environment = server_environment(settings)
    del environment["HF_HUB_CACHE"]  # sparkrun mounts the same folder elsewhere
    environment["FAKE_PORT"] = str(port)  # the fake server reads no flags; sparkrun publishes none
    return {
        "model": settings.model.id,
        "runtime": "vllm",
        "max_nodes": 1,
        "container": settings.image.name,
        "env": environment,
        "defaults": {**flags, "host": "127.0.0.1", "port": port},
        "executor_config": {"gpus": "", "entrypoint": "", "ulimit": ["nofile=20000:20000"]},
    }


def _python() -> str:
    for name in PYTHONS:
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([name, "--version"], check=True, capture_output=True)
            return name
    raise SetupError(f"{SPARKRUN} needs Python 3.12\n  fix: put {PYTHONS[-1]} on PATH")


def _run(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        raise SetupError(f"{' '.join(command)} failed\n  fix: see its words above")
