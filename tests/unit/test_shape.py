"""A model's size, counted from its config.json, against what the Hub publishes."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner_data import config_path
from vllm_spark.errors import ConfigError
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.memory.known_models import known_shapes
from vllm_spark.memory.kv.cached_layers import Attention
from vllm_spark.memory.limits import Machine
from vllm_spark.memory.model_config import read_config, shape_of
from vllm_spark.memory.plan import make_plan
from vllm_spark.memory.shape import ModelShape
from vllm_spark.problems import Unmodelled

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "intermediate_size": 14336,
    "tie_word_embeddings": False,
}
QWEN25_7B = LLAMA_8B | {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "num_hidden_layers": 28,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "intermediate_size": 18944,
    "sliding_window": 131072,
    "use_sliding_window": False,
}
QWEN3_8B = LLAMA_8B | {
    "model_type": "qwen3",
    "head_dim": 128,
    "num_hidden_layers": 36,
    "vocab_size": 151936,
    "intermediate_size": 12288,
}
QWEN3_235B = QWEN3_8B | {
    "model_type": "qwen3_moe",
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "num_hidden_layers": 94,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 1536,
}
MIXTRAL_8X7B = LLAMA_8B | {
    "model_type": "mixtral",
    "vocab_size": 32000,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
QWEN15_MOE = LLAMA_8B | {
    "model_type": "qwen2_moe",
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_hidden_layers": 24,
    "vocab_size": 151936,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "decoder_sparse_step": 1,
}
GEMMA_2B = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "num_hidden_layers": 18,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
    "intermediate_size": 16384,
}
PHI_4 = LLAMA_8B | {
    "model_type": "phi3",
    "hidden_size": 5120,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
    "num_hidden_layers": 40,
    "vocab_size": 100352,
    "intermediate_size": 17920,
    "sliding_window": None,
}
MISTRAL_7B = LLAMA_8B | {"model_type": "mistral", "vocab_size": 32768, "sliding_window": None}
MISTRAL_24B = MISTRAL_7B | {
    "hidden_size": 5120,
    "head_dim": 128,
    "num_hidden_layers": 40,
    "vocab_size": 131072,
    "intermediate_size": 32768,
}
QWEN3_06B = QWEN3_8B | {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "tie_word_embeddings": True,
}
QWEN25_VL_7B = QWEN25_7B | {
    "model_type": "qwen2_5_vl",
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "out_hidden_size": 3584,
        "in_chans": 3,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
    },
}


def modelled(config: dict[str, Any]) -> ModelShape:
    shape = shape_of(config)
    assert isinstance(shape, ModelShape), shape
    return shape


@pytest.mark.parametrize(
    ("config", "published"),
    [
        pytest.param(LLAMA_8B, 8_030_261_248, id="Llama-3.1-8B"),
        pytest.param(QWEN25_7B, 7_615_616_512, id="Qwen2.5-7B: biases on q, k, v"),
        pytest.param(QWEN3_8B, 8_190_735_360, id="Qwen3-8B: norms on q, k"),
        pytest.param(QWEN3_235B, 235_093_634_560, id="Qwen3-235B-A22B"),
        pytest.param(MIXTRAL_8X7B, 46_702_792_704, id="Mixtral-8x7B"),
        pytest.param(QWEN15_MOE, 14_315_784_192, id="Qwen1.5-MoE-A2.7B: a shared expert"),
        pytest.param(GEMMA_2B, 2_506_172_416, id="Gemma-2B: tied unless it says otherwise"),
        pytest.param(PHI_4, 14_659_507_200, id="Phi-4"),
        pytest.param(MISTRAL_7B, 7_248_023_552, id="Mistral-7B-v0.3"),
        pytest.param(QWEN3_06B, 596_049_920, id="Qwen3-0.6B: tied, wide heads"),
        pytest.param(
            {"model_type": "mistral3", "text_config": MISTRAL_24B}, 23_572_403_200, id="nested"
        ),
        pytest.param(QWEN25_VL_7B, 8_292_166_656, id="Qwen2.5-VL-7B: a vision tower"),
    ],
)
def test_parameters_are_counted_as_the_hub_publishes_them(
    config: dict[str, Any], published: int
) -> None:
    assert modelled(config).parameters == published


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", 30_532_122_624),
        ("Qwen/Qwen3-32B-FP8", 32_762_123_264),
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 70_553_706_496),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct-FP8", 31_070_754_032),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_the_models_of_our_stacks_have_the_published_number_of_parameters(
    model: str, published: int
) -> None:
    shape = known_shapes()[model]
    assert isinstance(shape, ModelShape)
    assert shape.parameters == published


def test_a_sliding_window_as_wide_as_the_longest_sequence_is_none() -> None:
    """Phi-3-mini-128k and Phi-4-mini have one of 262,144 tokens, over 131,072 positions."""
    wide = modelled(PHI_4 | {"sliding_window": 262144})
    assert wide == modelled(PHI_4)
    narrow = modelled(PHI_4 | {"sliding_window": 2047})
    assert [layer.retained_tokens for layer in narrow.cached if isinstance(layer, Attention)] == [
        2047
    ]


@pytest.mark.parametrize(
    ("model", "per_token"),
    [
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", 98_304),
        ("Qwen/Qwen3-32B-FP8", 262_144),
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 327_680),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 23_040),
    ],
)
def test_a_token_leaves_keys_and_values_in_every_layer(model: str, per_token: int) -> None:
    shape = known_shapes()[model]
    assert isinstance(shape, ModelShape)
    assert shape.kv_bytes_per_token(element_bytes=2, tensor_parallel=1) == per_token


def test_two_gpus_share_the_kv_heads_until_each_has_one() -> None:
    shape = modelled(LLAMA_8B)
    whole = shape.kv_bytes_per_token(2, tensor_parallel=1)
    assert shape.kv_bytes_per_token(2, tensor_parallel=2) == whole // 2
    assert shape.kv_bytes_per_token(2, tensor_parallel=16) == whole // 8


def test_one_token_reads_only_its_experts_and_one_row_of_the_embedding() -> None:
    shape = known_shapes()["Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"]
    assert isinstance(shape, ModelShape)
    read = shape.bytes_read_per_token(shape.quantization, dtype_bytes=2, tensor_parallel=1)
    assert read == pytest.approx(3.365e9, rel=0.002)  # of 31.2e9


def test_tied_embeddings_are_stored_once_and_read_as_the_output_layer() -> None:
    tied, untied = (modelled(LLAMA_8B | {"tie_word_embeddings": tied}) for tied in (True, False))
    matrix = 128256 * 4096
    assert untied.parameters - tied.parameters == matrix
    assert untied.weight_bytes(None, 2, 1) - tied.weight_bytes(None, 2, 1) == 2 * matrix
    assert untied.bytes_read_per_token(None, 2, 1) == tied.bytes_read_per_token(None, 2, 1)


def quantized(config: dict[str, Any], **quantization: Any) -> float:
    """Weights in 10**9 bytes."""
    shape = modelled(config | {"quantization_config": quantization})
    return shape.weight_bytes(shape.quantization, 2, 1) / 1e9


def channel(**weights: Any) -> dict[str, Any]:
    return {"group_0": {"weights": {"num_bits": 8, "type": "float"} | weights}}


def test_awq_weights_take_what_the_checkpoint_takes() -> None:
    size = quantized(QWEN25_7B, quant_method="awq", bits=4, group_size=128)
    assert size == pytest.approx(5.58, rel=0.01)  # Qwen2.5-7B-Instruct-AWQ on the Hub


@pytest.mark.parametrize(
    ("scheme", "billion_bytes"),
    [
        # by hand: 6.979e9 weights in linear layers with their scales, 1.051e9 in 16 bits, twice
        pytest.param(
            {
                "quant_method": "compressed-tensors",
                "ignore": ["lm_head"],
                "config_groups": {
                    "group_0": {
                        "weights": {
                            "num_bits": 4,
                            "type": "int",
                            "strategy": "group",
                            "group_size": 128,
                            "symmetric": True,
                        }
                    }
                },
            },
            5.70,
            id="w4a16",
        ),
        pytest.param({"quant_method": "gptq", "bits": 4, "group_size": 128}, 5.73, id="gptq"),
        pytest.param({"quant_method": "fp8"}, 9.08, id="fp8"),
    ],
)
def test_an_8b_model_takes_the_bytes_of_its_quantised_checkpoint(
    scheme: dict[str, Any], billion_bytes: float
) -> None:
    assert quantized(LLAMA_8B, **scheme) == pytest.approx(billion_bytes, rel=0.01)


def test_an_nvfp4_weight_takes_nine_sixteenths_of_a_byte() -> None:
    size = quantized(LLAMA_8B, quant_method="modelopt", quant_algo="NVFP4", ignore=["lm_head"])
    assert size == pytest.approx(6.979e9 * 0.5625 / 1e9 + 2 * 1.051, rel=0.01)


def test_modelopts_own_file_beside_the_config_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_8B))
    quantization = {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16}
    scheme = {"quantization": quantization | {"exclude_modules": ["lm_head", "*down_proj"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(scheme))
    shape = read_config(path)
    assert isinstance(shape, ModelShape)
    assert shape.quantization is not None
    assert shape.quantization.label.startswith("nvfp4")
    assert shape.quantization.leaves_alone("model.layers.0.mlp.down_proj")
    assert shape.fp8_kv_cache


@pytest.mark.parametrize(
    "ignored", ["re:.*down_proj$", "model.layers.*.mlp.down_proj", "down_proj"]
)
def test_layers_that_a_checkpoint_leaves_in_16_bits_are_counted_so(ignored: str) -> None:
    scheme = {"quant_method": "compressed-tensors", "config_groups": channel(strategy="channel")}
    one_byte_more_each = 32 * 4096 * 14336
    fewer_scales = 32 * 4 * 4096
    difference = quantized(LLAMA_8B, **scheme, ignore=[ignored]) - quantized(LLAMA_8B, **scheme)
    assert difference * 1e9 == pytest.approx(one_byte_more_each - fewer_scales, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer_types": ["full_attention", "lightning_attention"]}, "lightning_attention"),
        ({"mamba_d_state": 128}, "hybrid"),
        ({"model_type": "minimax", "attn_type_list": [0, 0, 1]}, "lightning"),
        ({"model_type": "lfm2", "conv_L_cache": 3}, "hybrid"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "brand_new"}, "brand_new"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": channel(strategy="token"),
                }
            },
            "token",
        ),
    ],
)
def test_what_is_not_modelled_is_said_instead_of_guessed(
    change: dict[str, Any], reason: str
) -> None:
    shape = shape_of(LLAMA_8B | change)
    assert isinstance(shape, Unmodelled)
    assert reason in shape.reason


def test_an_unknown_vision_tower_is_named_and_not_guessed() -> None:
    shape = modelled({"model_type": "llava", "text_config": LLAMA_8B, "vision_config": {"x": 1}})
    assert shape.vision_parameters is None
    assert shape.parameters == 8_030_261_248


def test_yarn_stretches_the_positions() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    short = QWEN3_8B | {"max_position_embeddings": 40960}
    assert modelled(short | {"rope_scaling": yarn}).positions == 131072


def test_everything_that_a_config_lacks_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        shape_of({"model_type": "llama", "hidden_size": "4096", "num_hidden_layers": 32})
    assert {problem.where.rpartition(" ")[2] for problem in raised.value.problems} == {
        "hidden_size",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
        "intermediate_size",
    }


@pytest.mark.parametrize(
    "content",
    ["{cut", "[]", '"text"', "{}", json.dumps(LLAMA_8B | {"rope_scaling": "yarn"}), "\x00"],
)
def test_a_file_that_is_no_config_is_a_problem_with_a_fix(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert all(problem.fix for problem in raised.value.problems)


@pytest.mark.parametrize("layers", [10**9, 10**30, -1, 2.5, True, "32"])
def test_a_number_of_layers_that_no_model_has_is_refused_at_once(layers: Any) -> None:
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        shape_of(LLAMA_8B | {"num_hidden_layers": layers})


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_config", "hidden_size", 9.1e152),
        ("text_config", "num_kv_shared_layers", 30),
    ],
)
def test_a_size_beside_the_layers_that_no_model_has_is_no_traceback(
    part: str, key: str, value: Any, tmp_path: Path
) -> None:
    config = json.loads(config_path("google--gemma-4-26B-A4B").read_text())["config"]
    config[part][key] = value
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert all(problem.fix for problem in raised.value.problems)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([None]),
    st.just(["full_attention"]),
)


@given(st.data())
def test_no_config_ends_in_anything_but_a_shape_a_reason_or_an_error_with_a_fix(
    data: st.DataObject,
) -> None:
    """A config of a real model, with up to three of its values replaced by others."""
    names = ["Qwen--Qwen3.6-35B-A3B", "openai--gpt-oss-20b", "google--gemma-4-26B-A4B",
             "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4", "zai-org--GLM-5.3-FP8",
             "deepseek-ai--DeepSeek-V4-Flash"]  # fmt: skip
    content = json.loads(config_path(data.draw(st.sampled_from(names))).read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        config = content["config"]
        parts = [config, *(value for value in config.values() if isinstance(value, dict) and value)]
        part = data.draw(st.sampled_from(parts))
        part[data.draw(st.sampled_from(sorted(part)))] = data.draw(VALUES)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(content))
        try:
            shape = read_config(path)
        except ConfigError as error:
            assert all(problem.fix for problem in error.problems)
            return
    if isinstance(shape, ModelShape):
        assert make_plan(shape, EngineFlags(), Machine())
