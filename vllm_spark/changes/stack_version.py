"""One stack at one version of the project, as this release reads it: settings, plan and objections.

What cannot be read is a refusal too, so that one wrong stack file does not hide the others. Nothing
is decrypted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import SECRETS, Settings
from vllm_spark.config.stack_file import load_stack_if_ours
from vllm_spark.deployment.review import plan_of, review
from vllm_spark.errors import ConfigError
from vllm_spark.memory.known_models import models_of
from vllm_spark.memory.plan import MemoryPlan
from vllm_spark.problems import Problem, Unmodelled

MOST_BYTES = 4_000_000
MOST_VALUES = 20_000
"""Of a stack file. Aliases in YAML can stand for more values than memory can hold."""


@dataclass(frozen=True)
class StackVersion:
    """`content` is the stack file as parsed, `settings` None if it is refused or has none of ours.

    `plan` is the memory plan, None without settings.
    """

    name: str
    content: Mapping[str, Any] = field(default_factory=dict)
    settings: Settings | None = None
    plan: MemoryPlan | Unmodelled | None = None
    warnings: tuple[Problem, ...] = ()
    refusals: tuple[Problem, ...] = ()

    @property
    def config(self) -> Mapping[str, Any]:
        """The values by full config key."""
        return self.content.get("config") or {}


def is_stack_file(path: str) -> bool:
    """Whether this path in the project is that of a stack file."""
    return re.fullmatch(r"Pulumi\.[^/]+\.yaml", path) is not None


def stacks_in(folder: Path, links: Iterable[str]) -> dict[str, StackVersion]:
    """Every stack of the project in `folder`; `links` are symbolic links, which are not there."""
    with models_of(folder):
        found = [read_stack(file) for file in folder.glob("Pulumi.*.yaml")]
    found += [_linked(link) for link in links if is_stack_file(link)]
    return {stack.name: stack for stack in sorted(found, key=lambda stack: stack.name)}


def _name(file: str) -> str:
    return file.removeprefix("Pulumi.").removesuffix(".yaml")


def _linked(file: str) -> StackVersion:
    what = "is a symbolic link, which could show any file of the machine"
    return StackVersion(_name(file), refusals=(Problem(file, what, "replace it by a file"),))


def read_stack(file: Path) -> StackVersion:
    """One stack. What is wrong with it is in its refusals."""
    stack = StackVersion(_name(file.name))
    try:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", stack.name):
            what = "holds no stack: Pulumi takes letters, digits, `.`, `-` and `_` in its name"
            raise ConfigError([Problem(file.name, what, "rename the file")])
        stack = replace(stack, content=_loaded(file))
        settings = load_stack_if_ours(file)
        if settings is None:
            return stack
        stack = replace(stack, settings=settings, plan=plan_of(settings))
        return replace(stack, warnings=review(settings).warnings)
    except ConfigError as error:
        return replace(stack, refusals=error.problems)


def as_deployed(settings: Settings, now: StackVersion) -> StackVersion:
    """The version that is up, from its declaration in the state, to be compared with `now`.

    The declaration has no secret in it, so a secret that both have counts as the same.
    """
    secret = {f"{NAMESPACE}:{key}" for key in SECRETS if key in settings.declared()}
    config = {key: value for key, value in now.config.items() if key in secret}
    deployed = replace(
        now,
        content={"config": config},
        settings=settings,
        plan=plan_of(settings),
        warnings=(),
        refusals=(),
    )
    with suppress(ConfigError):  # a release may refuse what an earlier one has deployed
        return replace(deployed, warnings=review(settings).warnings)
    return deployed


def _loaded(file: Path) -> Mapping[str, Any]:
    """The parsed file. ConfigError, without a word of it, if it is not a stack's config."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        content = yaml.safe_load(file.read_text()) or {}
        if _count(content) > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values")
        if not isinstance(content, Mapping) or not isinstance(content.get("config") or {}, Mapping):
            raise ValueError("it has no object `config`")
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        what = f"is not YAML: {error.problem}{line}"
    except (yaml.YAMLError, UnicodeError):
        what = "is not YAML in UTF-8"
    except (ValueError, TypeError) as error:
        what = f"is not a stack config: {error}"
    except RecursionError:
        what = "is nested too deeply"
    else:
        return content
    fix = "put keys such as vllm-spark:model under a top-level `config:`"
    raise ConfigError([Problem(file.name, what, fix)])


def _count(content: Any) -> int:
    """The number of values, or a number above the limit."""
    count, left = 0, [content]
    while left and count <= MOST_VALUES:
        value = left.pop()
        count += 1
        if isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list | set | tuple):
            left += value
    return count
