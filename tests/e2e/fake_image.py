"""The CPU image with the fake server as its `vllm`; the rest of it is real."""

from __future__ import annotations

import fcntl
import io
import os
import tarfile
import tempfile
from pathlib import Path

import docker

from offline.bootstrap.vllm_image import IMAGE
from tests.e2e.project import FAKE_IMAGE, ROOT

DOCKERFILE = f"""
FROM {IMAGE}
COPY fake_server.py logs /fake/
COPY fake_vllm.py /fake/site/vllm.py
ENV PYTHONPATH=/fake/site
RUN printf '#!/bin/sh\\nexec python3 -u /fake/fake_server.py "$@"\\n' > "$(command -v vllm)"
"""


def lock_file(name: str) -> Path:
    """A file to lock, for all checkouts of this user; another user could not open it."""
    return Path(tempfile.gettempdir()) / f"vllm-spark-{os.getuid()}-{name}"


def build_fake_image(docker_client: docker.DockerClient) -> str:
    """Build FAKE_IMAGE if it is missing; returns its name."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        dockerfile = tarfile.TarInfo("Dockerfile")
        dockerfile.size = len(DOCKERFILE.encode())
        tar.addfile(dockerfile, io.BytesIO(DOCKERFILE.encode()))
        tar.add(ROOT / "tests" / "fake_server.py", "fake_server.py")
        tar.add(ROOT / "tests" / "fake_vllm.py", "fake_vllm.py")
        tar.add(ROOT / "tests" / "data" / "logs", "logs")
    context.seek(0)
    # One test process at a time: two builds would create two image ids.
    with lock_file("fake-image").open("w") as building:
        fcntl.flock(building, fcntl.LOCK_EX)
        docker_client.images.build(fileobj=context, custom_context=True, tag=FAKE_IMAGE, rm=True)
    return FAKE_IMAGE
