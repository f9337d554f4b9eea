"""Finds errors in a config's engine flags at preview, before a server dies of them.

vLLM needs 10 to 20 seconds to refuse a flag, and by then the old server is gone. The checks cover
only what vLLM refuses for every model, plus the flags that this program sets from its other keys.
The memory plan checks whether the numbers fit. The rules are those of vLLM's get_kwargs,
CacheConfig, SchedulerConfig and validate_parsed_serve_args, 0.10.1 to 0.33.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from vllm_spark.flags.argv import FlagValue, kind_of
from vllm_spark.flags.engine_flags import EngineFlags, FlagLine
from vllm_spark.flags.history import CHOICES, NEWEST, check_existence
from vllm_spark.images import Version
from vllm_spark.problems import Problem

_OWN = {
    "model": "write the model into vllm-spark:model.id",
    "revision": "write it into vllm-spark:model.revision",
    "served-model-name": "write it into vllm-spark:model.servedName",
    "host": "write the address into vllm-spark:endpoint.bind",
    "port": "write the port into vllm-spark:endpoint.port",
    "download-dir": "say where the weights are kept with vllm-spark:cache",
    "api-key": "run `pulumi config set --secret vllm-spark:apiKey`; an argument can be read in "
    "`docker inspect` and in vLLM's log",
    "hf-token": "run `pulumi config set --secret vllm-spark:huggingFaceToken`; an argument can be "
    "read in `docker inspect`",
}
"""Flags that other keys set, with the fix. No error shows their values: two are secret."""

_PLAIN_HTTP = (
    "the health gate, status and clients talk plain HTTP to the published port: remove it, and put "
    "a reverse proxy in front of the server where TLS is needed"
)
_UNREACHABLE = {
    **dict.fromkeys(
        ("ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "ssl-cert-reqs", "ssl-ciphers"),
        ("would make the server speak TLS", _PLAIN_HTTP),
    ),
    "enable-ssl-refresh": ("belongs to a server that speaks TLS", _PLAIN_HTTP),
    "uds": ("would make the server listen on a socket file and on no port", "remove it"),
    "grpc": ("would make the server speak gRPC instead of HTTP", "remove it"),
    "headless": (
        "starts no API server, so nothing would answer",
        "remove it; a second node of a server is not one of this program's",
    ),
    "config": (
        "names a file of flags that this program cannot read, and that may change port and model",
        "write its flags into vllm-spark:engine",
    ),
}
"""Flags with which nothing answers plain HTTP on the port, or that make it unknown: what they do,
and the fix. Read in vLLM's entrypoints (serve.py, launcher.py), 0.10.1 to 0.33."""

_AT_LEAST = {
    "api-server-count": 1,
    "block-size": 1,
    "cpu-offload-gb": 0,
    "data-parallel-size": 1,
    "kv-cache-memory-bytes": 1,
    "max-loras": 1,
    "max-model-len": 1,
    "max-num-batched-tokens": 1,
    "max-num-seqs": 1,
    "num-gpu-blocks-override": 1,
    "pipeline-parallel-size": 1,
    "tensor-parallel-size": 1,
}

_AUTO_LENGTH = Version.parse("0.14.0")
"""The first release in which max-model-len may be `auto` or -1."""

_CHUNKED_PREFILL_OPTIONAL = Version.parse("0.11.1")
"""In earlier releases, V1 chunks the prefill of every generative model, regardless of the flag."""

_NEEDS = {
    "enable-auto-tool-choice": ("tool-call-parser", "hermes for Qwen3"),
    "enable-log-outputs": ("enable-log-requests", "true"),
}


class Checked(NamedTuple):
    """The errors and the warnings about the flags of a config."""

    errors: list[Problem]
    warnings: list[Problem]


def check(flags: EngineFlags, *, version: Version | None) -> Checked:
    """All errors and all warnings about a config's engine flags, for one vLLM release.

    Without a version (a nightly or custom image), checks that depend on it are skipped.
    """
    errors: list[Problem] = list(_repeated(flags))
    warnings: list[Problem] = []
    for line in flags.lines:
        if line.name in _OWN:
            errors.append(Problem(line.where, "is set by vllm-spark itself", _OWN[line.name]))
            continue
        if line.problem is not None:
            errors.append(line.problem)
            continue
        if line.name in _UNREACHABLE and line.value is not False:
            errors.append(Problem(line.where, *_UNREACHABLE[line.name]))
            continue
        missing, unknown = check_existence(line.name, line.where, version)
        errors += missing
        warnings += unknown
        if (problem := _misfit(line.name, line.value, line.where, version)) is not None:
            errors.append(problem)
    return Checked(errors + list(_contradictions(flags, version)), warnings)


def _repeated(flags: EngineFlags) -> Iterator[Problem]:
    first: dict[str, FlagLine] = {}
    for line in flags.lines:
        if line.name in first:
            yield Problem(
                line.where,
                f"is the same flag as {first[line.name].written}, given twice",
                "keep one of the two",
            )
        first.setdefault(line.name, line)
    for name, line in first.items():
        head, dot, path = name.partition(".")
        if dot and head in first:
            yield Problem(
                line.where,
                f"sets a part of {head}, which is also given whole; vLLM would drop the whole",
                f"move {path} into {first[head].written}",
            )


