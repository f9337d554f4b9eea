"""A stack's config becomes typed values, or one error that lists every mistake with its fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vllm_spark.config.settings import Settings
from vllm_spark.config.stack_file import load_stack, stack_file
from vllm_spark.deployment.review import read
from vllm_spark.deployment.serving import server_command, server_environment
from vllm_spark.errors import ConfigError
from vllm_spark.in_image import script

ROOT = Path(__file__).resolve().parents[2]
NO_SECRETS: frozenset[str] = frozenset()


CONFIG: dict[str, Any] = {
    "model": {"id": "Qwen/Qwen3-32B-FP8"},
    "image": {"name": "nvcr.io/nvidia/vllm:25.09-py3"},
    "cache": {"volume": "weights"},
}


def parse(**keys: Any) -> Settings:
    return Settings.parse(CONFIG | keys, NO_SECRETS)


def problems(**keys: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as failed:
        read(CONFIG | keys, NO_SECRETS)
    return {problem.where: f"{problem.what} | {problem.fix}" for problem in failed.value.problems}


def test_only_model_image_and_cache_are_required() -> None:
    settings = parse()
    assert settings.endpoint.base_url == "http://127.0.0.1:8000/v1"
    assert settings.container.restart == "unless-stopped"
    assert settings.served_name == "Qwen/Qwen3-32B-FP8"


def test_objects_may_come_as_json_text_as_pulumi_hands_them_over() -> None:
    assert parse(endpoint='{"port": 9000}').endpoint.port == 9000


def test_model_and_image_may_be_given_as_plain_text() -> None:
    settings = parse(model="a/b", image="vllm/vllm-openai:v0.28.0")
    assert (settings.model.id, settings.image.name) == ("a/b", "vllm/vllm-openai:v0.28.0")


@pytest.mark.parametrize(
    ("keys", "where", "said"),
    [
        ({"modle": {}}, "vllm-spark:modle", "write model"),
        ({"endpoint": {"prot": 1}}, "vllm-spark:endpoint.prot", "write port"),
        ({"endpoint": {"port": 0}}, "vllm-spark:endpoint.port", "from 1 to 65535"),
        ({"endpoint": {"port": "http"}}, "vllm-spark:endpoint.port", "'http'"),
        ({"endpoint": {"bind": "here"}}, "vllm-spark:endpoint.bind", "'here'"),
        ({"model": {"id": "qwen3"}}, "vllm-spark:model.id", "owner/name"),
        ({"model": "Qwen/Qwen3--8B"}, "vllm-spark:model.id", "owner/name"),
        ({"model": "Qwen/Qwen3..8B"}, "vllm-spark:model.id", "owner/name"),
        ({"model": "Qwen/Qwen3-8B.git"}, "vllm-spark:model.id", "owner/name"),
        ({"model": "Qwen/Qwen3-8B:main"}, "vllm-spark:model.id", "owner/name"),
        ({"model": f"Qwen/{'x' * 92}"}, "vllm-spark:model.id", "owner/name"),
        (
            {"model": "https://huggingface.co/Qwen/Qwen3-8B/tree/main"},
            "vllm-spark:model.id",
            "the model's id is Qwen/Qwen3-8B |",
        ),
        ({"model": {"id": "a/b", "revision": ""}}, "vllm-spark:model.revision", "a commit"),
        ({"model": {"id": "a/b", "revision": "--x"}}, "vllm-spark:model.revision", "a commit"),
        ({"model": {"id": "a/b", "servedName": "-x"}}, "vllm-spark:model.servedName", "one word"),
        ({"image": {"name": "vllm"}}, "vllm-spark:image.name", "tag"),
        ({"cache": {"hostPath": "hf"}}, "vllm-spark:cache.hostPath", "absolute path"),
        ({"cache": {"hostPath": "/a:b"}}, "vllm-spark:cache.hostPath", "'/a:b'"),
        ({"cache": {"volume": "a/b"}}, "vllm-spark:cache.volume", "Docker volume"),
        ({"cache": {}}, "vllm-spark:cache", "hostPath or volume"),
        ({"cache": {"hostPath": "/a", "volume": "bb"}}, "vllm-spark:cache", "only one"),
        ({"container": {"gpus": "one"}}, "vllm-spark:container.gpus", "all, none"),
        ({"container": {"gpus": [-1]}}, "vllm-spark:container.gpus", "a list of device numbers"),
        ({"container": {"ulimits": {"memlock": "x"}}}, "vllm-spark:container.ulimits.memlock", "x"),
        (
            {"container": {"ulimits": {"memlok": -1}}},
            "vllm-spark:container.ulimits.memlok",
            "stack",
        ),
        (
            {"container": {"environment": {"A=B": ""}}},
            "vllm-spark:container.environment.A=B",
            "A=B",
        ),
        ({"state": "paused"}, "vllm-spark:state", "running, or stopped"),
        ({"engine": [1]}, "vllm-spark:engine", "dictionary"),
        ({"endpoint": "null"}, "vllm-spark:endpoint", "{bind, port}"),
        ({"health": {"timeoutSeconds": 0}}, "vllm-spark:health.timeoutSeconds", "86400"),
    ],
)
def test_a_mistake_names_its_key_and_the_fix(keys: dict[str, Any], where: str, said: str) -> None:
    assert said in problems(**keys)[where]


def test_two_mistakes_in_one_object_are_both_said() -> None:
    found = problems(
        image={"name": "vllm", "vllmVersion": "new"},
        container={"environment": {"HF_TOKEN": "hunter2"}, "ulimits": {"memlok": -1}},
    )
    assert set(found) == {
        "vllm-spark:image.name",
        "vllm-spark:image.vllmVersion",
        "vllm-spark:container.environment.HF_TOKEN",
        "vllm-spark:container.ulimits.memlok",
    }


def test_all_mistakes_are_said_in_one_run() -> None:
    found = problems(endpoint={"port": -1}, cache={"hostPath": "x"}, stat="running")
    assert len(found) == 3


def test_eight_mistakes_in_one_file_are_said_in_one_run() -> None:
    found = problems(
        model={"id": "Qwen/Qwen3-32B-FP8"},
        image={"name": "nvcr.io/nvidia/vllm"},
        cache={"hostPath": "hf", "volume": "weights"},
        engine={
            "gpu-memory-utilization": 1.5,
            "max-num-seqs": -1,
            "max_num_seqs": 4,
            "max-model-len": 50000,
        },
        apiKey="in plain text",
    )
    assert set(found) == {
        "vllm-spark:image.name",
        "vllm-spark:cache",
        "vllm-spark:cache.hostPath",
        "vllm-spark:engine.gpu-memory-utilization",
        "vllm-spark:engine.max-num-seqs",
        "vllm-spark:engine.max_num_seqs",
        "vllm-spark:engine.max-model-len",
        "vllm-spark:apiKey",
    }
    assert "40,960 positions" in found["vllm-spark:engine.max-model-len"]


def test_a_secret_in_plain_text_is_refused_without_showing_it() -> None:
    found = problems(huggingFaceToken="hf_abc")
    assert "pulumi config set --secret" in found["vllm-spark:huggingFaceToken"]
    assert "hf_abc" not in str(found)


def test_a_secret_in_plain_text_of_the_wrong_type_is_not_shown_either() -> None:
    assert "0123456789" not in str(problems(apiKey={"key": "0123456789"}))


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("VLLM_API_KEY", "apiKey"),
        ("HF_TOKEN", "huggingFaceToken"),
        ("HUGGING_FACE_HUB_TOKEN", "huggingFaceToken"),
    ],
)
def test_a_secret_in_the_containers_environment_is_refused_with_its_key(
    variable: str, key: str
) -> None:
    found = problems(container={"environment": {variable: "hunter2"}})
    assert f"--secret vllm-spark:{key}" in found[f"vllm-spark:container.environment.{variable}"]
    assert "hunter2" not in str(found)


def test_a_server_bound_to_every_address_is_asked_on_this_host() -> None:
    assert parse(endpoint={"bind": "0.0.0.0"}).endpoint.base_url == "http://127.0.0.1:8000/v1"
    assert parse(endpoint={"bind": "::1"}).endpoint.base_url == "http://[::1]:8000/v1"


def test_the_servers_environment_takes_what_the_stack_adds() -> None:
    environment = server_environment(parse(container={"environment": {"HF_HUB_OFFLINE": "0"}}))
    assert environment["HF_HUB_OFFLINE"] == "0"
    assert environment["HF_HUB_CACHE"] == "/root/.cache/huggingface"


def test_the_server_looks_for_openais_vocabulary_where_the_fetch_has_put_it() -> None:
    fetch = script("fetch_weights")
    folder = server_environment(parse())["TIKTOKEN_RS_CACHE_DIR"].rpartition("/")[2]
    assert f'HARMONY = "{folder}"' in fetch


def test_a_pinned_revision_reaches_the_server() -> None:
    command = server_command(parse(model={"id": "a/b", "revision": "abc"}))
    assert "--revision=abc" in command


@pytest.mark.parametrize("path", sorted(ROOT.glob("Pulumi.*.yaml")), ids=lambda path: path.name)
def test_every_stack_file_in_the_repository_is_valid(path: Path) -> None:
    assert load_stack(path).model.id


def test_an_unknown_stack_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"choose one of: .*local.*spark"):
        stack_file("sprak")


@pytest.mark.parametrize("content", [b"config: [", b"config: {vllm-spark:model: \xff}"])
def test_a_stack_file_that_is_no_yaml_names_the_file(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "Pulumi.x.yaml"
    broken.write_bytes(content)
    with pytest.raises(ConfigError, match=r"Pulumi\.x\.yaml"):
        load_stack(broken)


def test_encrypted_values_count_as_given(tmp_path: Path) -> None:
    stack = tmp_path / "Pulumi.x.yaml"
    stack.write_text(
        "config:\n  vllm-spark:model: a/b\n  vllm-spark:image: x/y:1\n"
        "  vllm-spark:cache: {volume: weights}\n  vllm-spark:apiKey: {secure: v1:abc}\n"
    )
    assert load_stack(stack).api_key is not None
