"""A stack's engine flags as one value, parsed once and used everywhere.

vLLM accepts a flag in several spellings and a value in several forms. Here each is resolved once:
`lines` for errors that quote the user, the mapping for code that reads a flag's value, `argv` for
the server. flags/checks.py checks whether the flags are valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, JsonValue
from pydantic_core import CoreSchema, core_schema

from vllm_spark.errors import ConfigError
from vllm_spark.flags.argv import FlagValue, from_argv, meaning, to_arguments, without_argument
from vllm_spark.flags.history import WHERE
from vllm_spark.problems import Problem


@dataclass(frozen=True)
class FlagLine:
    """One line of the config: its name as `written`, and the canonical name and value."""

    written: str
    name: str
    value: FlagValue

    @property
    def where(self) -> str:
        """The config key, as the user wrote it."""
        return f"{WHERE}.{self.written}"

    @property
    def problem(self) -> Problem | None:
        """Why this line cannot be written on vLLM's command line; None if it can."""
        return without_argument(self.where, self.name, self.value)


class EngineFlags(Mapping[str, FlagValue]):
    """The flags of one server, as a mapping from canonical name to value.

    The mapping holds what vLLM's own parser would read from `argv`, so different spellings of one
    config are equal here. The first access raises ConfigError if a line cannot be written on a
    command line.
    """

    def __init__(self, written: Mapping[str, FlagValue] | None = None) -> None:
        self.written = dict(written or {})
        self.lines = tuple(FlagLine(key, *meaning(key, self.written[key])) for key in self.written)

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> Self:
        """The flags in arguments of `vllm serve`. ConfigError for arguments that belong to none."""
        return cls(from_argv(argv))

    @classmethod
    def from_command(cls, command: Sequence[str]) -> tuple[list[str], Self]:
        """The words of a container's command before its flags, and the flags.

        ConfigError for the command of another program.
        """
        first = next((at for at, word in enumerate(command) if word.startswith("-")), len(command))
        return list(command[:first]), cls.from_argv(command[first:])

    @cached_property
    def argv(self) -> list[str]:
        """The arguments for `vllm serve`, in the order of the config."""
        problems = [line.problem for line in self.lines if line.problem is not None]
        if problems:
            raise ConfigError(problems)
        return [text for line in self.lines for text in to_arguments(line.name, line.value)]

    @cached_property
    def _values(self) -> dict[str, FlagValue]:
        return from_argv(self.argv)

    def line(self, name: str) -> FlagLine | None:
        """The first line that means this flag."""
        return next((line for line in self.lines if line.name == name), None)

    def replaced_by(self, others: EngineFlags) -> EngineFlags:
        """These flags, with their values replaced by those of `others`."""
        return EngineFlags({**self, **others})

    def __getitem__(self, name: str) -> FlagValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"EngineFlags({self.written!r})"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """A mapping of JSON values, as config files and Pulumi have it."""
        return core_schema.no_info_after_validator_function(
            cls,
            handler(dict[str, JsonValue]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda flags: flags.written
            ),
        )
