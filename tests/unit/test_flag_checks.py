"""What is wrong with engine flags is said at preview, all of it, with key, value and fix."""

from __future__ import annotations

import pytest

from vllm_spark.flags.argv import FlagValue
from vllm_spark.flags.checks import check, integer
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.flags.history import NEWEST
from vllm_spark.images import Version
from vllm_spark.memory.model_checks import check_length, check_quantization
from vllm_spark.memory.quantization import Quantization
from vllm_spark.problems import Problem

GUIDE: dict[str, FlagValue] = {
    "max-model-len": 32768,
    "gpu-memory-utilization": 0.85,
    "max-num-batched-tokens": 16384,
    "max-num-seqs": 64,
    "enable-prefix-caching": True,
    "trust-remote-code": True,
}


def errors(flags: dict[str, FlagValue], version: str | None = "0.28.0") -> list[Problem]:
    return check(EngineFlags(flags), version=Version.parse(version) if version else None)[0]


def the_error(flags: dict[str, FlagValue], version: str | None = "0.28.0") -> Problem:
    (problem,) = errors(flags, version)
    return problem


@pytest.mark.parametrize("version", ["0.10.1.1", "0.20.1", "0.33.0", "0.40.0", None])
def test_the_guides_flags_are_right_on_every_image(version: str | None) -> None:
    assert check(EngineFlags(GUIDE), version=Version.parse(version) if version else None) == (
        [],
        [],
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("max-num-seqs", "max_num_seqs"),
        ("enable-prefix-caching", "no-enable-prefix-caching"),
        ("tensor-parallel-size", "-tp"),
        ("gpu-memory-utilization", "device-memory-utilization"),
        ("enable-prefix-caching", "disable-prefix-caching"),
    ],
)
def test_a_flag_in_two_spellings_is_refused_by_the_second(first: str, second: str) -> None:
    value: FlagValue = True if "prefix" in first else 1
    problem = the_error({first: value, second: value})
    assert problem.where == f"vllm-spark:engine.{second}"
    assert first in problem.what


def test_a_part_beside_the_whole_is_refused_since_vllm_would_drop_the_whole() -> None:
    problem = the_error({"compilation-config": {"mode": 3}, "compilation-config.backend": "eager"})
    assert problem.where == "vllm-spark:engine.compilation-config.backend"
    assert problem.fix == "move backend into compilation-config"


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("model", "vllm-spark:model.id"),
        ("host", "vllm-spark:endpoint.bind"),
        ("port", "vllm-spark:endpoint.port"),
        ("api_key", "vllm-spark:apiKey"),
        ("hf-token", "vllm-spark:huggingFaceToken"),
        ("served-model-name", "vllm-spark:model.servedName"),
        ("revision", "vllm-spark:model.revision"),
        ("download-dir", "vllm-spark:cache"),
    ],
)
def test_a_flag_that_follows_from_another_key_is_refused_with_that_key(flag: str, key: str) -> None:
    problem = the_error({flag: "some-value"})
    assert problem.where == f"vllm-spark:engine.{flag}"
    assert key in problem.fix


def test_a_secret_given_as_a_flag_is_not_repeated_in_the_error() -> None:
    for flag in ("api-key", "hf-token"):
        assert "s3cret" not in str(the_error({flag: "s3cret"}))


def test_a_flag_of_another_release_is_an_error_and_an_unknown_one_a_warning() -> None:
    flags: dict[str, FlagValue] = {
        "swap-space": 4,
        "brand-new-flag": 1,
        "logging-config.log_level": "debug",
    }
    found = check(
        EngineFlags(flags),
        version=Version.parse("0.28.0"),
    )
    assert [problem.where for problem in found[0]] == [
        "vllm-spark:engine.swap-space",
        "vllm-spark:engine.logging-config.log_level",
    ]
    assert [problem.where for problem in found[1]] == ["vllm-spark:engine.brand-new-flag"]


