"""Stack files of anyone, at two versions: what is read, what is refused, and what differs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from vllm_spark.changes.comparison import compare
from vllm_spark.changes.conflicts import new_conflicts
from vllm_spark.changes.markdown import markdown
from vllm_spark.changes.report import Report, StackChange
from vllm_spark.changes.stack_version import StackVersion, stacks_in

MODEL = "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"
CONFIG: dict[str, Any] = {
    "model": {"id": MODEL},
    "image": {"name": "nvcr.io/nvidia/vllm:25.09-py3"},
    "engine": {"max-num-seqs": 64},
    "cache": {"hostPath": "/opt/hf"},
}
CANARY = "canary7f3"


MARK = r"\(secret, encrypted as [0-9a-f]{8}\)"


def write(folder: Path, stack: str, text: str | None = None, **keys: Any) -> None:
    config = {f"vllm-spark:{key}": value for key, value in {**CONFIG, **keys}.items()}
    (folder / f"Pulumi.{stack}.yaml").write_text(text or yaml.safe_dump({"config": config}))


@pytest.fixture(autouse=True)
def models(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(Path(__file__).parents[2] / "models")


def read(folder: Path, text: str | None = None, **keys: Any) -> StackVersion:
    write(folder, "one", text, **keys)
    return stacks_in(folder, ())["one"]


def both(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> StackChange:
    return compare(read(folder, **old), read(folder, **new))


def rows(change: StackChange) -> list[tuple[str, str | None, str | None]]:
    return [(one.key, one.old, one.new) for one in change.changes]


def test_a_changed_flag_is_one_change_whatever_its_spelling(tmp_path: Path) -> None:
    same = {"engine": {"max_num_seqs": "64"}, "model": MODEL}
    assert rows(both(tmp_path, {}, same)) == []
    change = both(tmp_path, {}, {"engine": {"max-num-seqs": 128}})
    assert rows(change) == [("engine.max-num-seqs", "64", "128")]
    assert change.status == "changed"
    assert change.memory_before and change.memory_after
    assert change.memory_before.numbers != change.memory_after.numbers
    assert change.memory_before.numbers.keys() == change.memory_after.numbers.keys()


def test_a_removed_flag_of_the_new_image_is_refused_with_its_fix(tmp_path: Path) -> None:
    old = {"engine": {"swap-space": 4}}
    change = both(tmp_path, old, {**old, "image": {"name": "vllm/vllm-openai:v0.28.0"}})
    assert change.status == "refused"
    (refusal,) = change.new_refusals
    assert refusal.where == "vllm-spark:engine.swap-space"
    assert "remove it" in refusal.fix
    assert change.image_after and change.image_after.vllm == "0.28.0"


def test_only_warnings_that_are_new_are_told(tmp_path: Path) -> None:
    nightly = {"image": {"name": "vllm/vllm-openai:nightly", "vllmVersion": "0.28.0"}}
    change = both(tmp_path, {}, nightly)
    assert any("moves" in warning.what for warning in change.new_warnings)
    assert not both(tmp_path, nightly, {**nightly, "health": {"stallSeconds": 9}}).new_warnings


def test_the_exceptions_from_the_policy_pack_are_listed_as_long_as_they_hold(
    tmp_path: Path,
) -> None:
    excepted = {"policy": {"exceptions": [{"rule": "host-network", "reason": "RDMA"}]}}
    for old in ({}, excepted):
        change = both(tmp_path, old, {**excepted, "engine": {"max-num-seqs": 8}})
        assert [(one.rule, one.reason) for one in change.exceptions] == [("host-network", "RDMA")]
    assert both(tmp_path, excepted, {}).exceptions == []


SECRET_PLACES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an encrypted key": (
        {"apiKey": {"secure": f"v1:{CANARY}a"}},
        {"apiKey": {"secure": f"v1:{CANARY}b"}},
    ),
    "encrypted variables": (
        {"secretEnvironment": {"TOKEN": {"secure": f"v1:{CANARY}a"}}},
        {"secretEnvironment": {"TOKEN": {"secure": f"v1:{CANARY}b"}}},
    ),
    "an encrypted part of another key": (
        {"engine": {"seed": {"secure": f"v1:{CANARY}a"}}},
        {"engine": {"seed": {"secure": f"v1:{CANARY}b"}}},
    ),
    "a key in plain text": ({"apiKey": f"{CANARY}a"}, {"apiKey": f"{CANARY}b"}),
    "a token in plain text": ({"huggingFaceToken": CANARY}, {"huggingFaceToken": f"{CANARY}b"}),
    "a password in plain text": ({}, {"registryPassword": CANARY}),
    "variables in plain text": ({}, {"secretEnvironment": {"A": CANARY}}),
    "a variable in plain text": (
        {"container": {"environment": {"WANDB_API_KEY": f"{CANARY}a"}}},
        {"container": {"environment": {"WANDB_API_KEY": f"{CANARY}b"}}},
    ),
    "a variable of small letters": ({}, {"container": {"environment": {"my_secret": CANARY}}}),
    "a proxy": ({}, {"container": {"environment": {"HTTPS_PROXY": f"http://u:{CANARY}@proxy"}}}),
    "the engine's own key": ({}, {"engine": {"api-key": CANARY}}),
    "the engine's own token": ({}, {"engine": {"hf-token": CANARY}}),
    "a token that says what it is": ({}, {"engine": {"chat-template": f"sk-{CANARY}"}}),
}


@pytest.mark.parametrize(("old", "new"), SECRET_PLACES.values(), ids=SECRET_PLACES)
def test_a_changed_secret_is_told_and_never_shown(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any]
) -> None:
    change = both(tmp_path, old, new)
    assert change.changes, "that it changed is told"
    if "secure" in str(new):
        (row,) = change.changes
        assert re.fullmatch(MARK, str(row.old)) and re.fullmatch(MARK, str(row.new))
        assert row.old != row.new
    report = Report(base="a", head="b", stacks=[change])
    for shown in (report.json_text(), markdown(report)):
        assert CANARY not in shown


UNREADABLE = {
    "no YAML": "config: {",
    "a secret in broken YAML": f"config:\n  vllm-spark:apiKey: '{CANARY}\n",
    "a list": "- a",
    "a list as config": "config: [a]",
    "a scalar": "config: 7",
    "not UTF-8": b"\xff\xfe",
    "a date that there is not": "config: {a: 2020-13-45}",
    "a tag": "config: !!python/object/apply:os.system ['true']",
    "deep nesting": "config: " + "[" * 20_000,
    "a bomb": "config:\n  a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"  {new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
        for old, new in zip("abcdefghi", "bcdefghij", strict=True)
    ),
    "a loop": "config: &a {b: *a}",
    "five megabytes": "config: {a: " + "x" * 5_000_000 + "}",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_stack_file_that_is_none_is_a_refusal_in_one_sentence(
    tmp_path: Path, content: str | bytes
) -> None:
    file = tmp_path / "Pulumi.one.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    write(tmp_path, "two")
    stacks = stacks_in(tmp_path, ())
    assert stacks["one"].refusals
    assert CANARY not in str(stacks["one"].refusals)
    assert not stacks["two"].refusals, "the others are read"
    change = compare(stacks["two"], stacks["one"])
    assert change.status == "refused"


def test_a_symbolic_link_is_refused_and_not_read(tmp_path: Path) -> None:
    stacks = stacks_in(tmp_path, {"Pulumi.one.yaml", "models/x.yaml"})
    assert [*stacks] == ["one"]
    assert "symbolic link" in str(stacks["one"].refusals)


@pytest.mark.parametrize("name", ["--help", "a b", "$(touch x)", "é", "a`b"])
def test_a_file_whose_name_is_no_stack_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    assert "rename" in str(stacks_in(tmp_path, ())[name].refusals)


def conflicts(tmp_path: Path, **other: Any) -> list[str]:
    write(tmp_path, "one", container={"gpus": [0]})
    write(tmp_path, "two", container={"gpus": [1]}, endpoint={"port": 8001})
    before = stacks_in(tmp_path, ())
    write(tmp_path, "two", **other)
    after = stacks_in(tmp_path, ())
    found = new_conflicts(after["two"], before, after)
    assert not new_conflicts(after["two"], after, after), "it is told once"
    return [problem.where.removeprefix("vllm-spark:") for problem in found]


def test_what_two_stacks_both_claim_is_told(tmp_path: Path) -> None:
    free = {"gpus": [1]}
    apart = {"endpoint": {"port": 8001}}
    one = {**free, "name": "vllm-one"}
    assert conflicts(tmp_path, container=one, **apart) == ["container.name"]
    assert conflicts(tmp_path, container=free, endpoint={"port": 8000}) == ["endpoint.port"]
    assert conflicts(tmp_path, container={"gpus": "all"}, **apart) == ["container.gpus"]
    assert conflicts(tmp_path, container=one, state="stopped") == []
