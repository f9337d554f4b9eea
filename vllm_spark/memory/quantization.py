"""How many bytes a weight matrix takes, by the checkpoint's `quantization_config`.

It is a room of its own because the checkpoints differ here more than anywhere else: each format
stores its scales in another shape, and names in its own way the layers that it leaves alone. What
is not known for certain is refused with a reason, never guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from vllm_spark.problems import Unmodelled

_IGNORE_KEYS = ("ignore", "modules_to_not_convert", "exclude_modules", "ignored_layers")


@dataclass(frozen=True)
class Quantization:
    """The stored form of a linear layer's weights.

    `scale_rows` x `scale_columns` is the tile of the (outputs, inputs) matrix that shares one
    scale of `scale_bytes`; None means the whole dimension.
    """

    label: str
    bytes_per_weight: float
    scale_bytes: float = 0.0
    scale_rows: int | None = None
    scale_columns: int | None = None
    ignore: tuple[str, ...] = ()
    method: str | None = None
    """`quant_method` of the checkpoint; None for what vLLM quantises while it loads."""

    def matrix_bytes(self, inputs: int, outputs: int) -> float:
        """Bytes of one matrix with its scales."""
        rows = math.ceil(outputs / self.scale_rows) if self.scale_rows else 1
        columns = math.ceil(inputs / self.scale_columns) if self.scale_columns else 1
        return self.bytes_per_weight * inputs * outputs + self.scale_bytes * rows * columns

    def leaves_alone(self, layer: str) -> bool:
        """Whether the checkpoint keeps `layer` (its dotted name) in 16 bits.

        The formats write `re:.*mlp.gate$`, `model.layers.0*`, a full name, or a part of one.
        """
        return any(_names(pattern, layer) for pattern in self.ignore)


def _names(pattern: str, layer: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], layer) is not None
    return fnmatchcase(layer, pattern) or f".{pattern}." in f".{layer}."


def fp8_per_tensor(ignore: tuple[str, ...] = ()) -> Quantization:
    """One scale a matrix: what `--quantization fp8` makes of a 16-bit checkpoint."""
    return Quantization("fp8, one scale a matrix", 1, 4, ignore=ignore)


def quantization_of(config: Mapping[str, Any]) -> Quantization | Unmodelled:
    """Read a `quantization_config`."""
    method = str(config.get("quant_method", ""))
    found = _scheme(method, config)
    return replace(found, method=method) if isinstance(found, Quantization) else found


def _scheme(method: str, config: Mapping[str, Any]) -> Quantization | Unmodelled:
    nested = config.get("quantization") or {}  # where ModelOpt's own file keeps the scheme
    ignore = tuple(
        name for part in (config, nested) for key in _IGNORE_KEYS for name in part.get(key) or ()
    )
    if method == "fp8":
        block = config.get("weight_block_size")
        if block is None:
            return fp8_per_tensor(ignore)
        return Quantization(f"fp8, {block[0]}x{block[1]} blocks", 1, 4, block[0], block[1], ignore)
    if method in ("awq", "gptq"):
        bits, group = int(config.get("bits", 4)), int(config.get("group_size", 128))
        # fp16 scale and packed zero point for each group of inputs
        columns = group if group > 0 else None
        label = f"{method}, {bits} bits in groups of {group}"
        return Quantization(label, bits / 8, 2 + bits / 8, 1, columns, ignore)
    if method == "compressed-tensors":
        return _compressed_tensors(config, ignore)
    if method == "modelopt":
        algorithm = config.get("quant_algo") or nested.get("quant_algo")
        if algorithm == "NVFP4":
            return _nvfp4(ignore)
        if algorithm == "FP8":
            return fp8_per_tensor(ignore)
        return Unmodelled(f"the ModelOpt format {algorithm!r}")
    return Unmodelled(f"the quantisation method {method!r}")


def _nvfp4(ignore: tuple[str, ...]) -> Quantization:
    return Quantization("nvfp4, groups of 16", 0.5, 1, 1, 16, ignore)


def _compressed_tensors(
    config: Mapping[str, Any], ignore: tuple[str, ...]
) -> Quantization | Unmodelled:
    groups = [group.get("weights") or {} for group in config.get("config_groups", {}).values()]
    weights = groups[0] if groups else {}
    if not weights or any(group != weights for group in groups):
        return Unmodelled("a compressed-tensors checkpoint whose layers differ in format")
    bits, strategy = int(weights.get("num_bits", 0)), weights.get("strategy")
    kind = f"{'fp' if weights.get('type') == 'float' else 'int'}{bits}"
    if kind == "fp4" and weights.get("group_size") == 16:
        return _nvfp4(ignore)
    if strategy == "tensor" and bits == 8:
        return Quantization(f"{kind}, one scale a matrix", 1, 4, ignore=ignore)
    if strategy == "channel" and bits in (4, 8):
        return Quantization(f"{kind}, one scale a channel", bits / 8, 4, 1, None, ignore)
    if strategy == "block" and bits == 8:
        rows, columns = weights["block_structure"]
        return Quantization(f"{kind}, {rows}x{columns} blocks", 1, 4, rows, columns, ignore)
    if strategy == "group" and kind in ("int4", "int8"):
        size = int(weights["group_size"])
        # bf16 scale, and a packed zero point unless symmetric
        zero = 0 if weights.get("symmetric", True) else bits / 8
        return Quantization(f"{kind}, groups of {size}", bits / 8, 2 + zero, 1, size, ignore)
    return Unmodelled(f"compressed-tensors {kind} weights with the strategy {strategy!r}")


def stores_fp8_kv_cache(config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint itself asks for an 8-bit KV cache, which vLLM's `auto` follows."""
    nested = config.get("quantization")
    for part in (config, nested if isinstance(nested, Mapping) else {}):
        scheme = part.get("kv_cache_scheme")
        if isinstance(scheme, Mapping) and scheme.get("num_bits") == 8:
            return True
        if str(part.get("kv_cache_quant_algo", "")).upper() == "FP8":
            return True
    return False
