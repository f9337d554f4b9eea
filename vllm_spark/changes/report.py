"""The report of a change, as data: what `vllm-spark plan --json` prints and a comment is made from.

Whoever reads it back may have it from a pull request, so a report holds only what the renderer
needs, every string is harmless (`text`), and every list and number has a limit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from vllm_spark.changes.text import harmless
from vllm_spark.errors import ChangesError
from vllm_spark.problems import Problem

MOST_BYTES = 20_000_000
"""The size of a report that is read: more than the limits below allow."""

MOST_STACKS = 200
MOST_ENTRIES = 100
"""Of each list of a stack."""


def _at_most(most: int) -> BeforeValidator:
    return BeforeValidator(lambda value: harmless(value, most) if isinstance(value, str) else value)


Name = Annotated[str, _at_most(200)]
Text = Annotated[str, _at_most(300)]
Sentence = Annotated[str, _at_most(1000)]
Number = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True
    )


class ConfigChange(_Part):
    """A config key with its old and new value; None where the key is not set."""

    key: Name
    old: Text | None
    new: Text | None
    about: Text = ""
    """What the key does, if that is known."""


class ImageVersion(_Part):
    """An image: its name, the digest in it, and the vLLM release; None for what the name hides."""

    name: Text
    digest: Name | None = None
    vllm: Name | None = None


class Memory(_Part):
    """A memory plan: the numbers of the stack output `memoryPlan` (GiB, tokens), by their keys.

    `reason` says why there is none.
    """

    fits: Literal["yes", "maybe", "no", "unknown"]
    numbers: dict[Name, Number] = Field({}, max_length=MOST_ENTRIES)
    reason: Sentence = ""


class Downtime(_Part):
    """What happens to the container.

    `seconds` is an estimate of the time without answers, None if nothing is known; `source` says
    where it is from, or why there is none.
    """

    container: Literal["created", "replaced", "updated", "deleted", "unchanged", "unknown"]
    seconds: Annotated[Number, Field(ge=0)] | None = None
    source: Sentence = ""


class Finding(_Part):
    """A warning, or a reason for a refusal: where, what, and the fix (`problems.Problem`)."""

    where: Name
    what: Sentence
    fix: Sentence

    @classmethod
    def of(cls, problem: Problem) -> Finding:
        """The problem as a part of a report."""
        return cls(where=problem.where, what=problem.what, fix=problem.fix)


class PolicyException(_Part):
    """A rule of the policy pack that this stack may break, and the reason that its config gives."""

    rule: Name
    reason: Text


class Step(_Part):
    """What Pulumi's engine would do with one resource: only operation, type and name."""

    operation: Name
    type: Name
    name: Name


Status = Literal["changed", "new", "gone", "renamed", "refused", "unknown"]


class StackChange(_Part):
    """One stack.

    `refused`: `up` would refuse the config of the head, whatever else changed. `unknown`: the
    program could not be run.
    """

    name: Name
    status: Status
    was: Name | None = None
    """The old name of a stack that is renamed."""
    changes: list[ConfigChange] = Field([], max_length=MOST_ENTRIES)
    image_before: ImageVersion | None = None
    image_after: ImageVersion | None = None
    memory_before: Memory | None = None
    memory_after: Memory | None = None
    downtime: Downtime | None = None
    new_warnings: list[Finding] = Field([], max_length=MOST_ENTRIES)
    new_refusals: list[Finding] = Field([], max_length=MOST_ENTRIES)
    exceptions: list[PolicyException] = Field([], max_length=MOST_ENTRIES)
    unknowns: list[Sentence] = Field([], max_length=MOST_ENTRIES)
    """What cannot be known before the merge, a sentence each."""
    steps: list[Step] = Field([], max_length=MOST_ENTRIES)


class Report(_Part):
    """What merging `head` into `base` would do. `stacks` has only those that differ."""

    report_schema: Literal[1] = Field(1, alias="schema")
    base: Name
    head: Name
    base_code: Literal["base", "head"] | None = None
    """Whose code evaluated the base; None where no program ran for it."""
    stacks: list[StackChange] = Field(max_length=MOST_STACKS)

    @property
    def exit_code(self) -> int:
        """That of `vllm-spark plan`: 0 no change, 2 changes, 3 a refusal, 1 something unknown."""
        found = {stack.status for stack in self.stacks}
        if "refused" in found:
            return 3
        return 1 if "unknown" in found else 2 if found else 0

    def json_text(self) -> str:
        """The report as JSON, which `read_report` reads."""
        return self.model_dump_json(by_alias=True, indent=2)


def read_report(file: Path) -> Report:
    """The report in a file from anyone. ChangesError, without a value of it, if it is none."""
    try:
        if file.is_symlink() or not file.is_file():
            raise ChangesError(f"{file.name} is not a file\n  fix: see the step that made it")
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise ChangesError(f"{file.name} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ChangesError(f"{file.name} is larger than {MOST_BYTES:,} bytes, so it is no report")
    try:
        return Report.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = harmless(".".join(str(part) for part in first["loc"]), 200) or "the whole"
        raise ChangesError(
            f"{file.name} is no report of this release: {first['type']} in {place}\n"
            "  fix: make it with the same release: vllm-spark plan --base REF --json"
        ) from None
