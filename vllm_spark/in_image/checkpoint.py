"""Checks a model's files before vLLM loads them, and reports missing and broken ones.

vLLM finds such faults half a minute into a start, with errors that name no file, or never: 0.26
accepts missing tensors silently, and without tokenizer files it answers 200 on /health and 400 to
every completion. Unknown forms of weights or tokenizers are accepted, because a newer vLLM may
support them.

It runs where the cache is mounted, because a Docker volume cannot be read from the host: its text
goes through stdin to the Python of the vLLM image. So it imports only the standard library, and has
`Finding` instead of `vllm_spark.problems.Problem`.

    docker run --rm -i --volume CACHE:/cache --entrypoint python3 IMAGE - /cache OWNER/NAME \
        < vllm_spark/in_image/checkpoint.py
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

PARTS = ("config", "weights", "tokenizer")

INDEXES = {
    "consolidated*.safetensors": "consolidated.safetensors.index.json",
    "*.safetensors": "model.safetensors.index.json",
    "pytorch_model*.bin": "pytorch_model.bin.index.json",
}
"""Forms of weights that a repository may have together, each with its index. The form that vLLM
reads depends on its version and --load-format, so one complete form is enough."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".tensors")
OF_THE_TRAINER = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
"""What vLLM passes over, too."""

TOKENIZERS = (
    "tokenizer.json",  # every fast tokenizer
    "tekken.json",  # Mistral
    "*.model*",  # SentencePiece: tokenizer.model, tokenizer.model.v3, spiece.model
    "*.tiktoken",
    "*vocab*.txt",
    "*tokeniz*.py",  # the model's own code, with files of any name
)
"""One of these is enough, or vocab.json with merges.txt, anywhere in the repository."""

WITHOUT_FILES = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
"""Tokenizers of bytes or characters, which need no vocabulary file."""

READ_AS_JSON = (
    "config.json", "params.json", "preprocessor_config.json", "tokenizer.json",
    "tokenizer_config.json", "vocab.json", "tekken.json", *INDEXES.values(),
)  # fmt: skip
"""Files without which a start fails. vLLM ignores a generation_config.json that it cannot read."""

LONGEST_HEADER = 100_000_000
"""Bytes of JSON that the safetensors library reads at most."""

_NUMBERED = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.(?P<suffix>\w+)")
_SHOWN = 3
_REPEAT = "repeat the command with the hub in reach: `hf download` fetches what is missing"


class Finding(NamedTuple):
    """A fault and its fix. `where` is a file of the snapshot, or the snapshot."""

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n    fix: {self.fix}"


class _Broken(Exception):
    """A file is not what its name says; the text is a predicate."""


def findings(snapshot: Path, without: Collection[str] = ()) -> list[Finding]:
    """The faults that prevent this model from being served. `without`: PARTS kept elsewhere."""
    found: list[Iterable[Finding]] = [_unreadable(snapshot)]
    if "config" not in without:
        found.append(_config(snapshot))
    if "weights" not in without:
        found.append(_weights(snapshot))
    if "tokenizer" not in without:
        found.append(_tokenizer(snapshot))
    return list(chain.from_iterable(found))


def kept_elsewhere(flags: Mapping[str, object]) -> list[str]:
    """The PARTS that vLLM does not take from the model's repository with these flags."""
    reads = ("auto", "hf", "safetensors", "fastsafetensors", "instanttensor", "mistral")
    told = {
        "config": "hf-config-path" in flags,
        "weights": flags.get("load-format", "auto") not in reads,
        "tokenizer": "tokenizer" in flags or bool(flags.get("skip-tokenizer-init")),
    }
    return [part for part in PARTS if told[part]]


def snapshot_of(cache: Path, model: str, revision: str) -> Path | None:
    """The model's folder in the hub's cache, where refs/<branch or tag> names the commit."""
    repository = cache / f"models--{model.replace('/', '--')}"
    ref = repository / "refs" / revision
    snapshot = repository / "snapshots" / (ref.read_text().strip() if ref.is_file() else revision)
    return snapshot if snapshot.is_dir() else None


