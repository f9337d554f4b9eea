"""Writes `models/<name>.yaml`: the lines of config.json that decide, and the checkpoint's bytes.

No list says which lines decide: the planner reads the config once, and the keys that it reads are
kept. So the file gives the same plan as the whole config.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vllm_spark.errors import HubError
from vllm_spark.memory.model_config import shape_of
from vllm_spark.memory.shape import ModelShape
from vllm_spark.memory.weights.headers import weights_in
from vllm_spark.memory.weights.hub import HubModel
from vllm_spark.memory.weights.stored import StoredWeights
from vllm_spark.problems import Unmodelled

_KEPT_OF_QUANTIZATION = ("quant_method", "quant_algo", "kv_cache_quant_algo", "kv_cache_scheme",
                         "weight_block_size", "bits", "group_size")  # fmt: skip
"""Where the bytes are known, the format decides only about the KV cache and flags."""


class _Recorder(dict[str, Any]):
    """A mapping that records which of its keys are read."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(
            {
                key: _Recorder(value) if isinstance(value, Mapping) else value
                for key, value in content.items()
            }
        )
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def kept(self) -> dict[str, Any]:
        """The keys that were read, in the order of the config."""
        return {
            key: value.kept() if isinstance(value, _Recorder) else value
            for key, value in self.items()
            if key in self.read
        }


def content_of(model: HubModel) -> tuple[dict[str, Any], ModelShape]:
    """The file's content and the shape that it gives. HubError for what is no plannable model."""
    text = model.config.get("text_config") or model.config
    layers = text.get("num_hidden_layers") if isinstance(text, Mapping) else None
    if not isinstance(layers, int) or layers <= 0:
        raise HubError(
            f"{model.id}: its config.json has no num_hidden_layers, so it is no language model\n"
            "    fix: name a repository with a language model"
        )
    stored = weights_in(model.headers, layers)
    config = _deciding(model, stored)
    found = shape_of(config, stored, model.id)
    if isinstance(found, Unmodelled):
        raise HubError(
            f"{model.id} cannot be planned: {found.reason}\n"
            "    fix: none yet; a stack with it deploys without a plan"
        )
    content = {
        "id": model.id,
        "revision": model.commit,
        "config": config,
        "weights": stored.as_yaml(),
    }
    return content, found


def write(content: Mapping[str, Any], folder: Path) -> Path:
    """Write the file, or replace that of an earlier revision; returns its path."""
    owner, _, name = str(content["id"]).partition("/")
    folder.mkdir(exist_ok=True)
    path = folder / f"{name.lower()}.yaml"
    if path.exists() and f"id: {content['id']}\n" not in path.read_text():
        path = folder / f"{owner.lower()}--{name.lower()}.yaml"
    comment = "# Written by `vllm-spark model`: what of config.json decides about memory, and the\n"
    comment += "# bytes of the checkpoint by role and format, from its safetensors headers.\n"
    path.write_text(comment + yaml.safe_dump(dict(content), sort_keys=False, width=100))
    return path


def _deciding(model: HubModel, stored: StoredWeights) -> dict[str, Any]:
    """The keys of the config that the planner asks for."""
    recorder = _Recorder(model.config)
    try:
        shape_of(recorder, stored, model.id)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise HubError(
            f"{model.id}: its config.json is not formed like a model's: {error}\n"
            "    fix: take another revision of the repository"
        ) from error
    kept = recorder.kept()
    for owner in (kept, kept.get("text_config")):
        for key in ("quantization_config", "compression_config"):
            if isinstance(owner, dict) and isinstance(owner.get(key), dict):
                owner[key] = _short(owner[key])
    return kept


def _short(quantization: Mapping[str, Any]) -> dict[str, Any]:
    parts = [quantization, quantization.get("quantization") or {}]
    return {
        key: part[key]
        for part in reversed(parts)
        for key in _KEPT_OF_QUANTIZATION
        if part.get(key) is not None
    }