def _misfit(name: str, value: FlagValue, where: str, version: Version | None) -> Problem | None:
    """A value that vLLM's parser, or its config classes for every model, would refuse."""
    match kind_of(name):
        case "bool" | "store_true" if not isinstance(value, bool):
            return Problem(
                where, f"{value!r} is neither true nor false", "write true or false, unquoted"
            )
        case "int" | "human_int" | "float":
            return _bad_number(name, value, where, version)
        case "json" if isinstance(value, bool | int | float):
            return Problem(where, f"{value!r} is not an object", "write an object: {key: value}")
        case "list" | "append" if isinstance(value, bool):
            return Problem(where, f"{value!r} is not a list", "write a list: [first, second]")
        case "text" if isinstance(value, bool | list | dict):
            return Problem(where, f"{value!r} is not a text", "write one word or text")
        case "text" if name in CHOICES:
            return _bad_choice(name, str(value), where, version)
    return None


def _bad_number(name: str, value: FlagValue, where: str, version: Version | None) -> Problem | None:
    if name == "max-model-len" and is_auto_length(value):
        if version is None or version >= _AUTO_LENGTH:
            return None
        return Problem(
            where,
            f"{value!r} is understood since vLLM {_AUTO_LENGTH}, and the image holds {version}",
            "write the length in tokens, such as 32768",
        )
    found = _number(name, value)
    if found is None:
        kind = "a number" if kind_of(name) == "float" else "a whole number"
        suffixes = ", or with k for 1,000 or K for 1,024" if kind_of(name) == "human_int" else ""
        return Problem(where, f"{value!r} is not {kind}", f"write {kind}, without unit{suffixes}")
    if name == "gpu-memory-utilization" and not 0 < found <= 1:
        return Problem(
            where,
            f"{value!r} is not a share of the device's memory",
            "write a number above 0 and up to 1, such as 0.85",
        )
    least = _AT_LEAST.get(name)
    if least is not None and found < least:
        return Problem(where, f"{value!r} is too small", f"write {least} or more")
    return None


def _number(name: str, value: FlagValue) -> float | None:
    """The number that vLLM reads; None if it would refuse. A quoted number is a number."""
    if kind_of(name) != "float":
        whole = integer(value)
        suffixed = isinstance(value, str) and value.strip()[-1:].isalpha()
        return None if suffixed and kind_of(name) == "int" else whole
    try:
        found = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) and not isinstance(value, bool) else None


def integer(value: FlagValue) -> int | None:
    """A whole number as vLLM reads it: 32768, "32768", 32k (32,000), 25.6k, 32K (32,768)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, int | float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt])|(\d+)([KMGT])|(-?\d+)", value.strip())
    if match is None:
        return None
    decimal, thousands, binary, ki, plain = match.groups()
    if decimal is not None:
        return int(float(decimal) * 1000 ** (1 + "kmgt".index(thousands)))
    return int(binary) * 1024 ** (1 + "KMGT".index(ki)) if binary is not None else int(plain)


def is_auto_length(value: FlagValue) -> bool:
    """Whether this max-model-len makes vLLM use the longest length that fits."""
    return str(value).lower() == "auto" or integer(value) == -1


def _bad_choice(name: str, value: str, where: str, version: Version | None) -> Problem | None:
    choices = CHOICES[name]
    added = choices.get(value)
    if added is not None:
        if version is None or added <= version:
            return None
        return Problem(
            where,
            f"{value!r} is understood since vLLM {added}, and the image holds {version}",
            f"take an image with vLLM {added} or newer, or another value",
        )
    if version is not None and version > NEWEST:
        return None
    near = difflib.get_close_matches(value, choices, n=1)
    return Problem(
        where,
        f"{value!r} is none of the words that vLLM takes here",
        f"write {near[0]}" if near else f"write one of {', '.join(choices)}",
    )


def _contradictions(flags: EngineFlags, version: Version | None) -> Iterator[Problem]:
    values = {line.name: line.value for line in flags.lines}
    where = {line.name: line.where for line in flags.lines}
    for flag, (needed, example) in _NEEDS.items():
        if values.get(flag) is True and not values.get(needed):
            yield Problem(where[flag], f"needs {needed} beside it", f"add {needed}: {example}")
    batched = integer(values.get("max-num-batched-tokens"))
    sequences = integer(values.get("max-num-seqs"))
    length = integer(values.get("max-model-len"))
    if batched is not None and sequences is not None and batched < sequences:
        yield Problem(
            where["max-num-batched-tokens"],
            f"{batched} is less than max-num-seqs, {sequences}; each sequence needs one token",
            f"set it to at least {sequences}",
        )
    unchunked = values.get("enable-chunked-prefill") is False and (
        version is None or version >= _CHUNKED_PREFILL_OPTIONAL
    )
    if unchunked and batched is not None and length is not None and batched < length:
        yield Problem(
            where["max-num-batched-tokens"],
            f"{batched} is less than max-model-len, {length}, and without chunked prefill a "
            "prompt has to fit into one batch",
            f"set it to at least {length}, or enable-chunked-prefill: true",
        )
