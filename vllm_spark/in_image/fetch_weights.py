"""Fetches a model's files into the cache: a script for the Python of the engine's image.

    python3 - MODEL [REVISION] [--without-weights] < fetch_weights.py

It runs in a one-shot container, where the hub's client is installed and the cache is mounted, and
comes through standard input, so that nothing has to be mounted from the machine that runs Pulumi.
It calls what `hf download` calls and says what that does not say without a terminal: whether the
disk has room, and every ten seconds how far it is. What is there is not fetched again, what is
broken off is resumed, and if the hub cannot be reached, a complete copy in the cache is enough.

Progress and errors go to standard error, the commit that was fetched to standard output.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

# Its bars are for terminals; in a log each would be a line.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

GIB = 2**30
PROGRESS_SECONDS = 10.0
SPARE_BYTES = GIB
"""What a download leaves free: compiled kernels go into the same folder."""

# Other forms of the same weights, which vLLM does not read beside safetensors.
EXCLUDED: tuple[str, ...] = ("original/*", "*.pth", "*.pt", "*.gguf", "*.onnx", "*.h5", "*.msgpack")
PICKLED = ("*.bin",)
WEIGHTS = ("*.safetensors", "*.bin")
"""Not wanted of a repository that gives a tokenizer or a config."""


def main() -> None:
    """Fetch, and print the commit."""
    parser = argparse.ArgumentParser(prog="fetch_weights", description=__doc__)
    parser.add_argument("model", help="owner/name")
    parser.add_argument("revision", nargs="?")
    parser.add_argument("--without-weights", action="store_true")
    given = parser.parse_args()
    model, revision = given.model, given.revision
    cache = Path(os.environ["HF_HUB_CACHE"])
    cache.mkdir(parents=True, exist_ok=True)
    blobs = cache / f"models--{model.replace('/', '--')}" / "blobs"
    excluded = EXCLUDED + (WEIGHTS if given.without_weights else PICKLED)
    over = threading.Event()
    try:
        files = sizes_on_hub(model, revision)
        if files is not None:
            has_safetensors = any(name.endswith(".safetensors") for name in files)
            if not has_safetensors and not given.without_weights:
                excluded = EXCLUDED
            total = sum(size for name, size in files.items() if not matches(name, excluded))
            check_room(cache, total - bytes_in(blobs))
            told = threading.Thread(target=tell, args=(model, blobs, total, over), daemon=True)
            told.start()
        # Asked again for every file, a hub that does not answer costs half a minute.
        snapshot = snapshot_download(
            model,
            revision=revision,
            ignore_patterns=list(excluded),
            local_files_only=files is None,
        )
    except LocalEntryNotFoundError as error:
        hub = "does not answer" if files is None else f"does not give it: {error.__cause__}"
        stop(
            f"{model} is not complete in the cache, and the hub {hub}",
            "see the network; a mirror (HF_ENDPOINT) or a proxy goes into container.environment",
        )
    except Exception as error:
        # OSError of the disk and the hub; its library for large files raises RuntimeError.
        explain(error, model, revision)
    over.set()
    print(Path(snapshot).name)


def sizes_on_hub(model: str, revision: str | None) -> dict[str, int] | None:
    """Bytes by file name; None if the hub cannot be reached."""
    try:
        found = HfApi().model_info(model, revision=revision, files_metadata=True)
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:
        # The client's network library differs by release, and so do the errors that it lets out.
        print(f"the hub does not answer ({error}); looking in the cache", file=sys.stderr)
        return None
    return {file.rfilename: file.size or 0 for file in found.siblings or ()}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """As the hub's client reads them."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def bytes_in(folder: Path) -> int:
    """Bytes on disk below a folder, of broken-off downloads too."""
    found = 0
    for path in folder.glob("*"):
        try:
            found += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue  # finished, and renamed, meanwhile
    return found


def check_room(cache: Path, missing: int) -> None:
    """Stop if the disk cannot take what is missing."""
    free = shutil.disk_usage(cache).free
    if missing > 0 and missing + SPARE_BYTES > free:
        stop(
            f"{missing / GIB:.2f} GiB are to be fetched, and {free / GIB:.2f} are free on the disk "
            "of the cache",
            f"free {(missing + SPARE_BYTES - free) / GIB:.2f} GiB more, or take another "
            "vllm-spark:cache",
        )


def tell(model: str, blobs: Path, total: int, over: threading.Event) -> None:
    """A line every ten seconds: how much, how fast, how long."""
    before, began = bytes_in(blobs), time.monotonic()
    while not over.wait(PROGRESS_SECONDS):
        done = bytes_in(blobs)
        rate = (done - before) / (time.monotonic() - began)
        seconds = (total - done) / rate if rate > 0 else 0
        left = f"{seconds / 60:.0f} min" if seconds > 120 else f"{max(seconds, 0):.0f} s"
        print(
            f"{model}: {min(done, total) / GIB:.2f} of {total / GIB:.2f} GiB, "
            f"{rate / 2**20:.1f} MiB/s, about {left} left",
            file=sys.stderr,
            flush=True,
        )


def explain(error: Exception, model: str, revision: str | None) -> NoReturn:
    """Say what an error of the hub, or of the disk, means."""
    match error:
        case GatedRepoError():
            stop(
                f"{model} is a gated model, and this token may not fetch it",
                "accept its licence on its page, then `pulumi config set --secret "
                "vllm-spark:huggingFaceToken`",
            )
        case RevisionNotFoundError():
            stop(f"{model} has no revision {revision}", "correct vllm-spark:model.revision")
        case RepositoryNotFoundError():
            stop(
                f"the hub has no model {model}, or shows it to others only",
                "correct vllm-spark:model.id; for a private one `pulumi config set --secret "
                "vllm-spark:huggingFaceToken`",
            )
        case HfHubHTTPError():
            stop(f"the hub refuses: {error}", "repeat later; what was fetched is kept")
    stop(
        f"the fetch broke off: {error}",
        "see the disk (`df -h`) and the network, then repeat: what was fetched is kept",
    )


def stop(cause: str, fix: str) -> NoReturn:
    """End in words."""
    sys.exit(f"cause: {cause}\nfix:   {fix}")


if __name__ == "__main__":
    main()
