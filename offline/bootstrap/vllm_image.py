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

IMAGE = "vllm/vllm-openai-cpu:v0.32.0"
"""The image that this module pulls, or builds under the same name. vLLM publishes it for x86_64 and
aarch64 (see .buildkite/scripts/publish-release-images-dockerhub.sh there); Docker takes its own."""

# procps: other tools look into a container with `ps` and `kill`.
BASE_PACKAGES = "python3,python3-venv,python3-dev,g++,ca-certificates,libnuma1,libgomp1,procps"
RECIPE_LABEL = "vllm-spark.recipe"
"""On an image that was built here: what it was built from."""
NEEDED_GIB = 18
"""Free disk space for the build: the image (7 GiB), its layers during the build, downloads."""

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def ensure_cpu_image() -> None:
    """Pull or build IMAGE on the Docker host. SetupError if neither works."""
    client = connect()
    if is_here(client, IMAGE):
        return
    say(f"CPU image: {IMAGE} is not on this host, pulling it")
    try:
        run("pull the CPU image", ["docker", "pull", IMAGE], fix="check that it can be reached")
    except SetupError as error:
        say(f"  {error}\n  building it from PyPI and Debian packages instead")
        build_cpu_image(client, IMAGE, architecture=client.version()["Arch"])


def is_here(client: docker.DockerClient, name: str) -> bool:
    """Whether the host has the image, pulled or built from what would be built now."""
    return _present(client, name) and _is_current(client.images.get(name).attrs)


def build_cpu_image(client: docker.DockerClient, name: str, *, architecture: str) -> None:
    """Build it under this name for `amd64` or `arm64`; Docker and Debian use the same words.

    SetupError if it fails. An architecture that is not this machine's needs QEMU's user emulation.
    """
    _check_disk(client)
    base = f"vllm-spark-debian:bookworm-{architecture}-{_digest(BASE_PACKAGES.encode())}"
    if not _present(client, base):
        _build_base(base, architecture)
    # Docker before 23 takes an imported image for one of its own architecture.
    platform = f"linux/{client.images.get(base).attrs['Architecture']}"
    run(
        f"build the CPU image for {architecture}",
        ["docker", "build", "--network", "host", "--force-rm", "--tag", name]
        + ["--platform", platform, "--build-arg", f"BASE={base}"]
        + ["--label", f"{RECIPE_LABEL}={_recipe()}", str(HERE / "vllm_image")],
        # Debian's Docker has no BuildKit client.
        env={"DOCKER_BUILDKIT": "0"},
        fix="check that PyPI can be reached, then repeat; no partial result is left",
    )


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
    return _digest(BASE_PACKAGES.encode(), *(path.read_bytes() for path in files))


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


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


def _build_base(name: str, architecture: str) -> None:
    """Import a minimal Debian. It gets its name only when it is complete."""
    ensure_packages("debootstrap", program="debootstrap")
    if os.geteuid() != 0:
        raise SetupError("debootstrap needs root\n  fix: repeat as root, or let Docker pull images")
    with tempfile.TemporaryDirectory(prefix="vllm-spark-") as directory:
        root = Path(directory) / "root"
        run(
            "bootstrap a Debian",
            ["debootstrap", f"--arch={architecture}", "--variant=minbase"]
            + [f"--include={BASE_PACKAGES}", "bookworm", str(root)],
            fix="check that Debian's package mirror can be reached, then repeat",
        )
        # The build downloads through the same proxies, so it must trust the same authorities.
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        archive = Path(directory) / "base.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        trust = f"ENV SSL_CERT_FILE={CERTIFICATES} PIP_CERT={CERTIFICATES}"
        run(
            "import the Debian",
            ["docker", "import", "--platform", f"linux/{architecture}"]
            + ["--change", trust, str(archive), name],
            fix="read Docker's message above, then repeat",
        )
