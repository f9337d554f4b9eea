"""Compares two configs: the differences, and the commands that turn one into the other."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vllm_spark.config.sections import NAMESPACE
from vllm_spark.redaction import redacted

_TYPES = {bool: "bool", int: "int", float: "float"}

_LONGEST = 2000

Config = Mapping[str, Any]
"""A stack's config: values by full key, such as `vllm-spark:engine`."""


@dataclass(frozen=True)
class Difference:
    """One value that differs, without known secrets; None where the key is not set."""

    key: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        """A line for a reader: `~ engine.max-num-seqs: 64 => 128`."""
        if self.new is None:
            return f"- {self.key}: {self.old}"
        if self.old is None:
            return f"+ {self.key}: {self.new}"
        return f"~ {self.key}: {self.old} => {self.new}"


def differences(old: Config, new: Config) -> list[Difference]:
    """The differences, a value each, in the order of their keys."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    found = []
    for path in _in_order(before, after):
        key = _dotted(path).removeprefix(f"{NAMESPACE}:")[:_LONGEST]
        told = [
            _without_secret(key, _text(side[path])) if path in side else None
            for side in (before, after)
        ]
        if (path in before, before.get(path)) != (path in after, after.get(path)):
            found.append(Difference(key, *told))
    return found


def commands(old: Config, new: Config, stack: str) -> list[str]:
    """The commands that turn config file `old` into `new`; they leave secrets unchanged."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    removed = [path for path in reversed(_in_order(before)) if path not in after]
    lines = [f"pulumi config rm --stack {stack} --path {_quoted(path)}" for path in removed]
    for path in _in_order(after):
        value = after[path]
        if path in before and before[path] == value:
            continue
        type_ = _TYPES.get(type(value), "string")
        told = f"{_dotted(path)}: {_text(value)}"
        if redacted(told) != told:
            lines.append(f"# {_dotted(path)} looks like a secret, which is not shown: by hand")
        else:
            lines.append(
                f"pulumi config set --stack {stack} --path {_quoted(path)} --type {type_}"
                f" -- {shlex.quote(_text(value))}"
            )
    return lines


Path = tuple[str | int, ...]


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is neither an object nor a list, with its path."""
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _in_order(*leaves: Mapping[Path, Any]) -> list[Path]:
    return sorted({path for one in leaves for path in one}, key=_dotted)


def _dotted(path: Path) -> str:
    """A path in the syntax of `pulumi config set --path`."""
    first, *rest = path
    steps = [
        f"[{step}]"
        if isinstance(step, int)
        else (f".{step}" if re.fullmatch(r"[\w-]+", step) else f'["{step}"]')
        for step in rest
    ]
    return f"{first}{''.join(steps)}"


def _without_secret(key: str, text: str) -> str:
    """The value, redacted by its key as well. It is cut first, for the sake of the patterns."""
    told = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return redacted(f"{key}: {told}").removeprefix(f"{key}: ")


def _quoted(path: Path) -> str:
    return shlex.quote(_dotted(path))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
