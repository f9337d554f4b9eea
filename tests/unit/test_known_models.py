"""A model that is in no file of models/ is planned from the config.json that its cache holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.review import misfits_of
from vllm_spark.memory.known_models import find_shape
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
