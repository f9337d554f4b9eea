"""A 60 MB image that starts like a vLLM image: this machine's Python, the Hub's client and the fake
server. A real vLLM image would take minutes to pull, with the same result.
"""

from __future__ import annotations

import io
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from vllm_spark.project import ROOT
from vllm_spark.setup.steps import run

CONFIG = {
    "Entrypoint": ["/bin/vllm", "serve"],
    # Without bytecode files every start is as slow as the first, so starts can be compared.
    "Env": ["PATH=/bin", "PYTHONPATH=/hub", "PYTHONDONTWRITEBYTECODE=1"],
}

HUB_CLIENT = "huggingface_hub==2.4.0"
"""The version in the CPU image."""

# Like vLLM: download what is not in the cache, then serve.
VLLM = """#!/bin/sh
set -e
python3 -c 'import huggingface_hub, sys; huggingface_hub.snapshot_download(sys.argv[1])' "$2"
exec python3 -u /fake_server.py "$@"
"""

_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "idlelib", "ensurepip"}


def layer() -> bytes:
    """The image's layer, a tar file."""
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    with tempfile.TemporaryDirectory() as directory:
        run(
            "install the hub's client",
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", directory, HUB_CLIENT],
            fix="check that PyPI can be reached, then repeat",
        )
        modules = [*library.glob("lib-dynload/*.so"), *Path(directory).rglob("*.so")]
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
            tar.add(directory, "hub", filter=_wanted)
            tar.add(library, filter=_wanted)
            for file in sorted(
                {"/bin/sh", str(python), *_libraries(Path("/bin/sh"), python, *modules)}
            ):
                tar.add(file)
            tar.add(ROOT / "tests" / "fake_server.py", "fake_server.py")
            tar.add(ROOT / "tests" / "fake_vllm.py", "hub/vllm.py")
            link = tarfile.TarInfo("bin/python3")
            link.type, link.linkname = tarfile.SYMTYPE, str(python)
            tar.addfile(link)
            script = tarfile.TarInfo("bin/vllm")
            script.size, script.mode = len(VLLM), 0o755
            tar.addfile(script, io.BytesIO(VLLM.encode()))
    return buffer.getvalue()


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if _LEFT_OUT & set(entry.name.split("/")) else entry


def _libraries(*files: Path) -> set[str]:
    """The shared libraries that these files need, including the loader."""
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    return {word for word in listed.split() if word.startswith("/") and not word.endswith(":")}
