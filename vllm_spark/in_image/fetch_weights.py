"""Fetches a model's files into the cache: a script for the Python of the vLLM image.

    python3 -c "$(cat fetch_weights.py)" MODEL [REVISION] [--without-weights]

It runs in a one-shot container, where the hub's client is installed and the cache is mounted. It
calls the function behind `hf download`, and adds what that lacks without a terminal: it checks that
the disk has room, reports progress every ten seconds, and ends if no data arrives. Files in the
cache are not fetched again, a broken download is resumed, and if the hub cannot be reached, a
complete copy in the cache is enough.

The script removes the weights from the page cache: on unified memory they would take memory that
vLLM needs next, and loads then fail at 73 to 97 % (reported by owners of Sparks).

With a gpt-oss model it also fetches OpenAI's vocabulary, which is in no repository of the hub: vLLM
would fetch it while it starts.

Progress and errors go to standard error, the fetched commit to standard output.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import shutil
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

# Its progress bars are for terminals; in a log each update would be a line.
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
HUB_SECONDS = 30.0
"""The time limit of one answer of the hub about a repository."""
STALL_SECONDS = 600.0
"""The fetch gives up when no data has arrived for this long."""
SPARE_BYTES = GIB
"""The disk space that a download leaves free: compiled kernels go into the same folder."""

# Other forms of the same weights, which vLLM does not read if there are safetensors.
EXCLUDED: tuple[str, ...] = ("original/*", "*.pth", "*.pt", "*.gguf", "*.onnx", "*.h5", "*.msgpack")
PICKLED = ("*.bin",)
WEIGHTS = ("*.safetensors", "*.bin")
"""Not needed from a repository that provides only a tokenizer or a config."""

VOCABULARY = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
VOCABULARY_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
"""The file that the library openai_harmony loads for gpt-oss, and the hash that it requires
(github.com/openai/harmony, src/tiktoken_ext/public_encodings.rs)."""
HARMONY = "harmony"
"""The folder of the cache for it: the server's TIKTOKEN_RS_CACHE_DIR."""


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
    try:
        files = files_on_hub(model, revision)
        if files is not None:
            has_safetensors = any(name.endswith(".safetensors") for name in files)
            if not has_safetensors and not given.without_weights:
                excluded = EXCLUDED
            wanted = {name: file for name, file in files.items() if not matches(name, excluded)}
            check_room(cache, missing_bytes(wanted.values(), blobs))
            total = sum(size for size, _ in wanted.values())
            threading.Thread(target=watch, args=(model, blobs, total), daemon=True).start()
        # Otherwise the client asks again for every file; a silent hub then costs half a minute.
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
            "see the network; a mirror (HF_ENDPOINT) goes into container.environment, and so does "
            "a proxy (HTTPS_PROXY) other than the shell's",
        )
    except Exception as error:
        # OSError from the disk and the hub; the hub's library for large files raises RuntimeError.
        explain(error, model, revision)
    if not given.without_weights and model_type(Path(snapshot)) == "gpt_oss":
        fetch_vocabulary(cache / HARMONY)
    drop_pages(Path(snapshot))
    print(Path(snapshot).name)


File = tuple[int, str]
"""The size of a file in bytes, and the name that its blob has in the cache."""


def files_on_hub(model: str, revision: str | None) -> dict[str, File] | None:
    """The repository's files by name; None if the hub cannot be reached."""
    # The client's limit applies to each read, so a hub that sends slowly never reaches it.
    timer = threading.Timer(4 * HUB_SECONDS, give_up, ["the hub took the question, never answered"])
    timer.daemon = True
    timer.start()
    try:
        found = HfApi().model_info(
            model, revision=revision, files_metadata=True, timeout=HUB_SECONDS
        )
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except Exception as error:
        # The client's network library differs by release, and so do its exceptions.
        print(f"the hub does not answer ({error}); looking in the cache", file=sys.stderr)
        return None
    finally:
        timer.cancel()
    return {
        file.rfilename: (file.size or 0, file.lfs.sha256 if file.lfs else file.blob_id or "")
        for file in found.siblings or ()
    }


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file name matches one of the patterns, by the rules of the hub's client."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def missing_bytes(files: Iterable[File], blobs: Path) -> int:
    """Bytes that are still to be fetched. Blobs of other revisions do not count."""
    missing = 0
    for size, blob in files:
        if blob and (blobs / blob).exists():
            continue
        begun = max((on_disk(part) for part in blobs.glob(f"{blob}*.incomplete")), default=0)
        missing += max(0, size - (begun if blob else 0))
    return missing


