"""What a deployment leaves behind for the way back."""

from __future__ import annotations

from typing import Any

from pulumi.runtime.rpc import unwrap_rpc_secret

from components.last_good import LastGoodProvider
from tests.stack.conftest import Deploy
from vllm_spark.deployment.last_good import RESOURCE
from vllm_spark.deployment.records import RECORD


def properties(container: str) -> dict[str, Any]:
    record = {"server": "vllm", "settings": {}, "containerId": container, "commit": "a"}
    return {RECORD: record, "deployment": f"of {container}"}


RECORDED = properties("1")


def test_the_record_holds_the_whole_config_and_no_secret(deploy: Deploy) -> None:
    secrets = {"apiKey": "key-of-ours", "huggingFaceToken": "hf_token"}
    record = deploy("spark", secrets=secrets, health={"stallSeconds": 60}).inputs(RESOURCE)[RECORD]
    settings = record["settings"]
    assert settings["engine"]["max-num-seqs"] == 64
    assert settings["health"] == {"stallSeconds": 60}
    assert settings["apiKey"] == "**********", "that there was one"
    assert "key-of-ours" not in str(record)
    assert "hf_token" not in str(record)


def test_the_record_names_commit_and_container(deploy: Deploy) -> None:
    record = deploy("spark").inputs(RESOURCE)[RECORD]
    assert unwrap_rpc_secret(record["commit"]) == "0123abc"
    assert record["containerId"] == "vllm-container-id"


def test_a_stopped_stack_leaves_its_record_as_it_was(deploy: Deploy) -> None:
    stopped = deploy("spark", state="stopped").inputs(RESOURCE)
    assert not LastGoodProvider().diff("last-good", RECORDED, stopped).changes


def test_another_container_changes_the_record_and_its_time() -> None:
    provider = LastGoodProvider()
    first = provider.create(dict(RECORDED)).outs
    assert first is not None
    assert not provider.diff("last-good", first, RECORDED).changes
    beside = provider.update("last-good", {**first, "answeredAt": "then"}, {**RECORDED})
    assert beside.outs is not None
    assert beside.outs["answeredAt"] == "then", "the same container answered no second time"
    news = properties("2")
    assert provider.diff("last-good", first, news).changes
    other = provider.update("last-good", {**first, "answeredAt": "then"}, news).outs
    assert other is not None
    assert other["answeredAt"] != "then"
