"""Turns pydantic's validation errors into `Problem`s: the user's key, the value, and the fix.

Pydantic says what is wrong; the description of the field says what is valid. So a field's rule is
written once, beside the field, and appears in the error and in docs/config.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vllm_spark.errors import ConfigError
from vllm_spark.problems import Problem


def problems_from(
    error: ValidationError, settings: type[BaseModel], namespace: str
) -> list[Problem]:
    """Each mistake in `error`, raised by the validation of `settings`, as a `Problem`."""
    problems: list[Problem] = []
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        found = (
            list(cause.problems)
            if isinstance(cause, ConfigError)
            else [_problem(detail, settings, namespace)]
        )
        problems += [one for one in found if one.where not in {other.where for other in problems}]
    return problems


def _problem(detail: ErrorDetails, settings: type[BaseModel], namespace: str) -> Problem:
    path, fields, field = _locate(detail["loc"], settings)
    where = f"{namespace}:{'.'.join(path)}"
    description = field.description if field is not None and field.description else "see the docs"
    match detail["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(path[-1], fields, n=1)
            fix = f"write {near[0]}" if near else f"remove it; valid keys: {', '.join(fields)}"
            return Problem(where, "is not a key of vllm-spark", fix)
        case "missing":
            return Problem(where, "is required and missing", f"add {description}")
        case "value_error":
            return Problem(where, str(detail["ctx"]["error"]), f"use {description}")
        case "string_pattern_mismatch":
            return Problem(where, f"{detail['input']!r} is not valid", f"use {description}")
        case _:
            what = f"{detail['input']!r} is wrong: {detail['msg'].lower()}"
            return Problem(where, what, f"use {description}")


def _locate(
    loc: tuple[int | str, ...], settings: type[BaseModel]
) -> tuple[list[str], list[str], FieldInfo | None]:
    """Resolve an error's location: the path as the user wrote it, the keys there, the field."""
    path: list[str] = []
    model: type[BaseModel] | None = settings
    field: FieldInfo | None = None
    fields: list[str] = []
    depth = 0
    for part in loc:
        if isinstance(part, int) and model is not None:  # an object in a list
            path[-1] += f"[{part}]"
            continue
        if model is None:
            if isinstance(part, str) and "[" in part:  # the name of a union member, not a key
                continue
            if field is not None and _is_mapping(field) and len(path) == depth:
                path.append(str(part))
            continue
        if isinstance(part, int):  # an item of a list of objects
            path[-1] += f"[{part}]"
            continue
        by_key = {info.alias or name: info for name, info in model.model_fields.items()}
        fields = list(by_key)
        path.append(str(part))
        field = by_key.get(str(part))
        depth = len(path)
        model = _section(field.annotation) if field is not None else None
    return path, fields, field


def _section(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_mapping(field: FieldInfo) -> bool:
    annotation = field.annotation
    mapping = getattr(annotation, "__origin__", annotation)
    return isinstance(mapping, type) and issubclass(mapping, Mapping)
