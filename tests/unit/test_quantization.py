"""Which layers a quantisation config means, and in which form: read, or refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_spark.memory.quantization import Quantization, quantization_of
from vllm_spark.memory.weights.names import LayerNames
from vllm_spark.problems import Unmodelled

EXPERT = "model.layers.3.mlp.experts.0.up_proj"
QUERY = "model.layers.3.self_attn.q_proj"


def read(**config: Any) -> Quantization:
    found = quantization_of(config)
    assert isinstance(found, Quantization), found.reason
    return found


def group(targets: list[str], bits: int = 8) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "float", "strategy": "channel"}
    if bits == 4:
        weights |= {"strategy": "tensor_group", "group_size": 16}
    return {"targets": targets, "weights": weights}


@pytest.mark.parametrize(
    "pattern",
    [
        "re:.*mlp.experts.*",
        "model.layers.3.mlp.experts.0.up_proj",
        "model.language_model.layers.3.mlp*",
        "language_model.model.layers.3.mlp.experts",
        "re:model\\.language_model\\.layers\\.3\\.mlp.*",
        "mlp.experts",
        "Linear",
    ],
)
def test_layers_are_named_in_five_ways_below_any_prefix(pattern: str) -> None:
    assert EXPERT in LayerNames([pattern])


@pytest.mark.parametrize(
    "pattern", ["re:mlp", "model.layers.30.mlp", "experts.1", "model.layers.3.mlp", "mtp*"]
)
def test_a_part_of_a_name_is_not_the_name(pattern: str) -> None:
    assert QUERY not in LayerNames([pattern])


def test_the_targets_of_compressed_tensors_are_read() -> None:
    experts_only = read(
        quant_method="compressed-tensors", config_groups={"a": group(["re:.*experts.*"])}
    )
    assert not experts_only.leaves_alone(EXPERT)
    assert experts_only.leaves_alone(QUERY)


def test_groups_of_one_checkpoint_may_differ_and_a_name_goes_before_every_linear() -> None:
    mixed = read(
        quant_method="compressed-tensors",
        config_groups={"a": group(["Linear"]), "b": group(["re:.*experts.*"], bits=4)},
        ignore=["lm_head"],
    )
    expert, query = mixed.form_of(EXPERT), mixed.form_of(QUERY)
    assert expert is not None
    assert query is not None
    assert (expert.bytes_per_weight, query.bytes_per_weight) == (0.5, 1)
    assert mixed.label == "nvfp4, groups of 16 and fp8, one scale a channel"


def test_a_target_that_is_a_class_is_refused_and_not_passed_over() -> None:
    found = quantization_of(
        {"quant_method": "compressed-tensors", "config_groups": {"a": group(["FusedMoE"])}}
    )
    assert isinstance(found, Unmodelled)
    assert "FusedMoE" in found.reason


def test_the_dynamic_rules_of_gptqmodel_are_read() -> None:
    rules = {"-:.*self_attn.*": {}, "+:.*experts.*": {"bits": 8, "group_size": 64}}
    found = read(quant_method="gptq", bits=4, group_size=128, dynamic=rules)
    assert found.leaves_alone(QUERY)
    expert, other = found.form_of(EXPERT), found.form_of("model.layers.3.mlp.up_proj")
    assert expert is not None
    assert other is not None
    assert (expert.bytes_per_weight, other.bytes_per_weight) == (1, 0.5)


@pytest.mark.parametrize(("lm_head", "alone"), [(True, False), (False, True)])
def test_the_output_layer_is_quantised_only_where_it_is_named(lm_head: bool, alone: bool) -> None:
    found = read(quant_method="gptq", bits=4, group_size=128, lm_head=lm_head)
    assert found.leaves_alone("lm_head") is alone
    assert read(quant_method="fp8").leaves_alone("lm_head")


def test_the_list_of_layers_of_a_mixed_checkpoint_decides() -> None:
    layers = {
        "model.language_model.layers.3.mlp.experts": {"quant_algo": "W4A16_NVFP4"},
        "model.language_model.layers.3.self_attn.q_proj": {"quant_algo": "FP8"},
        "lm_head": {"quant_algo": "W4A16_NVFP4"},
    }
    found = read(quant_method="modelopt", quant_algo="MIXED_PRECISION", quantized_layers=layers)
    sizes = {
        name: form.bytes_per_weight if (form := found.form_of(name)) else 2
        for name in (EXPERT, QUERY, "lm_head", "model.layers.4.self_attn.q_proj")
    }
    assert list(sizes.values()) == [0.5, 1, 0.5, 2]


def test_modelopts_algorithm_is_enough_where_the_method_is_missing() -> None:
    found = read(quantization={"quant_algo": "FP8", "exclude_modules": ["lm_head"]})
    assert found.method == "modelopt"
    assert found.label == "fp8, one scale a matrix"


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "bitsandbytes"},
        {"quant_method": "modelopt", "quant_algo": "INT3"},
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
        {"quant_method": "compressed-tensors"},
        {},
    ],
)
def test_what_is_not_known_is_refused_with_a_reason(config: dict[str, Any]) -> None:
    assert isinstance(quantization_of(config), Unmodelled)
