"""One line on what a config key or one of vLLM's flags is for."""

from __future__ import annotations

import re

from pydantic import BaseModel

from vllm_spark.config.settings import Settings
from vllm_spark.flags.history import ABOUT


def about(key: str) -> str:
    """What a key such as `engine.max-num-seqs` or `endpoint.port` is for; empty if not known."""
    first, _, rest = key.partition(".")
    if first == "engine":
        return ABOUT.get(re.split(r"[.\[]", rest)[0], "")
    model: type[BaseModel] | None = Settings
    told = ""
    for name in key.split("."):
        fields = {} if model is None else model.model_fields
        field = next((one for key, one in fields.items() if name in (one.alias, key)), None)
        if field is None:
            return told
        told = field.description or ""
        inner = field.annotation
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return told
