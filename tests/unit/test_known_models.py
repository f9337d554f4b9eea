"""A model that is in no file of models/ is planned from the config.json that its cache holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.review import misfits_of, plan_of
from vllm_spark.errors import ConfigError
from vllm_spark.memory.known_models import find_shape
from vllm_spark.memory.plan import MemoryPlan
from vllm_spark.memory.shape import ModelShape
from vllm_spark.problems import Unmodelled

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
}


def cached(folder: Path, text: str, revision: str = "main") -> None:
    repository = folder / "models--some--llama"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text("0123abc")
    (repository / "snapshots" / "0123abc").mkdir(parents=True)
    (repository / "snapshots" / "0123abc" / "config.json").write_text(text)


@pytest.mark.parametrize("below", ["", "hub"])
def test_a_config_in_the_cache_gives_the_shape(tmp_path: Path, below: str) -> None:
    cached(tmp_path / below, json.dumps(CONFIG))
    shape = find_shape("some/llama", None, str(tmp_path))
    assert isinstance(shape, ModelShape)
    assert shape.positions == 4096


@pytest.mark.parametrize("revision", ["v2", "0123abc"])
def test_a_revision_is_found_by_its_name_and_by_its_commit(tmp_path: Path, revision: str) -> None:
    cached(tmp_path, json.dumps(CONFIG), revision="v2")
    assert isinstance(find_shape("some/llama", revision, str(tmp_path)), ModelShape)


def test_a_model_that_is_nowhere_is_not_guessed_and_says_how_to_plan_it(tmp_path: Path) -> None:
    for folder in (str(tmp_path), str(tmp_path / "missing"), None):
        found = find_shape("some/llama", None, folder)
        assert isinstance(found, Unmodelled)
        assert "make fit MODEL=config.json" in found.reason


def test_what_does_not_fit_a_model_shows_once_its_config_is_in_the_cache(tmp_path: Path) -> None:
    config = {
        "model": "some/llama",
        "image": "nvcr.io/nvidia/vllm:25.09-py3",
        "cache": {"hostPath": str(tmp_path)},
        "engine": {"max-model-len": 8192},
    }
    settings = Settings.parse(config, frozenset())
    assert misfits_of(settings) == []
    cached(tmp_path, json.dumps({**CONFIG, "num_hidden_layers": 200, "hidden_size": 16384}))
    said = [str(problem) for problem in misfits_of(settings)]
    assert any("GiB of weights" in problem for problem in said)
    assert any("8,192 tokens are more than the model's 4,096 positions" in one for one in said)


def test_a_broken_config_in_the_cache_is_named(tmp_path: Path) -> None:
    cached(tmp_path, "{")
    found = find_shape("some/llama", None, str(tmp_path))
    assert isinstance(found, Unmodelled)
    assert "snapshots/0123abc/config.json" in found.reason


def test_a_cache_that_this_user_may_not_read_is_an_error_with_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root every folder can be read, so the refusal of the kernel is played."""

    def refused(self: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(ConfigError, match="Permission denied") as raised:
        find_shape("some/llama", None, str(tmp_path))
    (problem,) = raised.value.problems
    assert problem.where == "vllm-spark:cache.hostPath"
    assert "chmod" in problem.fix


GPU_STACK = {
    "model": "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8",
    "image": "nvcr.io/nvidia/vllm:25.09-py3",
    "cache": {"hostPath": "/opt/hf"},
    "engine": {"gpu-memory-utilization": 0.85, "max-model-len": 32768},
}


def test_the_cpus_variable_means_nothing_to_an_image_for_a_gpu() -> None:
    plain, with_it = (
        plan_of(Settings.parse({**GPU_STACK, "container": {"environment": variables}}, frozenset()))
        for variables in ({}, {"VLLM_CPU_KVCACHE_SPACE": "4"})
    )
    assert isinstance(plain, MemoryPlan)
    assert plain.pool_source == "gpu-memory-utilization"
    assert with_it == plain


def test_a_host_may_say_that_its_gpu_has_memory_of_its_own() -> None:
    host = {"memoryGiB": 79.18, "unified": False}
    plan = plan_of(Settings.parse({**GPU_STACK, "host": host}, frozenset()))
    assert isinstance(plan, MemoryPlan)
    assert plan.overhead.host_gib == 0


def test_a_draft_model_is_counted_where_it_is_known_and_named_where_it_is_not(
    tmp_path: Path,
) -> None:
    cached(tmp_path, json.dumps(CONFIG))
    plans = {}
    for draft in ("some/llama", "some/other"):
        speculation = {"method": "eagle3", "model": draft, "num_speculative_tokens": 3}
        engine = {**GPU_STACK["engine"], "speculative-config": speculation}  # type: ignore[dict-item]
        config = {**GPU_STACK, "engine": engine, "cache": {"hostPath": str(tmp_path)}}
        plans[draft] = plan_of(Settings.parse(config, frozenset()))
    known, unknown = plans["some/llama"], plans["some/other"]
    assert isinstance(known, MemoryPlan)
    assert isinstance(unknown, MemoryPlan)
    assert known.weights_gib > unknown.weights_gib
    assert not any("draft model" in note for note in known.notes())
    assert any("some/other" in note for note in unknown.notes())
