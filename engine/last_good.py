"""What a last good deployment is, and the stack config that deploys it again.

It is everything that made one server answer, together: the whole config but its secrets, the image
by id and digest, the model by its commit. `components/last_good.py` records it in the state once
the health gate has passed, `operations/rollback.py` reads it there.

Secrets are no part of it: a key that was changed should not come back. Going back takes those that
the config file has now.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from engine.redaction import redacted
from engine.sections import NAMESPACE
from engine.settings import SECRETS, Settings, as_value

RESOURCE = "pulumi-python:dynamic/spark:LastGood"
_HIDDEN = frozenset(f"{NAMESPACE}:{key}" for key in SECRETS)
_TYPES = {bool: "bool", int: "int", float: "float"}

Config = Mapping[str, Any]
"""A stack's config: values by full key, such as `vllm-spark:engine`."""


class NoWayBack(Exception):
    """The last good deployment cannot be deployed again. The text says why, with a mend."""


def without_secrets(config: Config, secret: Collection[str] = ()) -> dict[str, Any]:
    """The config as values, less the keys in `secret`, those sealed in a file, and our own."""
    return {
        key: as_value(value)
        for key, value in config.items()
        if key not in secret and key not in _HIDDEN and not sealed(value)
    }


def sealed(value: Any) -> bool:
    """Whether a value out of a config file is encrypted, or holds something that is."""
    if isinstance(value, Mapping):
        return "secure" in value or any(sealed(inner) for inner in value.values())
    return isinstance(value, list) and any(sealed(inner) for inner in value)


@dataclass(frozen=True)
class LastGood:
    """One deployment that has answered. `fetch` is the command that fetched `commit`."""

    config: Config
    secrets: tuple[str, ...]
    image_id: str
    image_digest: str
    commit: str
    fetch: str
    container_id: str
    answered_at: datetime

    @classmethod
    def of_state(cls, resources: list[dict[str, Any]]) -> Self | None:
        """The record among a state's resources; None if no server of the stack ever answered."""
        found = [one["outputs"] for one in resources if one["type"] == RESOURCE]
        if not found or not found[0].get("config"):
            return None
        record = found[0]
        return cls(
            config=json.loads(record["config"]),
            secrets=tuple(json.loads(record["secrets"])),
            image_id=record["imageId"],
            image_digest=record["imageDigest"],
            commit=record["commit"],
            fetch=record["fetch"],
            container_id=record["containerId"],
            answered_at=datetime.fromisoformat(record["answeredAt"]),
        )

    @property
    def settings(self) -> Settings:
        """The config as this version of the program reads it. ConfigError if it refuses it now."""
        ours = {key: self.config[key] for key in self.config if key.startswith(f"{NAMESPACE}:")}
        return Settings.parse({key.partition(":")[2]: ours[key] for key in ours}, frozenset())

    def __str__(self) -> str:
        settings = self.settings
        return (
            f"{settings.model.id} with {settings.image.name}, "
            f"which answered {self.answered_at:%Y-%m-%d %H:%M} UTC"
        )

    def pinned(self, image_now: str | None, fetch_now: str | None) -> dict[str, Any]:
        """The config that deploys the same image and commit again.

        `image_now` is the id of the image that has the name now, None if none has; `fetch_now`
        the command of the last fetch. What still means the same is left as it was written: a pin
        would be a difference from the config file, and cost a restart when that is put back.
        """
        config, settings = dict(self.config), self.settings
        if image_now != self.image_id:
            if not self.image_digest:
                raise NoWayBack(self._image_is_lost(settings.image.name, image_now))
            image = {"name": self.image_digest}
            if settings.image.version is not None:
                image["vllmVersion"] = str(settings.image.version)
            config[f"{NAMESPACE}:image"] = image
        if fetch_now != self.fetch and self.commit:
            model = settings.model.model_dump(by_alias=True, exclude_none=True)
            config[f"{NAMESPACE}:model"] = {**model, "revision": self.commit}
        return config

    def _image_is_lost(self, name: str, image_now: str | None) -> str:
        why = f"is now {image_now[:19]}" if image_now else "is gone from this host"
        return (
            f"what answered was the image {self.image_id[:19]}; {name} {why}, "
            "and it has no digest to pull it by\n"
            f"  mend: docker tag {self.image_id[:19]} {name}, if it is there, or build it again"
        )


def stack_file(given: Config, config: Config, secrets: Collection[str]) -> dict[str, Any]:
    """A config file: `config`, with the secrets and the salt of the file `given`, as sealed there.

    NoWayBack if the last good server wanted a key of its clients and `given` has none: without it
    whoever reaches the port would be answered.
    """
    old = given.get("config") or {}
    kept = {key: value for key, value in old.items() if sealed(value)}
    api_key = f"{NAMESPACE}:apiKey"
    if api_key in secrets and api_key not in kept:
        raise NoWayBack(
            f"the last good server asked its clients for a key, and the config has no {api_key} "
            f"any more\n  mend: pulumi config set --secret {api_key}"
        )
    rest = {key: value for key, value in given.items() if key != "config"}
    return {**rest, "config": {**config, **kept}}


def differences(old: Config, new: Config) -> list[str]:
    """What a person reads, a line a value: `~ engine.max-num-seqs: 64 => 128`."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    lines = []
    for path in _in_order(before, after):
        name = _dotted(path).removeprefix(f"{NAMESPACE}:")
        if path not in after:
            lines.append(f"- {name}: {_text(before[path])}")
        elif path not in before:
            lines.append(f"+ {name}: {_text(after[path])}")
        elif before[path] != after[path]:
            lines.append(f"~ {name}: {_text(before[path])} => {_text(after[path])}")
    return [redacted(line) for line in lines]


def commands(old: Config, new: Config, stack: str) -> list[str]:
    """The commands that make config file `old` say what `new` does, secrets left alone."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    removed = [path for path in reversed(_in_order(before)) if path not in after]
    lines = [f"pulumi config rm --stack {stack} --path {_quoted(path)}" for path in removed]
    for path in _in_order(after):
        value = after[path]
        if path in before and before[path] == value:
            continue
        type_ = _TYPES.get(type(value), "string")
        told = f"{_dotted(path)}: {_text(value)}"
        if redacted(told) != told:
            lines.append(f"# {_dotted(path)} looks like a secret, which is not shown: by hand")
        else:
            lines.append(
                f"pulumi config set --stack {stack} --path {_quoted(path)} --type {type_}"
                f" -- {shlex.quote(_text(value))}"
            )
    return lines


Path = tuple[str | int, ...]


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no object or list, with its place."""
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _in_order(*leaves: Mapping[Path, Any]) -> list[Path]:
    return sorted({path for one in leaves for path in one}, key=_dotted)


def _dotted(path: Path) -> str:
    """A place as `pulumi config set --path` reads it."""
    first, *rest = path
    steps = [
        f"[{step}]"
        if isinstance(step, int)
        else (f".{step}" if re.fullmatch(r"[\w-]+", step) else f'["{step}"]')
        for step in rest
    ]
    return f"{first}{''.join(steps)}"


def _quoted(path: Path) -> str:
    return shlex.quote(_dotted(path))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
