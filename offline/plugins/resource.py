"""What a resource type of a stand-in plugin says about itself, and how two states are compared.

The official docker plugin is a Terraform provider behind a bridge, and the rules by which it calls
a change a change are Terraform's: an unset property equals its default or its empty value, some
lists are sets, and some properties, once unset, stay as they are. Those rules are data here
(`Input`), one line a property, so that a reader can lay them beside the official schema.
"""
# ruff: noqa: ARG002  what a default ignores, a subclass looks at

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pulumi.runtime.rpc import UNKNOWN

State = dict[str, Any]
Say = Callable[[str], None]
"""Shows a line beside the resource while it is worked on."""


class Refusal(Exception):
    """What was asked cannot be done. The text is for a person."""


class Unfinished(Refusal):
    """The resource exists under `id` but did not come up: the engine records it as failed."""

    def __init__(self, text: str, id: str, state: State) -> None:
        super().__init__(text)
        self.id = id
        self.state = state


@dataclass(frozen=True)
class Input:
    """How one property behaves."""

    required: bool = False
    replaces: bool = False
    """A change needs a new resource."""
    default: Any = None
    sticky: bool = False
    """Removing it from the program changes nothing (Terraform: optional and computed)."""
    unordered: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The known keys of the object, or of each object in the list, with their defaults."""

    def comparable(self, value: Any) -> Any:
        """`value` so that two that mean the same are equal; None for anything empty."""
        if isinstance(value, list):
            items = [self.comparable(item) for item in value]
            return (sorted(items, key=repr) if self.unordered else items) or None
        if isinstance(value, dict):
            full = {**self.fields, **{k: v for k, v in value.items() if v is not None}}
            return {k: self.comparable(v) for k, v in sorted(full.items()) if v} or None
        return value or None


class Resource(ABC):
    """One resource type: its rules as data, its deeds as methods."""

    type: ClassVar[str]
    inputs: ClassVar[Mapping[str, Input]]
    outputs: ClassVar[tuple[str, ...]]
    """What is known only after the deed."""

    def unknown_inputs(self, given: State) -> Iterator[tuple[str, str]]:
        """Each property, and key within one, that nothing here would look at, as (where, name)."""
        yield from unknown_keys(self.inputs, given)

    def changed(self, old: State, new: State) -> list[str]:
        """The names of the properties whose change the program asks for."""
        return [
            name
            for name, rule in self.inputs.items()
            if not (rule.sticky and new.get(name) in (None, ""))
            and rule.comparable(old.get(name, rule.default))
            != rule.comparable(new.get(name, rule.default))
        ]

    def updated(self, old: State, new: State) -> State:
        """The state after an update in place, as far as the plan knows it."""
        kept = {
            name: value
            for name, value in old.items()
            if name not in self.inputs or self.inputs[name].sticky
        }
        return kept | new

    def planned(self, old: State | None, new: State) -> State:
        """What a preview shows for a create (`old` is None) or an update."""
        if old is None:
            return new | dict.fromkeys(self.outputs, UNKNOWN)
        return self.updated(old, new)

    def deletes_before_replacing(self, old: State, new: State) -> bool:
        """Whether old and new cannot exist side by side."""
        return False

    @abstractmethod
    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Make it; return its id and state."""

    @abstractmethod
    def read(self, id: str, state: State) -> tuple[str, State] | None:
        """Its id and state as they are now, None if it is gone."""

    @abstractmethod
    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Change it in place; return its new state."""

    @abstractmethod
    def delete(self, id: str, state: State, say: Say) -> None:
        """Remove it. That it is gone already is no error."""

    def cancel(self) -> None:  # noqa: B027  most deeds are too short to be cut off
        """Give up what is under way: somebody pressed Ctrl-C."""


def unknown_keys(rules: Mapping[str, Input], given: State) -> Iterator[tuple[str, str]]:
    """Each key of `given`, at either level, that `rules` lack, as (top key, dotted path)."""
    for name, value in given.items():
        if name.startswith("__"):  # the bridge keeps notes of its own in a state
            continue
        if name not in rules:
            yield name, name
        elif fields := rules[name].fields:
            items = value if isinstance(value, list) else [value]
            keys = {key for item in items if isinstance(item, dict) for key in item}
            yield from ((name, f"{name}.{key}") for key in sorted(keys - fields.keys()))
