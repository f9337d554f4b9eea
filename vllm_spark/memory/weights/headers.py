"""Bytes of a checkpoint by role and format, from the headers of its safetensors files.

A header lists every tensor with its format, shape and place in the file, so a few hundred kilobytes
tell what sixty gigabytes hold. What a header says is checked against itself and against the size
of its file: a cut or made-up one is an error, never a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vllm_spark.errors import HubError
from vllm_spark.memory.weights.stored import StoredRole, StoredWeights

FORMAT_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16,
    "I16": 16, "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of an element, by the names of the safetensors format."""

LONGEST_HEADER = 100_000_000
"""Bytes of JSON that the safetensors library reads at most."""

_VISION = ("visual", "vision", "vit.", "image_", "multi_modal_projector", "mm_projector",
           "patch_merge", "audio", "embed_vision", "embed_audio")  # fmt: skip
_EMBEDDINGS = (
    "embed_tokens.",
    "embeddings.",
    "embed.",
    "wte.",
    "word_embeddings.",
    "tok_embeddings.",
)
_OUTPUTS = ("lm_head.", "output.", "head.")
_ATTENTION = ("attn.", "attention.", ".mixer.", "conv.", "kda.")


_FIRST_BYTES = 100_000
"""Enough for most headers, so that one request does."""


@dataclass(frozen=True)
class Tensor:
    """What a header says of a tensor: its format, and its place in the file's data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The header of one file, which accounts for every byte of it."""

    file: str
    tensors: Mapping[str, Tensor]


def read_header(file: str, file_bytes: int, read: Callable[[int, int], bytes]) -> Header:
    """Read a header. `read` gives the bytes of the file from one position up to another.

    HubError for a header that is none, that contradicts itself, or that the file is too short or
    too long for.
    """
    start = read(0, min(_FIRST_BYTES, file_bytes)) if file_bytes else b""
    length = int.from_bytes(start[:8], "little")
    if file_bytes <= 8 or not 0 < length <= LONGEST_HEADER:
        raise _false(file, f"is not that of a safetensors file (it begins with {start[:16]!r})")
    if length > file_bytes - 8:
        raise _false(file, f"is cut off: the file has {file_bytes:,} bytes")
    text = start[8 : 8 + length] if 8 + length <= len(start) else read(8, 8 + length)
    try:
        content = json.loads(text)
        content.pop("__metadata__", None)
        tensors = {
            name: Tensor(str(entry["dtype"]), tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in content.items()
        }
        end = max((tensor.end for tensor in tensors.values()), default=0)
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise _false(file, "is not that of a safetensors file") from error
    for name, tensor in tensors.items():
        _check(file, name, tensor)
    if end != file_bytes - 8 - length:
        raise _false(
            file,
            f"speaks of {8 + length + end:,} bytes in all, and the file has {file_bytes:,}",
        )
    return Header(file, tensors)


def weights_in(headers: Iterable[Header], layers: int) -> StoredWeights:
    """Bytes by role and format.

    `layers` is num_hidden_layers: some checkpoints number their drafting modules above it.
    """
    by_role: dict[StoredRole, dict[str, int]] = {}
    for header in headers:
        for name, tensor in header.tensors.items():
            formats = by_role.setdefault(role_of(name, layers), {})
            size = tensor.end - tensor.begin
            formats[tensor.dtype] = formats.get(tensor.dtype, 0) + size
    return StoredWeights(by_role)


def role_of(name: str, layers: int) -> StoredRole:
    """What a tensor is for, by its name."""
    if any(part in name for part in _VISION):
        return "vision"
    if _is_draft(name, layers):
        return "drafts"
    if ".experts." in name:
        return "experts"
    last_two = ".".join(name.split(".")[-2:])
    if ".layers." not in f".{name}":
        if any(last_two.startswith(part) or f".{part}" in name for part in _EMBEDDINGS):
            return "embedding"
        if any(name.startswith(part) or f".{part}" in name for part in _OUTPUTS):
            return "output"
    return "attention" if any(part in name for part in _ATTENTION) else "other"


def _is_draft(name: str, layers: int) -> bool:
    parts = name.split(".")
    if "mtp" in parts or any(part.startswith(("mtp_", "eagle")) for part in parts):
        return True
    if "layers" not in parts[:-1]:
        return False
    number = parts[parts.index("layers") + 1]
    return number.isdecimal() and int(number) >= layers


def _check(file: str, name: str, tensor: Tensor) -> None:
    bits = FORMAT_BITS.get(tensor.dtype)
    if bits is None:
        raise _false(file, f"names the unknown format {tensor.dtype!r} for {name}")
    expected = math.ceil(math.prod(tensor.shape) * bits / 8)
    if tensor.begin < 0 or tensor.end - tensor.begin != expected:
        raise _false(
            file,
            f"gives {name} {tensor.end - tensor.begin:,} bytes, and its shape and format need "
            f"{expected:,}",
        )


def _false(file: str, what: str) -> HubError:
    return HubError(
        f"{file}: its header {what}\n    fix: take another revision of the repository, or ask its "
        "owner to upload the file again"
    )
