"""Provides the CPU image for stack `local`: pulled, else built from package registries."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import docker
from docker.errors import ImageNotFound

from offline import HERE
from offline.bootstrap.docker_daemon import ensure_packages
from vllm_spark.docker_host.connection import connect, docker_errors
from vllm_spark.errors import SetupError
from vllm_spark.setup.steps import run, say

IMAGE = "vllm/vllm-openai-cpu:v0.32.0-x86_64"
"""The image that this module pulls, or builds under the same name."""

# procps: other tools look into a container with `ps` and `kill`.
BASE_PACKAGES = "python3,python3-venv,python3-dev,g++,ca-certificates,libnuma1,libgomp1,procps"
BASE = f"vllm-spark-debian:bookworm-{hashlib.sha256(BASE_PACKAGES.encode()).hexdigest()[:8]}"
RECIPE_LABEL = "vllm-spark.recipe"
"""On an image that was built here: what it was built from."""
NEEDED_GIB = 18
"""Free disk space for the build: the image (7 GiB), its layers during the build, downloads."""

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def ensure_cpu_image() -> None:
    """Pull or build IMAGE on the Docker host. SetupError if neither works."""
    client = connect()
    if _present(client, IMAGE) and _is_current(client.images.get(IMAGE).attrs):
        return
    say(f"CPU image: {IMAGE} is not on this host, pulling it")
    try:
        run("pull the CPU image", ["docker", "pull", IMAGE], fix="check that it can be reached")
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


def _is_current(inspected: dict[str, Any]) -> bool:
    """Whether an image was pulled, or built here from what would be built now.

    Only the label tells: with the containerd image store, an image built here has a digest too.
    """
    labels = inspected["Config"].get("Labels") or {}
    return RECIPE_LABEL not in labels or labels[RECIPE_LABEL] == _recipe()


def _recipe() -> str:
    files = sorted(path for path in (HERE / "vllm_image").iterdir() if path.is_file())
    content = BASE.encode() + b"".join(path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()[:12]


def _check_disk(client: docker.DockerClient) -> None:
    root = Path(client.info()["DockerRootDir"])
    if not root.is_dir():  # a remote daemon, whose disk cannot be seen
        return
    free = shutil.disk_usage(root).free / 2**30
    if free < NEEDED_GIB:
        raise SetupError(
            f"{root} has {free:.0f} GiB free and the build needs {NEEDED_GIB}\n"
            "  fix: free disk space (`docker system df` shows what Docker uses), then repeat"
        )


def _build_base() -> None:
    """Import a minimal Debian. It gets its name only when it is complete."""
    ensure_packages("debootstrap", program="debootstrap")
    if os.geteuid() != 0:
        raise SetupError("debootstrap needs root\n  fix: repeat as root, or let Docker pull images")
    with tempfile.TemporaryDirectory(prefix="vllm-spark-") as directory:
        root = Path(directory) / "root"
        run(
            "bootstrap a Debian",
            ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", root],
            fix="check that Debian's package mirror can be reached, then repeat",
        )
        # The build downloads through the same proxies, so it must trust the same authorities.
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        archive = Path(directory) / "base.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        trust = f"ENV SSL_CERT_FILE={CERTIFICATES} PIP_CERT={CERTIFICATES}"
        run(
            "import the Debian",
            ["docker", "import", "--change", trust, archive, BASE],
            fix="read Docker's message above, then repeat",
        )


def _build_image() -> None:
    run(
        "build the CPU image",
        ["docker", "build", "--network", "host", "--force-rm", "--tag", IMAGE]
        + ["--build-arg", f"BASE={BASE}", "--label", f"{RECIPE_LABEL}={_recipe()}"]
        + [str(HERE / "vllm_image")],
        # Debian's Docker has no BuildKit client.
        env={"DOCKER_BUILDKIT": "0"},
        fix="check that PyPI can be reached, then repeat; no partial result is left",
    )
