"""vLLM's own flags, from a stack's config to the server's argv and back.  (first version)"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

FlagValue = bool | int | float | str | list["FlagValue"] | dict[str, "FlagValue"] | None

_ALIASES = {
    "-tp": "tensor-parallel-size", "-pp": "pipeline-parallel-size", "-dp": "data-parallel-size",
    "-q": "quantization", "-cc": "compilation-config", "-O": "optimization-level",
}  # fmt: skip
_JSON_LISTS = {"allowed-origins", "allowed-methods", "allowed-headers"}
_LISTS = {"served-model-name"}


def canonical(name: str) -> str:
    """`--max_num_seqs`, `max_num_seqs` and `max-num-seqs` are one flag: the last."""
    stem, dot, rest = name.partition(".")
    stem = _ALIASES.get(stem, stem.removeprefix("--").replace("_", "-"))
    return stem + dot + rest


def _plain(value: FlagValue) -> FlagValue:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _text(value: FlagValue) -> str:
    value = _plain(value)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def to_argv(flags: Mapping[str, FlagValue]) -> list[str]:
    """The arguments for `vllm serve`, in the order of the config."""
    argv: list[str] = []
    for raw, value in flags.items():
        name = canonical(raw)
        if isinstance(value, bool) and "." not in name:
            if name.startswith("no-"):
                name, value = name[3:], not value
            argv.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list) and "." not in name and name not in _JSON_LISTS:
            argv += [f"--{name}", *(_text(item) for item in value)]
        elif _text(value).startswith("-"):
            argv.append(f"--{name}={_text(value)}")
        else:
            argv += [f"--{name}", _text(value)]
    return argv


def _value(text: str) -> FlagValue:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        pass
    if text[:1] in "{[":
        try:
            parsed: FlagValue = json.loads(text)
            return parsed
        except ValueError:
            pass
    return text


def from_argv(argv: Sequence[str]) -> dict[str, FlagValue]:
    """The flags that an argv means."""
    flags: dict[str, FlagValue] = {}
    rest = list(argv)
    while rest:
        name, equals, given = rest.pop(0).partition("=")
        values = [given] if equals else []
        while rest and not re.match(r"--?[A-Za-z]", rest[0]):
            values.append(rest.pop(0))
        name = canonical(name)
        if not values and name.startswith("no-"):
            flags[name[3:]] = False
        elif not values:
            flags[name] = True
        elif len(values) > 1 or name in _LISTS:
            flags[name] = [_value(text) for text in values]
        else:
            flags[name] = _value(values[0])
    return flags
