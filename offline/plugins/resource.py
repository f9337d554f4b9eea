"""A resource type of a substitute plugin: its properties, and how two states are compared.

The official docker plugin is a Terraform provider behind a bridge, so Terraform's rules decide
what counts as a change: an unset property equals its default or its empty value, some lists are
sets, and some properties keep their value when they are unset. Here the rules are data (`Input`),
one line per property, so that a reader can compare them with the official schema.
"""
# ruff: noqa: ARG002  subclasses use the arguments that the defaults ignore

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pulumi.runtime.rpc import UNKNOWN

State = dict[str, Any]
Say = Callable[[str], None]
"""Shows a progress line next to the resource."""


class Refusal(Exception):
    """The operation is not possible. The text is for the user."""


class Unfinished(Refusal):
    """The resource exists under `id` but did not start: the engine records it as failed."""

    def __init__(self, text: str, id: str, state: State) -> None:
        super().__init__(text)
        self.id = id
        self.state = state


@dataclass(frozen=True)
class Input:
    """The rules of one property."""

    required: bool = False
    replaces: bool = False
    """A change needs a new resource."""
    default: Any = None
    sticky: bool = False
    """Removing it from the program changes nothing (Terraform: optional and computed)."""
    unordered: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The valid keys of the object, or of each object in the list, with their defaults."""

    def comparable(self, value: Any) -> Any:
        """`value` in a form in which equivalent values are equal; None if it is empty."""
        if isinstance(value, list):
            items = [self.comparable(item) for item in value]
            return (sorted(items, key=repr) if self.unordered else items) or None
        if isinstance(value, dict):
            full = {**self.fields, **{k: v for k, v in value.items() if v is not None}}
            return {k: self.comparable(v) for k, v in sorted(full.items()) if v} or None
        return value or None


class Resource(ABC):
    """One resource type: its rules as data, its operations as methods."""

    type: ClassVar[str]
    inputs: ClassVar[Mapping[str, Input]]
    outputs: ClassVar[tuple[str, ...]]
    """Properties that are known only after the operation."""

    def unknown_inputs(self, given: State) -> Iterator[tuple[str, str]]:
        """Each unknown property, and unknown key in a property, as (property, dotted path)."""
        yield from unknown_keys(self.inputs, given)

    def changed(self, old: State, new: State) -> list[str]:
        """The names of the properties that the program changes."""
        return [
            name
            for name, rule in self.inputs.items()
            if not (rule.sticky and new.get(name) in (None, ""))
            and rule.comparable(old.get(name, rule.default))
            != rule.comparable(new.get(name, rule.default))
        ]

    def updated(self, old: State, new: State) -> State:
        """The state after an update in place, as far as it is known in advance."""
        kept = {
            name: value
            for name, value in old.items()
            if name not in self.inputs or self.inputs[name].sticky
        }
        return kept | new

    def planned(self, old: State | None, new: State) -> State:
        """The state that a preview shows for a create (`old` is None) or an update."""
        if old is None:
            return new | dict.fromkeys(self.outputs, UNKNOWN)
        return self.updated(old, new)

    def deletes_before_replacing(self, old: State, new: State) -> bool:
        """Whether old and new cannot exist side by side."""
        return False

    @abstractmethod
    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Create it and return its id and state. Refusal if that is not possible."""

    @abstractmethod
    def read(self, id: str, state: State) -> tuple[str, State] | None:
        """Its current id and state; None if it does not exist."""

    @abstractmethod
    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Change it in place and return its new state."""

    @abstractmethod
    def delete(self, id: str, state: State, say: Say) -> None:
        """Remove it. It is no error if it does not exist."""

    def cancel(self) -> None:  # noqa: B027  most operations are short
        """Stop the running operation, after Ctrl-C."""


def unknown_keys(rules: Mapping[str, Input], given: State) -> Iterator[tuple[str, str]]:
    """Each key of `given`, at both levels, that is not in `rules`, as (top key, dotted path)."""
    for name, value in given.items():
        if name.startswith("__"):  # keys that the bridge adds to a state
            continue
        if name not in rules:
            yield name, name
        elif fields := rules[name].fields:
            items = value if isinstance(value, list) else [value]
            keys = {key for item in items if isinstance(item, dict) for key in item}
            yield from ((name, f"{name}.{key}") for key in sorted(keys - fields.keys()))
