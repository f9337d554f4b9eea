"""A Docker engine that answers: the running one, else Debian's docker.io started by hand."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from bootstrap.steps import ROOT, TOOLS, Unready, run, say

START_SECONDS = 60
HOOK = "nvidia-container-runtime-hook"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
PID_FILE = Path("/var/run/docker.pid")
INSTALL_DOCKER = "install Docker (https://docs.docker.com/engine/install/) and start it"

SILENT = (DockerException, RequestException)
"""What docker-py raises when the engine does not answer. In the middle of a talk it lets requests'
errors through."""


def silent(error: Exception) -> str:
    """What a person reads of one of `SILENT`."""
    return f"cannot ask Docker: {error}\n  mend: start it, then repeat"


def ensure_docker() -> None:
    """Return once a Docker engine answers. Unready says what is missing."""
    error = _silence()
    if error is None:
        return
    if os.environ.get("DOCKER_HOST"):
        raise Unready(
            f"no Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: {error}\n"
            "  mend: start it there, or unset DOCKER_HOST to use this machine's"
        )
    if Path("/run/systemd/system").is_dir():
        raise Unready(
            f"no Docker engine answers: {error}\n"
            "  mend: `sudo systemctl start docker`; if you may not use it: "
            "`sudo usermod -aG docker $USER` and log in again"
        )
    if os.geteuid() != 0:
        raise Unready(
            f"no Docker engine answers: {error}\n"
            f"  and starting one takes root, which this user is not\n  mend: {INSTALL_DOCKER}"
        )
    say("Docker engine: none answers, starting one")
    ensure_packages("docker.io", program="dockerd")
    _start()


def _silence() -> str | None:
    """Why Docker does not answer; None if it does."""
    try:
        client = docker.from_env(timeout=10)
        client.ping()
        client.close()
    except SILENT as error:
        return str(error)
    return None


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def ensure_packages(*packages: str, program: str) -> None:
    """Install Debian packages if `program` is not there."""
    if shutil.which(program) is not None:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Unready(
            f"{program} is missing, and only root on a Debian or Ubuntu can install it\n"
            f"  mend: install {' and '.join(packages)} in your system's own way"
        )
    mend = "see whether Debian's package mirror can be reached, then repeat"
    run("update Debian's package lists", ["apt-get", "update"], mend=mend)
    run(
        f"install {' '.join(packages)}",
        ["apt-get", "install", "--yes", "--no-install-recommends", *packages],
        env={"DEBIAN_FRONTEND": "noninteractive"},
        mend=mend,
    )


def forget_dead_dockerd(pid_file: Path) -> None:
    """Remove what a killed dockerd left, if its number is a zombie's or another program's now.

    dockerd would take either for a dockerd that runs, and not start.
    """
    with suppress(OSError, ValueError):
        stat = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()
        if "(dockerd)" not in stat or "(dockerd) Z" in stat:
            pid_file.unlink()


def _start() -> None:
    """Start containerd and dockerd, which live on after this program, and wait for an answer."""
    logs = TOOLS / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    path = os.environ["PATH"]
    if shutil.which("nvidia-smi") is None and shutil.which(HOOK) is None:
        # Docker refuses `--gpus` where this hook is not found. Where there is no GPU at all, the
        # stand-in lets containers that ask for one be created, so that stacks can be tested.
        path = f"{ROOT / 'offline' / 'no_gpu'}{os.pathsep}{path}"
    forget_dead_dockerd(PID_FILE)
    # A second containerd would take the socket away from the first.
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
            raise Unready(
                f"dockerd was started and does not answer: {error}\n{shown}\n"
                f"  all of it: {logs / 'dockerd.log'}\n  mend: {INSTALL_DOCKER}"
            )
        time.sleep(0.2)
    say("  dockerd answers")
