"""How many bytes a weight matrix takes, by the checkpoint's `quantization_config`.

The checkpoints differ here more than anywhere else: each format stores its scales in another
shape, and names in its own way the layers that it leaves alone. What is not known for certain is
refused with a reason, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vllm_spark.memory.weights.names import EVERY_LINEAR, LayerNames
from vllm_spark.problems import Unmodelled

_IGNORE_KEYS = ("ignore", "modules_to_not_convert", "exclude_modules", "ignored_layers")
OUTPUT_LAYER = "lm_head"


@dataclass(frozen=True)
class Quantization:
    """The stored form of the linear layers' weights.

    `scale_rows` x `scale_columns` is the tile of the (outputs, inputs) matrix that shares one
    scale of `scale_bytes`; None means the whole dimension.
    """

    label: str
    bytes_per_weight: float
    scale_bytes: float = 0.0
    scale_rows: int | None = None
    scale_columns: int | None = None
    ignore: LayerNames = field(default_factory=lambda: LayerNames(()))
    method: str | None = None
    """`quant_method` of the checkpoint; None for what vLLM quantises while it loads."""
    targets: LayerNames = field(default_factory=lambda: LayerNames((EVERY_LINEAR,)))
    """The layers that have this form."""
    others: tuple[Quantization, ...] = ()
    """Further forms in the same checkpoint; they go first."""
    mxfp4: bool = False
    """Whether this is the format whose experts the kernels pad."""

    def __post_init__(self) -> None:
        """ValueError for a tile that is none."""
        for side in (self.scale_rows, self.scale_columns):
            if side is not None and (not isinstance(side, int) or side <= 0):
                raise ValueError(f"scales for tiles of {side!r} weights")
        if not 0 <= self.bytes_per_weight <= 8:
            raise ValueError(f"{self.bytes_per_weight} bytes for a weight")

    def matrix_bytes(self, inputs: int, outputs: int) -> float:
        """Bytes of one matrix with its scales."""
        rows = math.ceil(outputs / self.scale_rows) if self.scale_rows else 1
        columns = math.ceil(inputs / self.scale_columns) if self.scale_columns else 1
        return self.bytes_per_weight * inputs * outputs + self.scale_bytes * rows * columns

    def form_of(self, layer: str) -> Quantization | None:
        """The form of `layer` (its dotted name); None if the checkpoint keeps it in 16 bits."""
        if layer in self.ignore:
            return None
        for form in self.others:
            if layer in form.targets:
                return form if form.bytes_per_weight else None
        if layer == OUTPUT_LAYER and EVERY_LINEAR in self.targets.patterns:
            return None  # it is no linear layer, so only its name can mean it
        return self if layer in self.targets else None

    def leaves_alone(self, layer: str) -> bool:
        """Whether the checkpoint keeps `layer` (its dotted name) in 16 bits."""
        return self.form_of(layer) is None


def fp8_per_tensor() -> Quantization:
    """One scale a matrix: what `--quantization fp8` makes of a 16-bit checkpoint."""
    return Quantization("fp8, one scale a matrix", 1, 4)


def quantization_of(config: Mapping[str, Any]) -> Quantization | Unmodelled:
    """Read a `quantization_config`."""
    nested = config.get("quantization")
    parts = [config, *([nested] if isinstance(nested, Mapping) else [])]
    method = str(config.get("quant_method") or _method_of_modelopt(parts))
    found = _scheme(method, parts)
    if isinstance(found, Unmodelled):
        return found
    # Beside FP8, ModelOpt's `ignore` names what is not FP4: that is FP8 all the same.
    keys = _IGNORE_KEYS if not (method == "fp8" and found.others) else _IGNORE_KEYS[1:2]
    ignored = LayerNames(
        str(name) for part in parts for key in keys for name in part.get(key) or ()
    )
    return replace(
        found, method=method, ignore=LayerNames((*found.ignore.patterns, *ignored.patterns))
    )


def _method_of_modelopt(parts: list[Mapping[str, Any]]) -> str:
    """ModelOpt's own file and its first configs name the algorithm and no method."""
    return "modelopt" if any(part.get("quant_algo") for part in parts) else ""


def with_fp4_experts(form: Quantization) -> Quantization:
    """DeepSeek V4's own checkpoints: FP8, with experts in MXFP4, as the model's config says."""
    if form.others:
        return form
    experts = Quantization("mxfp4 experts", 0.5, 1, 1, 32, targets=LayerNames(("ffn.experts",)))
    return replace(form, label=f"{form.label} and mxfp4 experts", others=(experts,))


def _scheme(method: str, parts: list[Mapping[str, Any]]) -> Quantization | Unmodelled:
    config = parts[0]
    algorithm = next((part["quant_algo"] for part in parts if part.get("quant_algo")), None)
    if algorithm == "MIXED_PRECISION":
        return _mixed(method, parts)
    if method == "fp8":
        return _fp8(config)
    if method in ("awq", "gptq", "gptq_marlin", "awq_marlin"):
        return _integer_groups(method, config)
    if method == "compressed-tensors":
        return _compressed_tensors(config)
    if method == "mxfp4":
        experts = LayerNames(("mlp.experts",))
        return Quantization("mxfp4 experts", 0.5, 1, 1, 32, targets=experts, mxfp4=True)
    if method.startswith("modelopt"):
        form = _modelopt(str(algorithm))
        return form or Unmodelled(f"the ModelOpt format {algorithm!r}")
    return Unmodelled(f"the quantisation method {method!r}")


def _fp8(config: Mapping[str, Any]) -> Quantization:
    block = config.get("weight_block_size")
    if block is None:
        return fp8_per_tensor()
    return Quantization(f"fp8, {block[0]}x{block[1]} blocks", 1, 4, block[0], block[1])