def test_the_short_o_is_refused_before_0_12_where_it_meant_something_else() -> None:
    assert "since 0.12.0" in the_error({"-O": 3}, "0.11.0").what
    assert errors({"-O": 3}, "0.12.0") == []


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("gpu-memory-utilization", 1.5),
        ("gpu-memory-utilization", 0),
        ("gpu-memory-utilization", -0.1),
        ("gpu-memory-utilization", "85%"),
        ("gpu-memory-utilization", float("nan")),
        ("max-model-len", -2),
        ("max-model-len", 0),
        ("max-model-len", "long"),
        ("max-model-len", 32768.5),
        ("max-num-seqs", 0),
        ("max-num-seqs", "64k"),
        ("max-num-seqs", True),
        ("max-num-batched-tokens", 0),
        ("tensor-parallel-size", 0),
        ("cpu-offload-gb", -1),
        ("seed", "x"),
        ("enable-prefix-caching", "true"),
        ("enforce-eager", 1),
        ("tokenizer", True),
        ("tokenizer", ["a"]),
        ("hf-overrides", 1),
        ("lora-modules", True),
        ("dtype", "fp16"),
        ("kv-cache-dtype", "fp9"),
        ("max-num-seqs", None),
        ("lora-modules", []),
    ],
)
def test_an_impossible_value_is_refused_at_the_key_that_the_user_wrote(
    flag: str, value: FlagValue
) -> None:
    written = flag.replace("-", "_")
    problem = the_error({written: value})
    assert problem.where == f"vllm-spark:engine.{written}"
    assert problem.fix


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("gpu-memory-utilization", 1),
        ("gpu-memory-utilization", "0.85"),
        ("max-model-len", "32k"),
        ("max-model-len", "25.6k"),
        ("max-model-len", "32K"),
        ("max-model-len", 32768.0),
        ("max-model-len", "auto"),
        ("max-model-len", -1),
        ("max-num-seqs", "64"),
        ("kv-cache-memory-bytes", "4g"),
        ("seed", -1),
        ("hf-overrides", "my.module.function"),
        ("lora-modules", "a=/a"),
        ("tokenizer", "a/b"),
        ("revision-like-unknown", None.__class__.__name__),
        ("dtype", "bfloat16"),
        ("kv-cache-dtype", "fp8"),
    ],
)
def test_a_value_that_vllm_accepts_passes(flag: str, value: FlagValue) -> None:
    assert errors({flag: value}) == []


def test_an_automatic_length_is_refused_before_the_release_that_has_it() -> None:
    for value in ("auto", -1, -1.0):
        assert "since vLLM 0.14.0" in the_error({"max-model-len": value}, "0.13.0").what
        assert errors({"max-model-len": value}, "0.14.0") == []
        assert errors({"max-model-len": value}, None) == []


def test_a_word_from_a_later_release_is_refused_with_that_release() -> None:
    assert "since vLLM 0.20.0" in the_error({"kv-cache-dtype": "nvfp4"}, "0.19.0").what
    assert errors({"kv-cache-dtype": "nvfp4"}, "0.20.0") == []


def test_an_unknown_word_is_fixed_with_the_nearest_and_left_to_releases_beyond_the_table() -> None:
    assert the_error({"kv-cache-dtype": "fp8_e4m4"}).fix == "write fp8_e4m3"
    assert len(errors({"kv-cache-dtype": "fp9"}, str(NEWEST))) == 1
    assert errors({"kv-cache-dtype": "fp9"}, f"{NEWEST}.1") == []


def test_a_batch_must_hold_a_token_of_every_sequence() -> None:
    problem = the_error({"max-num-seqs": 256, "max_num_batched_tokens": 128})
    assert problem.where == "vllm-spark:engine.max_num_batched_tokens"
    assert "256" in problem.fix
    assert errors({"max-num-seqs": 128, "max-num-batched-tokens": 128}) == []


def test_without_chunked_prefill_a_batch_must_hold_a_full_prompt() -> None:
    flags: dict[str, FlagValue] = {"max-model-len": "8K", "max-num-batched-tokens": 4096}
    unchunked = flags | {"enable-chunked-prefill": False}
    assert "8192" in the_error(unchunked).fix
    assert "8192" in the_error(flags | {"no-enable-chunked-prefill": True}).fix
    assert errors(flags) == []
    assert len(errors(unchunked, "0.11.1")) == 1
    assert errors(unchunked, "0.11.0") == []  # ignored there: V1 always chunked


@pytest.mark.parametrize(
    ("flag", "needed", "value"),
    [
        ("enable-auto-tool-choice", "tool-call-parser", "hermes"),
        ("enable-log-outputs", "enable-log-requests", True),
    ],
)
def test_a_flag_that_needs_another_is_refused_without_it(
    flag: str, needed: str, value: FlagValue
) -> None:
    assert needed in the_error({flag: True}).fix
    assert errors({flag: True, needed: value}) == []
    assert errors({flag: False}) == []


