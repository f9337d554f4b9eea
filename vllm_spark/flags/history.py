"""The flags that `vllm serve` has in each release, and the successors of removed ones.

vLLM renames and removes flags in most releases, and refuses to start with an unknown one: 10 to 15
seconds after the old server has been stopped. So a config is compared with the release in its image
before anything changes. The facts are in `flags.yaml`.

A flag that is not in the table is not an error: newer releases and patched builds have flags that
the table lacks, and the image's own parser checks them later anyway.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from vllm_spark.images import Version
from vllm_spark.problems import Problem

WHERE = "vllm-spark:engine"
"""The config key of the flags."""

Kind = Literal[
    "bool", "store_true", "int", "human_int", "float", "text", "list", "append", "json"
]  # fmt: skip
"""How vLLM's parser reads a flag's value; `flags.yaml` explains each."""


@dataclass(frozen=True)
class Flag:
    """A flag's history. `added` is None if as old as the table, `removed` if it still exists."""

    kind: Kind
    added: Version | None = None
    removed: Version | None = None
    successor: str | None = None
    note: str | None = None

    def exists_in(self, version: Version) -> bool:
        """Whether this release has the flag."""
        return (self.added is None or self.added <= version) and (
            self.removed is None or version < self.removed
        )


def _flag(entry: str | dict[str, Any]) -> Flag:
    fields: dict[str, Any] = {"kind": entry} if isinstance(entry, str) else dict(entry)
    for date in {"added", "removed"} & fields.keys():
        fields[date] = Version.parse(fields[date])
    return Flag(**fields)


# The C loader, if PyYAML has it, takes 10 ms of every preview instead of 80 ms.
_DATA = yaml.load(
    Path(__file__).with_name("flags.yaml").read_text(),
    Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),
)

NEWEST: Version = Version.parse(_DATA["newest"])
"""The last release in the table."""

KNOWN: Mapping[str, Flag] = {
    name: _flag(entry) for name, entry in {**_DATA["flags"], **_DATA["removed"]}.items()
}
"""Every flag of `vllm serve` from 0.10.1 to `NEWEST`, by its name without dashes in front."""

CHOICES: Mapping[str, Mapping[str, Version]] = {
    flag: {choice: Version.parse(added) for choice, added in choices.items()}
    for flag, choices in _DATA["choices"].items()
}
"""The words that some flags take, each with the first release that takes it."""

ABOUT: Mapping[str, str] = _DATA["about"]
"""What each of the common flags is for, in one line."""


def check_existence(
    name: str, where: str, version: Version | None
) -> tuple[list[Problem], list[Problem]]:
    """Errors and warnings about a flag that this release does not have.

    `name` is canonical; of a dotted name the part before the first dot is looked up. If the version
    is not known, only flags that no release or no newer release has are reported, as warnings.
    """
    head = name.split(".")[0]
    flag = KNOWN.get(head)
    if flag is None:
        return [], [_unknown(head, where, version)]
    if flag.removed is not None and (version is None or version >= flag.removed):
        problem = _removed(flag, where, version)
        return ([problem], []) if version is not None else ([], [problem])
    if flag.added is not None and version is not None and version < flag.added:
        return [_added_later(name, flag.added, where, version)], []
    return [], []


def _unknown(name: str, where: str, version: Version | None) -> Problem:
    available = [
        known for known, flag in KNOWN.items() if flag.exists_in(version if version else NEWEST)
    ]
    near = difflib.get_close_matches(name, available, n=1)
    return Problem(
        where,
        f"no vLLM from 0.10.1 to {NEWEST} has a flag of this name; it is passed on, "
        "and the image's own parser decides",
        f"write {near[0]} if you meant that" if near else "check its spelling",
    )


def _removed(flag: Flag, where: str, version: Version | None) -> Problem:
    holds = f"the image holds {version}" if version else "which vLLM the image holds is not known"
    successor = KNOWN.get(flag.successor.split(".")[0]) if flag.successor else None
    if successor is not None and successor.exists_in(version or NEWEST):
        fix = f"write {flag.successor} instead"
    else:
        fix = "remove it"
    return Problem(
        where,
        f"vLLM has removed this flag in {flag.removed}, and {holds}",
        f"{fix}; {flag.note}" if flag.note else fix,
    )


def _added_later(name: str, added: Version, where: str, version: Version) -> Problem:
    before = [
        old for old, flag in KNOWN.items() if flag.successor == name and flag.exists_in(version)
    ]
    instead = f"write {before[0]}" if before else "remove it"
    return Problem(
        where,
        f"vLLM has this flag since {added}, and the image holds {version}",
        f"{instead}, or take an image with vLLM {added} or newer",
    )