def tensors_in(path: Path) -> set[str]:
    """The names in a safetensors file's header, which must account for every byte of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or not 0 < length <= LONGEST_HEADER:
            begins = f"it begins with {start!r}" if size else "it is empty"
            raise _Broken(f"is not a safetensors file ({begins})")
        if length > size - 8:
            raise _Broken(f"is cut off after {size:,} bytes, within its header")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        missing = end - (size - 8 - length)
    except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError):
        raise _Broken("has a header that is not that of a safetensors file") from None
    if missing > 0:
        raise _Broken(f"is cut off: {size:,} of {size + missing:,} bytes are there")
    if missing < 0:
        raise _Broken(f"is {-missing:,} bytes longer than its header says")
    return set(header)


def _unreadable(snapshot: Path) -> Iterator[Finding]:
    """Small files that are not JSON, or links whose target is gone."""
    for name in READ_AS_JSON:
        path = snapshot / name
        try:
            if path.is_symlink() or path.exists():
                json.loads(path.read_bytes())
        except FileNotFoundError:
            yield Finding(name, "is a link to a blob that is gone", _REPEAT)
        except OSError as error:
            yield Finding(name, f"cannot be read: {error.strerror}", _fetched_again(path))
        except (ValueError, RecursionError):
            yield Finding(name, f"is not valid JSON ({_beginning(path)})", _fetched_again(path))


def _config(snapshot: Path) -> Iterator[Finding]:
    if not any(_names(snapshot, "config.json", "params.json", "*.gguf")):
        what = "is not there, so this is no model that vLLM can load, or not all of it"
        yield Finding("config.json", what, f"check the model's id, then {_REPEAT}")


def _weights(snapshot: Path) -> list[Finding]:
    """Files that are missing or broken. One form with all its files excuses gaps in another."""
    gaps: list[list[Finding]] = []
    broken: list[Finding] = []
    seen: set[str] = set()
    for pattern, index in INDEXES.items():
        names = set(_names(snapshot, pattern)) - seen
        seen |= names
        indexed = _indexed(snapshot / index)
        wanted = indexed or {name: [] for name in names | _numbered(names)}
        absent = [name for name in sorted(wanted) if not (snapshot / name).exists()]
        if wanted:
            gaps.append([_gap(snapshot, index if indexed else ".", absent)] if absent else [])
        for name in sorted(set(wanted) - set(absent)):
            broken += _shard(snapshot / name, name, wanted[name], index)
    if gaps:
        return broken + (list(chain.from_iterable(gaps)) if all(gaps) else [])
    others = {path.name for path in snapshot.rglob("*") if path.suffix in WEIGHTS}
    if others - set(OF_THE_TRAINER):
        return []
    fix = f"see that the repository has *.safetensors (not only *.gguf, say), then {_REPEAT}"
    return [Finding(".", "there are no weights", fix)]


def _gap(snapshot: Path, where: str, absent: Sequence[str]) -> Finding:
    unfinished = len(list((snapshot.parents[1] / "blobs").glob("*.incomplete")))
    also = f"; {unfinished} downloads of this model were not finished" if unfinished else ""
    what = f"{len(absent)} weight files are not there: {_some(absent)}{also}"
    return Finding(where, what, _REPEAT)


def _shard(path: Path, name: str, wanted: Collection[str], index: str) -> Iterator[Finding]:
    """What is wrong with one weight file. The inside of *.bin is Python's own: not looked at."""
    if path.suffix != ".safetensors":
        return
    try:
        lost = sorted(set(wanted) - tensors_in(path))
    except _Broken as fault:
        yield Finding(name, str(fault), _fetched_again(path))
    except OSError as error:
        yield Finding(name, f"cannot be read: {error.strerror}", _fetched_again(path))
    else:
        if lost:
            what = f"lacks {len(lost)} tensors that {index} says it holds: {_some(lost)}"
            yield Finding(name, what, _fetched_again(path, path.with_name(index)))


def _indexed(path: Path) -> dict[str, list[str]]:
    """Which tensors each file holds, as an index tells; empty without a readable index."""
    files: dict[str, list[str]] = {}
    weight_map = _object(path).get("weight_map")
    for tensor, file in weight_map.items() if isinstance(weight_map, dict) else ():
        files.setdefault(str(file), []).append(tensor)
    return files


def _numbered(names: Iterable[str]) -> set[str]:
    """All names of a set of shards of which some are there: `model-00001-of-00004.safetensors`."""
    return {
        f"{shard['stem']}-{number:05}-of-{shard['count']}.{shard['suffix']}"
        for name in names
        if (shard := _NUMBERED.fullmatch(name))
        for number in range(1, int(shard["count"]) + 1)
    }


def _tokenizer(snapshot: Path) -> Iterator[Finding]:
    settings = _object(snapshot / "tokenizer_config.json")
    # A link that leads nowhere is no file; if it was to be JSON, that has been said.
    there = {
        path.name for path in snapshot.rglob("*") if path.is_file() or path.name in READ_AS_JSON
    }
    if (
        {"vocab.json", "merges.txt"} <= there
        or any(Path(name).match(form) for name in there for form in TOKENIZERS)
        or "auto_map" in settings
        or settings.get("tokenizer_class") in WITHOUT_FILES
    ):
        return
    yield Finding(
        "tokenizer.json",
        "is not there, nor any other form of a tokenizer (tokenizer.model, vocab.json with "
        "merges.txt, tekken.json, ...): vLLM would fail, or serve and refuse every request",
        f"{_REPEAT}; if the repository has no tokenizer, take one that has, or set "
        "vllm-spark:engine.tokenizer",
    )


def _names(snapshot: Path, *patterns: str) -> Iterator[str]:
    """Top-level files of these names, those too whose link leads nowhere."""
    for path in snapshot.iterdir():
        if any(path.match(pattern) for pattern in patterns):
            yield path.name


def _object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; an empty one if there is none. `_unreadable` says why."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _beginning(path: Path) -> str:
    """What a file is instead of itself, mostly: an error page, a Git LFS pointer, nothing."""
    with path.open("rb") as file:
        start = file.read(40)
    return f"it begins with {start!r}" if start else "it is empty"


def _fetched_again(*paths: Path) -> str:
    """The fix of a broken file. Its blob must go: while that is there, the link is just remade."""
    gone = " and ".join(str(path.resolve()) for path in paths)
    return f"delete {gone} and repeat the command: `hf download` fetches it again"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if nothing was found, else 1 with the findings on stderr."""
    parser = argparse.ArgumentParser(prog="checkpoint", description=__doc__)
    parser.add_argument("cache", type=Path, help="a cache of the Hugging Face hub")
    parser.add_argument("model", help="owner/name")
    parser.add_argument("revision", nargs="?", default="main")
    parser.add_argument("--without", action="append", default=[], choices=PARTS)
    given = parser.parse_args(arguments)
    snapshot = snapshot_of(given.cache, given.model, given.revision)
    if snapshot is None:
        what = f"there is no snapshot of its revision {given.revision} in {given.cache}"
        found = [Finding(given.model, what, _REPEAT)]
    else:
        found = findings(snapshot, given.without)
    if found:
        print(f"{given.model} cannot be served from what is in the cache:", file=sys.stderr)
    for number, finding in enumerate(found, start=1):
        print(f"{number}. {finding}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
