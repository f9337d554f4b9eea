"""The last good deployment: read from a state, deployed again exactly, told to a person."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_spark.deployment.config_diff import commands, differences
from vllm_spark.deployment.last_good import RESOURCE, LastGoodDeployment, without_secrets
from vllm_spark.errors import RollbackError

DECLARED = {
    "model": {"id": "owner/model", "servedName": "model"},
    "image": {"name": "nvcr.io/nvidia/vllm:25.09-py3"},
    "engine": {"max-num-seqs": 64},
    "cache": {"volume": "cache"},
}
CONFIG = {f"vllm-spark:{key}": value for key, value in DECLARED.items()}
DIGEST = f"nvcr.io/nvidia/vllm@sha256:{'0' * 64}"
SEALED = {"secure": "v1:abc:def"}


def record(**changes: Any) -> dict[str, Any]:
    record = {
        "server": "vllm",
        "settings": DECLARED,
        "imageId": "sha256:1111",
        "imageDigest": DIGEST,
        "commit": "0123abc",
        "fetched": "0f0f0f",
        "containerId": "4567",
        **changes,
    }
    answered = {"__record": record, "answeredAt": "2026-11-24T22:21:00+00:00"}
    return {"type": RESOURCE, "outputs": answered}


def good(**changes: Any) -> LastGoodDeployment:
    (found,) = LastGoodDeployment.of_state([{"type": "other"}, record(**changes)]).values()
    return found


def test_a_state_without_an_answer_has_no_last_good_deployment() -> None:
    assert LastGoodDeployment.of_state([]) == {}
    stopped = {"type": RESOURCE, "outputs": {"answeredAt": None}}
    assert LastGoodDeployment.of_state([stopped]) == {}, "the record of one that has never run"


def test_a_deployment_in_a_state_from_before_the_records_is_found() -> None:
    newer = record()["outputs"]
    older = {**newer.pop("__record"), **newer}
    (found,) = LastGoodDeployment.of_state([{"type": RESOURCE, "outputs": older}]).values()
    assert found == good()


def test_each_server_of_a_program_has_its_own() -> None:
    found = LastGoodDeployment.of_state([record(), record(server="second", containerId="89")])
    assert {name: one.container_id for name, one in found.items()} == {
        "vllm": "4567",
        "second": "89",
    }


def test_it_names_itself_by_model_image_and_time() -> None:
    told = "owner/model with nvcr.io/nvidia/vllm:25.09-py3, which answered 2026-11-24 22:21 UTC"
    assert str(good()) == told


def test_what_still_means_the_same_is_deployed_as_it_was_written() -> None:
    assert good().pinned("sha256:1111", "0f0f0f") == DECLARED


def test_a_name_that_means_another_image_by_now_is_replaced_by_the_digest() -> None:
    image = good().pinned("sha256:2222", "0f0f0f")["image"]
    assert image == {"name": DIGEST, "vllmVersion": "0.10.1.1"}, "a digest tells no release"


def test_an_image_without_a_digest_whose_name_was_taken_says_how_to_name_it_again() -> None:
    with pytest.raises(
        RollbackError, match=r"docker tag sha256:1111 nvcr\.io/nvidia/vllm:25\.09-py3"
    ):
        good(imageDigest="").pinned("sha256:2222", "0f0f0f")


def test_a_model_that_has_to_be_fetched_again_is_pinned_to_its_commit() -> None:
    model = good().pinned("sha256:1111", "1a1a1a")["model"]
    assert model == {"id": "owner/model", "servedName": "model", "revision": "0123abc"}


def test_a_config_is_compared_without_secrets_and_without_the_keys_of_others() -> None:
    config = {
        **CONFIG,
        "vllm-spark:apiKey": "in plain text",
        "vllm-spark:huggingFaceToken": SEALED,
        "docker:registryAuth": [{"address": "nvcr.io", "password": SEALED}],
    }
    assert without_secrets(config) == CONFIG


def test_a_record_of_a_server_with_a_key_shows_no_secret() -> None:
    assert good(settings={**DECLARED, "apiKey": "**********"}).config == CONFIG


def test_the_file_of_a_rollback_is_the_present_one_with_this_servers_last_good_settings() -> None:
    given = {
        "encryptionsalt": "v1:salt",
        "config": {"vllm-spark:apiKey": SEALED, "other:key": 1},
    }
    assert good().stack_file(given, DECLARED) == {
        "encryptionsalt": "v1:salt",
        "config": {
            "vllm-spark:apiKey": SEALED,
            "other:key": 1,
            "vllm-spark:rollback": {"vllm": DECLARED},
        },
    }


def test_a_server_that_asked_for_a_key_is_not_opened_to_everybody() -> None:
    with_key = {**DECLARED, "apiKey": "**********"}
    with pytest.raises(RollbackError, match="pulumi config set --secret vllm-spark:apiKey"):
        good(settings=with_key).stack_file({"config": {}}, with_key)


def test_differences_are_told_value_by_value() -> None:
    new = {
        **CONFIG,
        "vllm-spark:engine": {"max-num-seqs": 128, "enforce-eager": True},
        "vllm-spark:model": {"id": "owner/model"},
    }
    assert [str(one) for one in differences(CONFIG, new)] == [
        "+ engine.enforce-eager: true",
        "~ engine.max-num-seqs: 64 => 128",
        "- model.servedName: model",
    ]


def test_what_looks_like_a_secret_is_not_printed() -> None:
    old = {"vllm-spark:container": {"environment": {"HF_TOKEN": "hf_abcdefghijklmnopqrst"}}}
    assert "abcdefg" not in str(differences(old, {})) + "".join(commands({}, old, "x"))


def test_commands_remove_first_and_keep_types() -> None:
    old = {"vllm-spark:container": {"gpus": [0, 1]}, "vllm-spark:engine": {"a": 1}}
    new = {
        "vllm-spark:container": {"gpus": "all", "environment": {"N": "1"}},
        "vllm-spark:engine": {"a": 0.85, "compilation-config.mode": 3},
    }
    assert [line.replace(" --stack x --path", "") for line in commands(old, new, "x")] == [
        "pulumi config rm 'vllm-spark:container.gpus[1]'",
        "pulumi config rm 'vllm-spark:container.gpus[0]'",
        "pulumi config set vllm-spark:container.environment.N --type string -- 1",
        "pulumi config set vllm-spark:container.gpus --type string -- all",
        "pulumi config set vllm-spark:engine.a --type float -- 0.85",
        "pulumi config set 'vllm-spark:engine[\"compilation-config.mode\"]' --type int -- 3",
    ]
