"""Every failure that this project foresees, in one hierarchy.

    VllmSparkError
    ├── ConfigError            a stack's config, or flags given by hand, cannot be used
    ├── SetupError             a part of the machine is missing: Pulumi, plugins, an image
    │   └── DiskFull           there is no room for it
    ├── DockerError
    │   ├── DockerUnavailable  the daemon did not answer; that says nothing about containers
    │   └── DockerRefused      the daemon answered with an error
    ├── FetchError             the model's files could not be fetched
    ├── HubError               the Hugging Face hub, or a model on it, cannot be read
    ├── PreflightError         the host cannot take the container as it is declared
    ├── GateError              the server does not serve
    ├── RollbackError          the last good deployment cannot be deployed again
    ├── ChangesError           two versions of the stacks cannot be compared, or a report be read
    ├── GitHubError            GitHub did not do what a workflow asked
    └── Interrupted            Ctrl-C, or Pulumi's Cancel

The text of each says what is wrong (key, value, place), why, and the fix: it is what a person
reads, with nothing around it. Two places turn errors into output: `cli.main` (message and exit
code) and `components.provider` (the message of a failed resource).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vllm_spark.problems import Problem, listing


class VllmSparkError(Exception):
    """The root. `exit_code` is that of a command that ends with this error."""

    exit_code: ClassVar[int] = 1


class ConfigError(VllmSparkError, ValueError):
    """The config cannot be used. Its text lists every problem with its fix.

    A ValueError too, because that is what pydantic collects from a validator.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(listing(problems))


class SetupError(VllmSparkError):
    """A part of the machine is missing and could not be made."""

    exit_code = 2


class DiskFull(SetupError):
    """There is no room for a part of the machine, so a substitute would not fit either."""


class DockerError(VllmSparkError):
    """What was asked of the Docker daemon did not work."""

    exit_code = 2


class DockerUnavailable(DockerError):
    """The Docker daemon did not answer. It never means gone, stopped, free or healthy."""


class DockerRefused(DockerError):
    """The Docker daemon answered, with an error."""


class FetchError(VllmSparkError):
    """The model's files could not be fetched; nothing was changed."""


class HubError(VllmSparkError):
    """The Hugging Face hub did not give what was asked for, or a model on it is not as it must be.

    It never means that a model does not exist: the hub hides private ones in the same words.
    """

    exit_code = 2


class PreflightError(VllmSparkError):
    """The host cannot take the container as it is declared; nothing was changed."""


class GateError(VllmSparkError):
    """The server does not serve, and why."""


class RollbackError(VllmSparkError):
    """The last good deployment cannot be deployed again."""


class ChangesError(VllmSparkError):
    """Two versions of the stacks cannot be compared, or a report of that cannot be read."""


class GitHubError(VllmSparkError):
    """GitHub did not answer, or refused what a workflow asked for."""

    exit_code = 2


class Interrupted(VllmSparkError):
    """The user pressed Ctrl-C."""

    exit_code = 130
