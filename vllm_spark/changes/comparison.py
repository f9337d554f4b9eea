"""Compares one stack at two versions, in the words of its config.

The config is compared as `Settings` reads it, so another spelling of the same flag is no change.
Where one of the two is refused, both are compared as written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vllm_spark.changes.about import about
from vllm_spark.changes.report import (
    MOST_ENTRIES,
    ConfigChange,
    Finding,
    ImageVersion,
    Memory,
    PolicyException,
    StackChange,
)
from vllm_spark.changes.stack_version import StackVersion
from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import SECRETS
from vllm_spark.deployment.config_diff import differences
from vllm_spark.memory.report import output_of
from vllm_spark.problems import Problem

_SECRET_KEYS = {f"{NAMESPACE}:{key}" for key in SECRETS}
_SECRET = re.compile(
    rf"(?i)(?:{'|'.join(SECRETS)})\b"
    r"|engine\W.*(?:api-?key|token(?!iz|s)|passw|secret)"
    r"|container\.environment\W.*(?:key|token|secret|passw|passphrase|credential|auth)"
)


def compare(before: StackVersion | None, after: StackVersion | None) -> StackChange:
    """What differs, apart from what the engine would do. One of the two may be missing."""
    known = after or before
    assert known is not None, "a stack is in one of the two versions"
    old, new = before or StackVersion(known.name), after or StackVersion(known.name)
    as_read = all(side is None or side.settings or not side.refusals for side in (before, after))
    shown = [_shown(side, as_read=as_read) for side in (old, new)]
    changes = [
        ConfigChange(
            key=one.key,
            old=_told(one.key, one.old),
            new=_told(one.key, one.new),
            about=about(one.key),
        )
        for one in differences(shown[0], shown[1])
    ]
    unknowns = []
    if len(changes) > MOST_ENTRIES:
        unknowns.append(f"{len(changes) - MOST_ENTRIES} more changed keys are not listed here.")
    if "environment" in new.content:
        unknowns.append("Values from a Pulumi ESC environment are not known here.")
    if before is not None and before.refusals:
        unknowns.append(
            f"The base is refused by this release, so its plan may be missing: {before.refusals[0]}"
        )
    return StackChange(
        name=known.name,
        status=_status(before, after),
        changes=changes[:MOST_ENTRIES],
        image_before=_image(before),
        image_after=_image(after),
        memory_before=_memory(before),
        memory_after=_memory(after),
        new_warnings=findings(_new(new.warnings, old.warnings)),
        new_refusals=findings(new.refusals),
        exceptions=_exceptions(after),
        unknowns=unknowns,
    )


def findings(problems: Iterable[Problem]) -> list[Finding]:
    """As many of them as a report takes."""
    return [Finding.of(problem) for problem in problems][:MOST_ENTRIES]


def _status(before: StackVersion | None, after: StackVersion | None) -> Any:
    if after is None:
        return "gone"
    if after.refusals:
        return "refused"
    return "new" if before is None else "changed"


def _shown(stack: StackVersion, *, as_read: bool) -> dict[str, Any]:
    """The config to compare, with marks for encrypted values."""
    config = dict(stack.config)
    if as_read and stack.settings is not None:
        declared = stack.settings.declared()
        declared["engine"] = dict(stack.settings.engine)
        ours = {f"{NAMESPACE}:{key}": value for key, value in declared.items()}
        others = {
            key: value
            for key, value in config.items()
            if not key.startswith(f"{NAMESPACE}:") or key in _SECRET_KEYS
        }
        config = {**ours, **others}
    return {str(key): _marked(value) for key, value in config.items()}


def _marked(value: Any) -> Any:
    """The value with a mark for each secret, which follows from the ciphertext alone."""
    if isinstance(value, Mapping) and "secure" in value:
        mark = hashlib.sha256(str(value["secure"]).encode(errors="replace")).hexdigest()[:8]
        return f"(secret, encrypted as {mark})"
    if isinstance(value, Mapping):
        return {str(name): _marked(inner) for name, inner in value.items()}
    return [_marked(inner) for inner in value] if isinstance(value, list) else value


def _told(key: str, text: str | None) -> str | None:
    """The value for a reader: not that of a secret that somebody wrote down in plain text."""
    if text is None or not _SECRET.match(key):
        return text
    # The redaction by the key's name may have masked the beginning of the mark.
    mark = re.search(r"encrypted as [0-9a-f]{8}\)$", text)
    return f"(secret, {mark[0]}" if mark else "(not shown)"


def _exceptions(stack: StackVersion | None) -> list[PolicyException]:
    """Those that hold after the change, whether it adds them or not."""
    if stack is None or stack.settings is None:
        return []
    told = stack.settings.policy.exceptions[:MOST_ENTRIES]
    return [PolicyException(rule=one.rule, reason=one.reason) for one in told]


def _image(stack: StackVersion | None) -> ImageVersion | None:
    if stack is None or stack.settings is None:
        return None
    image = stack.settings.image
    version = str(image.version) if image.version else None
    return ImageVersion(name=image.name, digest=image.reference.digest, vllm=version)


def _memory(stack: StackVersion | None) -> Memory | None:
    if stack is None or stack.plan is None:
        return None
    told = output_of(stack.plan)
    fits: Any = told["fits"] or "unknown"
    numbers = {key: float(value) for key, value in told.items() if isinstance(value, int | float)}
    return Memory(fits=fits, numbers=numbers, reason=str(told.get("notModelled") or ""))


def _new(now: Iterable[Problem], before: Iterable[Problem]) -> list[Problem]:
    """The problems that were not there before, whatever the numbers in them."""
    known = {_without_numbers(problem) for problem in before}
    return [problem for problem in now if _without_numbers(problem) not in known]


def _without_numbers(problem: Problem) -> tuple[str, str]:
    return problem.where, re.sub(r"\d[\d.,]*", "0", problem.what)
