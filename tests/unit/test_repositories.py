"""What a server reads besides its model has to be in the cache before it starts offline."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.repositories import Repository, besides_the_model, leaking_pin


def found(engine: dict[str, Any], **model: str) -> list[Repository]:
    config = {
        "model": {"id": "some/model", **model},
        "image": "nvcr.io/nvidia/vllm:25.09-py3",
        "cache": {"volume": "weights"},
        "engine": engine,
    }
    return besides_the_model(Settings.parse(config, frozenset()))


@pytest.mark.parametrize(
    ("engine", "repositories"),
    [
        ({}, []),
        ({"tokenizer": "other/tokenizer"}, [Repository("other/tokenizer", None, weights=False)]),
        ({"tokenizer": "/root/.cache/huggingface/mine"}, []),
        ({"tokenizer": "some/model"}, []),
        ({"tokenizer-revision": "abc"}, [Repository("some/model", "abc", weights=False)]),
        ({"hf-config-path": "other/config"}, [Repository("other/config", None, weights=False)]),
        ({"speculative-config": {"model": "a/draft", "revision": "v2"}},
         [Repository("a/draft", "v2")]),
        ({"speculative-config.model": "a/draft"}, [Repository("a/draft", None)]),
        ({"speculative-config": {"method": "ngram"}}, []),
        ({"speculative-config": {"model": "some/model"}}, []),
        ({"lora-modules": ["sql=an/adapter", "own=/adapters/own"]},
         [Repository("an/adapter", None)]),
        ({"lora-modules": [{"name": "sql", "path": "an/adapter"}]},
         [Repository("an/adapter", None)]),
        ({"speculative-config": {"model": "a/draft"}, "tokenizer": "a/draft"},
         [Repository("a/draft", None)]),
    ],
)  # fmt: skip
def test_a_flag_that_names_a_repository_has_it_fetched(
    engine: dict[str, Any], repositories: list[Repository]
) -> None:
    assert found(engine) == repositories


def test_a_tokenizer_of_its_own_is_taken_at_the_models_revision_as_vllm_does() -> None:
    assert found({"tokenizer": "other/tokenizer"}, revision="v1") == [
        Repository("other/tokenizer", "v1", weights=False)
    ]


@pytest.mark.parametrize(
    ("version", "keys", "warned"),
    [
        ("0.28.0", {}, True),
        ("0.29.0", {}, True),
        ("0.31.0", {}, False),
        ("0.29.0", {"model": "a/b"}, False),
        ("0.29.0", {"engine": {}}, False),
    ],
)
def test_a_pinned_revision_that_other_repositories_would_be_asked_for_is_warned_of(
    version: str, keys: dict[str, Any], warned: bool
) -> None:
    config = {
        "model": {"id": "a/b", "revision": "abc"},
        "image": {"name": "vllm/vllm-openai:nightly", "vllmVersion": version},
        "cache": {"volume": "weights"},
        "engine": {"tokenizer": "c/d"},
        **keys,
    }
    settings = Settings.parse(config, frozenset())
    found = leaking_pin(settings, settings.image.version)
    assert ["c/d" in problem.what for problem in found] == ([True] if warned else [])