def bytes_in(folder: Path) -> int:
    """Bytes on disk in a folder, including unfinished downloads."""
    return sum(on_disk(path) for path in folder.glob("*"))


def on_disk(path: Path) -> int:
    """Bytes that a file takes on the disk; 0 if it was renamed because its download finished."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def check_room(cache: Path, missing: int) -> None:
    """Stop if the disk has no room for the missing bytes."""
    free = shutil.disk_usage(cache).free
    if missing > 0 and missing + SPARE_BYTES > free:
        stop(
            f"{missing / GIB:.2f} GiB are to be fetched, and {free / GIB:.2f} are free on the disk "
            "of the cache",
            f"free {(missing + SPARE_BYTES - free) / GIB:.2f} GiB more, or take another "
            "vllm-spark:cache",
        )


def watch(model: str, blobs: Path, total: int) -> None:
    """Report bytes, speed and time left every ten seconds; give up if no data arrives."""
    before = done = bytes_in(blobs)
    began = moved = time.monotonic()
    while True:
        time.sleep(PROGRESS_SECONDS)
        now, seen = time.monotonic(), bytes_in(blobs)
        if seen != done:
            done, moved = seen, now
        elif now - moved > STALL_SECONDS:
            give_up(f"nothing of {model} has arrived for {STALL_SECONDS:.0f} s")
        rate = (done - before) / (now - began)
        seconds = (total - done) / rate if rate > 0 else 0
        left = f"{seconds / 60:.0f} min" if seconds > 120 else f"{max(seconds, 0):.0f} s"
        print(
            f"{model}: {min(done, total) / GIB:.2f} of {total / GIB:.2f} GiB, "
            f"{rate / 2**20:.1f} MiB/s, about {left} left",
            file=sys.stderr,
            flush=True,
        )


def model_type(snapshot: Path) -> str | None:
    """The kind of model that config.json names; None without a readable one."""
    try:
        return str(json.loads((snapshot / "config.json").read_text())["model_type"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def fetch_vocabulary(folder: Path) -> None:
    """Fetch OpenAI's vocabulary into the place where openai_harmony looks for it.

    Not if TIKTOKEN_ENCODINGS_BASE names a folder that holds it: the library then looks only there.
    """
    if os.environ.get("TIKTOKEN_ENCODINGS_BASE"):
        return
    path = folder / hashlib.sha1(VOCABULARY.encode()).hexdigest()
    if path.is_file() and sha256(path.read_bytes()) == VOCABULARY_SHA256:
        return
    print(f"fetching OpenAI's vocabulary for gpt-oss: {VOCABULARY}", file=sys.stderr, flush=True)
    instead = (
        f"else put the file at {path} by another way (its SHA-256 is {VOCABULARY_SHA256}), or into "
        "a folder of container.mounts that container.environment.TIKTOKEN_ENCODINGS_BASE names"
    )
    try:
        with urllib.request.urlopen(VOCABULARY, timeout=HUB_SECONDS) as answer:
            content = answer.read()
        if sha256(content) != VOCABULARY_SHA256:
            stop(f"{VOCABULARY} is not the file that gpt-oss needs", f"see the proxy; {instead}")
        folder.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.rename(path)
    except OSError as error:
        stop(
            f"gpt-oss needs OpenAI's vocabulary, and {VOCABULARY} cannot be fetched: {error}",
            f"see the network and the proxy (container.environment.HTTPS_PROXY); {instead}",
        )


def sha256(content: bytes) -> str:
    """The hash of a file's content, in hex."""
    return hashlib.sha256(content).hexdigest()


def drop_pages(snapshot: Path) -> None:
    """Remove the snapshot's files from the page cache, after they are on the disk."""
    for path in snapshot.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def explain(error: Exception, model: str, revision: str | None) -> NoReturn:
    """Explain an error of the hub or of the disk."""
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


def give_up(cause: str) -> None:
    """End the process from a thread, with a cause and a fix."""
    fix = "see the network and the hub's status page, then repeat: what was fetched is kept"
    print(f"cause: {cause}\nfix:   {fix}", file=sys.stderr, flush=True)
    os._exit(1)


def stop(cause: str, fix: str) -> NoReturn:
    """End in words."""
    sys.exit(f"cause: {cause}\nfix:   {fix}")


if __name__ == "__main__":
    main()