def test_all_mistakes_are_said_at_once() -> None:
    found = errors(
        {
            "gpu-memory-utilization": 1.5,
            "max_num_seqs": 0,
            "max-num-seqs": 64,
            "port": 8000,
            "swap-space": 4,
            "enable-auto-tool-choice": True,
        }
    )
    assert sorted(problem.where.removeprefix("vllm-spark:engine.") for problem in found) == [
        "enable-auto-tool-choice",
        "gpu-memory-utilization",
        "max-num-seqs",
        "max_num_seqs",
        "port",
        "swap-space",
    ]


def test_a_length_beyond_the_models_positions_is_refused_with_the_longest_possible() -> None:
    (problem,) = check_length(EngineFlags({"max_model_len": 65536}), 40960, {})
    assert problem.where == "vllm-spark:engine.max_model_len"
    assert "40960" in problem.fix
    assert check_length(EngineFlags({"max-model-len": 40960}), 40960, {}) == []
    assert check_length(EngineFlags({"max-model-len": "auto"}), 40960, {}) == []
    assert check_length(EngineFlags({}), 40960, {}) == []


@pytest.mark.parametrize(
    "stretching",
    [
        {"hf-overrides": {"rope_parameters": {"factor": 4}}},
        {"hf-overrides": '{"rope_scaling": {"factor": 4}}'},
        {"hf-overrides.max_position_embeddings": 131072},
        {"rope-scaling": {"factor": 4}},
    ],
)
def test_stretched_positions_allow_a_longer_length(stretching: dict[str, FlagValue]) -> None:
    assert check_length(EngineFlags({"max-model-len": 131072, **stretching}), 40960, {}) == []


def test_other_overrides_do_not_allow_a_longer_length() -> None:
    flags: dict[str, FlagValue] = {"max-model-len": 131072, "hf-overrides": {"head_dtype": "model"}}
    assert len(check_length(EngineFlags(flags), 40960, {})) == 1


def test_vllms_own_variable_lifts_the_rule() -> None:
    flags: dict[str, FlagValue] = {"max-model-len": 131072}
    assert check_length(EngineFlags(flags), 40960, {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}) == []
    assert len(check_length(EngineFlags(flags), 40960, {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "0"})) == 1


@pytest.mark.parametrize(
    ("asked", "stored"), [("awq", "fp8"), ("fp8", "compressed-tensors"), ("gptq", "awq")]
)
def test_another_quantisation_than_the_checkpoints_is_refused(asked: str, stored: str) -> None:
    (problem,) = check_quantization(EngineFlags({"-q": asked}), Quantization("", 1, method=stored))
    assert problem.where == "vllm-spark:engine.-q"
    assert stored in problem.what


@pytest.mark.parametrize(
    ("asked", "stored"),
    [("fp8", None), ("fp8", "fp8"), ("awq_marlin", "awq"), ("modelopt_fp4", "modelopt")],
)
def test_a_quantisation_that_vllm_can_read_the_checkpoint_with_passes(
    asked: str, stored: str | None
) -> None:
    checkpoint = Quantization("", 1, method=stored) if stored else None
    assert check_quantization(EngineFlags({"quantization": asked}), checkpoint) == []
    assert check_quantization(EngineFlags({}), checkpoint) == []


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (32768, 32768),
        (32768.0, 32768),
        ("32768", 32768),
        ("32k", 32000),
        ("25.6k", 25600),
        ("32K", 32768),
        ("1M", 1048576),
        ("1.5K", None),
        ("-1", -1),
        (0.5, None),
        (True, None),
        ("", None),
        (None, None),
        (float("inf"), None),
    ],
)
def test_whole_numbers_are_read_as_vllm_reads_them(value: FlagValue, number: int | None) -> None:
    assert integer(value) == number


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("ssl-certfile", "/c.pem"),
        ("ssl_keyfile", "/k.pem"),
        ("ssl-ca-certs", "/ca.pem"),
        ("uds", "/run/vllm.sock"),
        ("headless", True),
        ("grpc", True),
        ("config", "/flags.yaml"),
        ("api-server-count", 0),
    ],
)
def test_a_flag_under_which_nothing_answers_plain_http_is_refused(
    flag: str, value: FlagValue
) -> None:
    problem = the_error({flag: value}, "0.33.0")
    assert problem.where == f"vllm-spark:engine.{flag}"
    assert problem.fix


def test_such_a_flag_that_is_off_is_none() -> None:
    assert errors({"headless": False, "grpc": False}, "0.33.0") == []
