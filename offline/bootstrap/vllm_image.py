"""The CPU engine's image for stack `local`: pulled, else built from package registries."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from offline import HERE
from offline.bootstrap.docker_daemon import ensure_packages
from vllm_spark.docker_host.connection import connect, docker_errors
from vllm_spark.errors import SetupError
from vllm_spark.setup.steps import run, say

IMAGE = "vllm/vllm-openai-cpu:v0.32.0-x86_64"
"""The image that this module can build in place of the published one."""

BASE = "vllm-spark-debian:bookworm"
BASE_PACKAGES = "python3,python3-venv,python3-dev,g++,ca-certificates,libnuma1,libgomp1"
NEEDED_GIB = 18
"""Free disk for the build: the image of 7 GiB, its layers while they are made, the downloads."""

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def ensure_cpu_image() -> None:
    """Leave IMAGE on the Docker host."""
    client = connect()
    if _present(client, IMAGE):
        return
    say(f"CPU engine: {IMAGE} is not here, pulling it")
    try:
        run("pull the CPU engine", ["docker", "pull", IMAGE], fix="see whether it can be reached")
    except SetupError as error:
        say(f"  {error}\n  building it from PyPI and Debian packages instead")
        _check_disk(client)
        if not _present(client, BASE):
            _build_base()
        _build_image()


def _present(client: docker.DockerClient, name: str) -> bool:
    with docker_errors():
        try:
            client.images.get(name)
        except ImageNotFound:
            return False
    return True


def _check_disk(client: docker.DockerClient) -> None:
    root = Path(client.info()["DockerRootDir"])
    if not root.is_dir():  # a remote engine: its disk is not ours to see
        return
    free = shutil.disk_usage(root).free / 2**30
    if free < NEEDED_GIB:
        raise SetupError(
            f"{root} has {free:.0f} GiB free and the build needs {NEEDED_GIB}\n"
            "  fix: free some (`docker system df` shows what Docker holds), then repeat"
        )


def _build_base() -> None:
    """A minimal Debian, named only once it is whole."""
    ensure_packages("debootstrap", program="debootstrap")
    if os.geteuid() != 0:
        raise SetupError("debootstrap takes root\n  fix: repeat as root, or let Docker pull images")
    with tempfile.TemporaryDirectory(prefix="vllm-spark-") as directory:
        root = Path(directory) / "root"
        run(
            "bootstrap a Debian",
            ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", root],
            fix="see whether Debian's package mirror can be reached, then repeat",
        )
        # Packages are fetched through the same proxies as here, so by the same authorities.
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        archive = Path(directory) / "base.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        trust = f"ENV SSL_CERT_FILE={CERTIFICATES} PIP_CERT={CERTIFICATES}"
        run(
            "import the Debian",
            ["docker", "import", "--change", trust, archive, BASE],
            fix="see the log",
        )


def _build_image() -> None:
    run(
        "build the CPU engine",
        ["docker", "build", "--network", "host", "--force-rm", "--tag", IMAGE]
        + [str(HERE / "vllm_image")],
        # Debian's Docker has no BuildKit client.
        env={"DOCKER_BUILDKIT": "0"},
        fix="see whether PyPI can be reached, then repeat: nothing half-made is left",
    )
