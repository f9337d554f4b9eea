"""Which of a rule's fixes the release in the log can follow.

A flag that the release does not have ends the next start in 15 seconds, and an environment variable
that it does not read changes nothing. So an alternative that names either is offered only where the
release has it: flags by the project's table (`vllm_spark.flags`), variables by the one below.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vllm_spark.flags.argv import canonical
from vllm_spark.flags.history import CHOICES, KNOWN, check_existence
from vllm_spark.images import Version

VARIABLES: dict[str, tuple[str, str]] = {
    "VLLM_ATTENTION_BACKEND": ("", "0.15"),
    "VLLM_ENGINE_READY_TIMEOUT_S": ("0.14", ""),
    "VLLM_FLASH_ATTN_VERSION": ("", "0.15"),
    "VLLM_MXFP4_USE_MARLIN": ("0.11", "0.24"),
    "VLLM_NVFP4_GEMM_BACKEND": ("0.12", "0.24"),
    "VLLM_TEST_FORCE_FP8_MARLIN": ("", "0.29"),
    "VLLM_USE_FLASHINFER_MOE_FP4": ("", "0.24"),
}
"""Variables that not every release reads: the first that does and the first that does not any more,
"" for none. Source: `vllm/envs.py` of the releases 0.11.0 to 0.33.0 (0.15 was not read)."""

_FLAG = re.compile(r"(?<![\w./`_-])(?P<name>[a-z][a-z0-9]*(?:-[a-z0-9]+)+)(?:: (?P<value>[\w.]+))?")
_VARIABLE = re.compile(r"\bVLLM_[A-Z0-9_]+\b")


def release_of(text: str) -> Version | None:
    """The release in a log's words, such as `0.20.2rc1.dev9+g1a2b`; None without one."""
    try:
        return Version.parse(text)
    except ValueError:
        return None


def for_release(options: Sequence[str | Sequence[str]], version: str) -> str:
    """The alternatives that this release can follow, joined to one text.

    An alternative may have several wordings, the newest first: of these one is used. With an
    unknown release it is the newest, and those for older releases are added with their limits.
    """
    release = release_of(version)
    usable = []
    for option in options:
        wordings = (option,) if isinstance(option, str) else option
        if release is None:
            usable.append(wordings[0] + "".join(map(_for_older, wordings[1:])))
        else:
            usable += [text for text in wordings if can_follow(text, release)][:1] or [
                _in_part(wordings[0], release)
            ]
    usable = [text for text in usable if text]
    return "; or ".join(usable) or f"use a newer image: vLLM {release} has no setting for this"


def can_follow(option: str, release: Version) -> bool:
    """Whether this release has every flag, value and variable that the text names."""
    for named in _FLAG.finditer(option):
        flag = KNOWN.get(named["name"]) or KNOWN.get(named["name"].removeprefix("no-"))
        if flag is not None and not flag.exists_in(release):
            return False
        choice = CHOICES.get(named["name"], {}).get(named["value"] or "")
        if choice is not None and release < choice:
            return False
    for name in _VARIABLE.findall(option):
        first, gone = VARIABLES.get(name, ("", ""))
        if first and release < Version.parse(first):
            return False
        if gone and release >= Version.parse(gone):
            return False
    return True


def advice_on_flag(written: str, version: str) -> str:
    """What to do about a flag that this release's parser does not know."""
    name = canonical(written)
    errors, warnings = check_existence(name, "", release_of(version))
    known = KNOWN.get(name.split(".")[0])
    for problem in (*errors, *warnings):
        since = f" (vLLM {known.removed} removed it)" if known and known.removed else ""
        return f"{name}: {problem.fix}{since}"
    if known and known.added:
        return f"remove {name}, or use a newer image: vLLM has it since {known.added}"
    return f"remove {name}"


def _in_part(option: str, release: Version) -> str:
    """The clauses of an alternative that this release can follow."""
    clauses = [clause for clause in option.split("; ") if can_follow(clause, release)]
    return "; ".join(clauses).removeprefix("or ")


def _for_older(wording: str) -> str:
    """A wording for older releases, if its variable says for which."""
    gone = [VARIABLES[name][1] for name in _VARIABLE.findall(wording) if name in VARIABLES]
    return f" (before {gone[0]}: {wording})" if gone and gone[0] else ""
