"""The reference of the config keys, from the pydantic models that read them."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, IPvAnyAddress, SecretStr
from pydantic.fields import FieldInfo

from docs.tables import markdown_table
from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import Settings
from vllm_spark.flags.engine_flags import EngineFlags


def config_keys() -> str:
    """Every config key: a table of the top-level keys, then a table for each object."""
    return "\n\n".join([_keys_table(NAMESPACE, Settings), *_objects(f"{NAMESPACE}:", Settings)])


def _objects(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    """A table for each object among the keys of a model, and for the objects in that."""
    for name, field in model.model_fields.items():
        members = get_args(field.annotation) if get_origin(field.annotation) is list else ()
        section = _section(members[0] if members else field.annotation)
        if section is not None:
            key = f"{prefix}{field.alias or name}{'[N]' if members else ''}"
            about = inspect.cleandoc(section.__doc__ or "")
            yield f"### `{key}`\n\n{about}\n\n{_keys_table('', section)}"
            yield from _objects(f"{key}.", section)


def _keys_table(prefix: str, model: type[BaseModel]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        key = f"{prefix}:{field.alias or name}" if prefix else field.alias or name
        rows.append([f"`{key}`", _type(field.annotation), _default(field), field.description or ""])
    return markdown_table(["key", "type", "default", "meaning"], rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return ""
    if isinstance(field.default, BaseModel):
        return "see below"
    if isinstance(field.default, EngineFlags):
        return "`{}`"
    value = str(field.default) if isinstance(field.default, IPv4Address) else field.default
    return f"`{json.dumps(value)}`"


_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    SecretStr: "secret",
    IPvAnyAddress: "IP address",
}


def _type(annotation: Any) -> str:
    """A type in words. The field's description covers the constraints that Annotated adds."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    if _section(annotation) is not None:
        return "object"
    if annotation is EngineFlags:
        return "object: any value by name"
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{member}`" for member in members)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(member) for member in members if member is not type(None))
    if origin is list:
        return f"list: {_type(members[0])}"
    if origin is dict:
        return f"object: {_type(members[1])} by name"
    if hasattr(annotation, "__metadata__"):
        return _type(members[0])
    return "any value"


def _section(annotation: Any) -> type[BaseModel] | None:
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None
