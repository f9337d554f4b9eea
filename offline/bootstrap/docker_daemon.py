"""Installs Debian's docker.io and starts it on a machine without a service manager."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from offline import HERE
from vllm_spark.docker_host.connection import DEFAULT_SOCKET, UNANSWERED, resolve
from vllm_spark.errors import DockerUnavailable, SetupError
from vllm_spark.project import TOOLS
from vllm_spark.setup.steps import run, say

START_SECONDS = 60
HOOK = "nvidia-container-runtime-hook"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
PID_FILE = Path("/var/run/docker.pid")
INSTALL_DOCKER = "install Docker (https://docs.docker.com/engine/install/) and start it"


def start_docker(error: DockerUnavailable) -> None:
    """Start a daemon and return when it answers. `error` says why no daemon answered before.

    Raises `error` again if this function must not start one: the address is another machine's, a
    service manager runs, or the user is not root. SetupError if the daemon does not start.
    """
    elsewhere = resolve().address != DEFAULT_SOCKET
    if elsewhere or Path("/run/systemd/system").is_dir() or os.geteuid() != 0:
        raise error
    say("Docker daemon: none answers, starting one")
    ensure_packages("docker.io", program="dockerd")
    _start()


def _silence() -> str | None:
    """Why the Docker daemon does not answer; None if it answers."""
    try:
        resolve().connect(timeout=10).close()
    except UNANSWERED as error:
        return str(error)
    return None


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def ensure_packages(*packages: str, program: str) -> None:
    """Install Debian packages if `program` is missing. SetupError if that is not possible."""
    if shutil.which(program) is not None:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise SetupError(
            f"{program} is missing; `make` installs it only as root on Debian or Ubuntu\n"
            f"  fix: install {' and '.join(packages)} with your system's package manager"
        )
    fix = "check that Debian's package mirror can be reached, then repeat"
    run("update Debian's package lists", ["apt-get", "update"], fix=fix)
    run(
        f"install {' '.join(packages)}",
        ["apt-get", "install", "--yes", "--no-install-recommends", *packages],
        env={"DEBIAN_FRONTEND": "noninteractive"},
        fix=fix,
    )


def forget_dead_dockerd(pid_file: Path) -> None:
    """Remove the PID file of a killed dockerd if a zombie or another program has that PID now.

    With the file in place, a new dockerd would think that another one runs, and exit.
    """
    with suppress(OSError, ValueError):
        stat = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()
        if "(dockerd)" not in stat or "(dockerd) Z" in stat:
            pid_file.unlink()


def _start() -> None:
    """Start containerd and dockerd, which outlive this program, and wait for an answer."""
    logs = TOOLS / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    path = os.environ["PATH"]
    if shutil.which("nvidia-smi") is None and shutil.which(HOOK) is None:
        # Docker refuses `--gpus` without this hook. On a machine without a GPU the substitute lets
        # containers with `--gpus` be created, so that stacks can be tested.
        path = f"{HERE / 'no_gpu'}{os.pathsep}{path}"
    forget_dead_dockerd(PID_FILE)
    # A second containerd would take over the socket of the first.
    for daemon in ("dockerd",) if _listens(CONTAINERD_SOCKET) else ("containerd", "dockerd"):
        with (logs / f"{daemon}.log").open("ab") as log:
            process = subprocess.Popen(
                [daemon],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": path},
                start_new_session=True,
            )
    deadline = time.monotonic() + START_SECONDS
    while (error := _silence()) is not None:
        if process.poll() is not None or time.monotonic() > deadline:
            last = (logs / "dockerd.log").read_text(errors="replace").splitlines()[-3:]
            shown = "\n".join(f"    | {line}" for line in last)
            raise SetupError(
                f"dockerd was started but does not answer: {error}\n{shown}\n"
                f"  the whole log: {logs / 'dockerd.log'}\n  fix: {INSTALL_DOCKER}"
            )
        time.sleep(0.2)
    say("  dockerd answers")
