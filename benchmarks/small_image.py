"""An image that starts like vLLM's and weighs 60 MB: this machine's Python, the hub's client, and
the fake server. vLLM's own would take minutes to pull where seconds tell the same.
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
    # Without bytecode every start is as slow as the first one, so that starts can be compared.
    "Env": ["PATH=/bin", "PYTHONPATH=/hub", "PYTHONDONTWRITEBYTECODE=1"],
}

HUB_CLIENT = "huggingface_hub==2.4.0"
"""What the CPU engine's image has."""

# As the real one: what is not in the cache is fetched, then it is served.
VLLM = """#!/bin/sh
set -e
python3 -c 'import huggingface_hub, sys; huggingface_hub.snapshot_download(sys.argv[1])' "$2"
exec python3 -u /fake_server.py "$@"
"""

_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "idlelib", "ensurepip"}


def layer() -> bytes:
    """Its layer, a tar file."""
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    with tempfile.TemporaryDirectory() as directory:
        run(
            "install the hub's client",
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", directory, HUB_CLIENT],
            fix="see whether PyPI can be reached, then repeat",
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
    """The shared libraries that these need, the loader among them."""
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    return {word for word in listed.split() if word.startswith("/") and not word.endswith(":")}