def _integer_groups(method: str, config: Mapping[str, Any]) -> Quantization:
    """AWQ and GPTQ. GPTQModel's `dynamic` changes sizes by name; `-:` leaves a layer alone."""
    form = _group_form(method, config)
    others = [
        replace(
            _group_form(method, {**config, **change}) if not name.startswith("-:") else _PLAIN,
            targets=LayerNames((f"re:{name.removeprefix('+:').removeprefix('-:')}",)),
        )
        for name, change in (config.get("dynamic") or {}).items()
    ]
    if config.get("lm_head"):
        others.append(replace(form, targets=LayerNames((OUTPUT_LAYER,))))
    return replace(form, others=tuple(others))


_PLAIN = Quantization("16 bits", 0)
"""Stands for layers that a rule leaves in 16 bits."""


def _group_form(method: str, config: Mapping[str, Any]) -> Quantization:
    bits, group = int(config.get("bits", 4)), int(config.get("group_size", 128))
    # fp16 scale and packed zero point for each group of inputs
    columns = group if group > 0 else None
    label = f"{method}, {bits} bits in groups of {group}"
    return Quantization(label, bits / 8, 2 + bits / 8, 1, columns)


def _modelopt(algorithm: str) -> Quantization | None:
    return {
        "NVFP4": Quantization("nvfp4, groups of 16", 0.5, 1, 1, 16),
        "W4A16_NVFP4": Quantization("nvfp4, groups of 16", 0.5, 1, 1, 16),
        "MXFP8": Quantization("mxfp8, groups of 32", 1, 1, 1, 32),
        "FP8": Quantization("fp8, one scale a matrix", 1, 4),
        "FP8_PER_CHANNEL_PER_TOKEN": Quantization("fp8, one scale a channel", 1, 4, 1),
        "FP8_PB_WO": Quantization("fp8, 128x128 blocks", 1, 4, 128, 128),
    }.get(algorithm)


def _mixed(method: str, parts: list[Mapping[str, Any]]) -> Quantization | Unmodelled:
    """ModelOpt's list of layers, each with its algorithm; the rest is FP8 or 16 bits."""
    key = "quantized_layers"
    layers: Mapping[str, Any] = next((part[key] for part in parts if part.get(key)), {})
    by_algorithm: dict[str, list[str]] = {}
    for name, form in layers.items():
        by_algorithm.setdefault(str(form.get("quant_algo")), []).append(name)
    if not by_algorithm:
        return Unmodelled("a MIXED_PRECISION checkpoint that does not list its layers")
    forms = []
    for algorithm, names in by_algorithm.items():
        form = _modelopt(algorithm)
        if form is None:
            return Unmodelled(f"the ModelOpt format {algorithm!r}")
        forms.append(replace(form, targets=LayerNames(names)))
    label = " and ".join(dict.fromkeys(form.label for form in forms))
    if method == "fp8":
        return replace(_fp8(parts[0]), label=label, others=tuple(forms))
    nothing = LayerNames(())
    return Quantization(label, 0, targets=nothing, others=tuple(forms))


def _compressed_tensors(config: Mapping[str, Any]) -> Quantization | Unmodelled:
    """Each group of `config_groups` has a format and the layers (`targets`) that it is for."""
    forms: list[Quantization] = []
    for group in config.get("config_groups", {}).values():
        form = _weights_form(group.get("weights") or {})
        if isinstance(form, Unmodelled):
            return form
        targets = [str(target) for target in group.get("targets") or (EVERY_LINEAR,)]
        classes = [name for name in targets if name[:1].isupper() and name != EVERY_LINEAR]
        if classes:
            return Unmodelled(f"compressed-tensors targets of the class {', '.join(classes)}")
        forms.append(replace(form, targets=LayerNames(targets)))
    if not forms:
        return Unmodelled("a compressed-tensors checkpoint without config_groups")
    # A layer that is named goes before the groups for every linear layer.
    forms.sort(key=lambda form: EVERY_LINEAR in form.targets.patterns)
    label = " and ".join(dict.fromkeys(form.label for form in forms))
    return replace(forms[-1], label=label, others=tuple(forms[:-1]))


def _weights_form(weights: Mapping[str, Any]) -> Quantization | Unmodelled:
    bits, strategy = int(weights.get("num_bits") or 0), weights.get("strategy")
    kind = f"{'fp' if weights.get('type') == 'float' else 'int'}{bits}"
    group = int(weights.get("group_size") or 0)
    if kind == "fp4" and group == 16:
        return Quantization("nvfp4, groups of 16", 0.5, 1, 1, 16)
    if kind in ("fp4", "fp8") and group == 32 and strategy in ("group", "tensor_group"):
        return Quantization(f"mx{kind}, groups of 32", bits / 8, 1, 1, 32)
    if strategy == "tensor" and bits == 8:
        return Quantization(f"{kind}, one scale a matrix", 1, 4)
    if strategy == "channel" and bits in (4, 8):
        return Quantization(f"{kind}, one scale a channel", bits / 8, 4, 1, None)
    if strategy == "block" and bits == 8:
        rows, columns = weights["block_structure"]
        return Quantization(f"{kind}, {rows}x{columns} blocks", 1, 4, rows, columns)
    if strategy == "group" and kind in ("int4", "int8") and group > 0:
        # bf16 scale, and a packed zero point unless symmetric
        zero = 0 if weights.get("symmetric", True) else bits / 8
        return Quantization(f"{kind}, groups of {group}", bits / 8, 2 + zero, 1, group)
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
