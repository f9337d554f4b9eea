"""The settings that a fix names, as commands to paste.

A fix is a sentence for a person. What it says exactly (a flag with its value, a variable, a flag to
remove) is picked out of it, for vLLM's command line or for the config of a stack. Of alternatives
the first one counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vllm_spark.flags.history import KNOWN

_FLAG = r"(?P<flag>[a-z][a-z0-9]*(?:-[a-z0-9]+)*)"
_SET = re.compile(
    rf"(?<![\w./-]){_FLAG}(?::| to at (?:least|most)) (?P<value>true|false|\d[\d.]*|[A-Za-z]\w*)"
    r"(?![\w.]*[-/*])"
)
_OFF = re.compile(rf"\bset no-{_FLAG}")
_REMOVE = re.compile(
    r"\bremove (?P<flags>[a-z][a-z0-9]*(?:-[a-z0-9]+)+"
    r"(?:(?:,| and) [a-z][a-z0-9]*(?:-[a-z0-9]+)+)*)"
)
_VARIABLE = re.compile(r"\b(?P<name>[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)=(?P<value>[\w./:-]*\w)")


@dataclass(frozen=True)
class Change:
    """One setting to change. `name` is a flag or a variable; `value` is None to remove it."""

    name: str
    value: str | None

    @property
    def is_variable(self) -> bool:
        """Whether it is an environment variable of the container."""
        return self.name.isupper()


def changes_in(fix: str) -> list[Change]:
    """The changes of the first alternative that names any."""
    for option in re.split(r"; or |, or ", fix):
        if found := _changes_of(option):
            return found
    return []


def _changes_of(option: str) -> list[Change]:
    found: dict[str, Change] = {}
    for match in _REMOVE.finditer(option):
        for name in re.split(r", | and ", match["flags"]):
            if name in KNOWN:
                found[name] = Change(name, None)
    for match in _OFF.finditer(option):
        if match["flag"] in KNOWN:
            found[match["flag"]] = Change(match["flag"], "false")
    for match in _SET.finditer(option):
        if match["flag"] in KNOWN:
            found[match["flag"]] = Change(match["flag"], match["value"].rstrip("."))
    for match in _VARIABLE.finditer(option):
        found[match["name"]] = Change(match["name"], match["value"])
    return list(found.values())


def for_stack(change: Change, stack: str) -> str:
    """The command that changes a stack's config."""
    section = "container.environment" if change.is_variable else "engine"
    key = f"vllm-spark:{section}.{change.name}"
    if change.value is None:
        return f"pulumi config rm --path {key} --stack {stack}"
    return f"pulumi config set --path {key} {change.value} --stack {stack}"


def for_vllm(change: Change) -> str:
    """The argument of `vllm serve`, or of `docker run` for a variable."""
    if change.is_variable:
        return f"docker run -e {change.name}={change.value} ..."
    if change.value is None:
        return f"vllm serve ... (without --{change.name})"
    if change.value == "false":
        return f"vllm serve ... --no-{change.name}"
    return f"vllm serve ... --{change.name}" + (
        "" if change.value == "true" else f" {change.value}"
    )
