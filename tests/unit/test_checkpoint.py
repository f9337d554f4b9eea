"""What is wrong with a model's files, found before a server loads them; and what is left alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_spark.in_image import checkpoint
from vllm_spark.in_image.checkpoint import (
    Finding,
    findings,
    kept_elsewhere,
    main,
    snapshot_of,
    tensors_in,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHARD_1, SHARD_2 = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
INDEX = "model.safetensors.index.json"


def shard(*tensors: str) -> bytes:
    """A safetensors file with four bytes for each tensor."""
    entries = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * number, 4 * number + 4]}
        for number, name in enumerate(tensors)
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * len(tensors))


def index(**files: str) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": files}).encode()


WHOLE: dict[str, bytes] = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    SHARD_1: shard("a", "b"),
    SHARD_2: shard("c"),
    INDEX: index(a=SHARD_1, b=SHARD_1, c=SHARD_2),
}

Make = Callable[[dict[str, bytes | None]], Path]


def make(cache: Path, changed: dict[str, bytes | None]) -> Path:
    """A model in a hub's cache: `WHOLE` with files replaced, added, or (None) taken away."""
    repository = cache / "models--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for name, content in {**WHOLE, **changed}.items():
        if content is not None:
            blob = repository / "blobs" / hashlib.sha256(name.encode()).hexdigest()
            blob.write_bytes(content)
            (snapshot / name).parent.mkdir(exist_ok=True)
            (snapshot / name).symlink_to(blob)
    return snapshot


@pytest.fixture
def model(tmp_path: Path) -> Make:
    return lambda changed: make(tmp_path, changed)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def test_a_whole_model_has_no_fault(model: Make) -> None:
    assert findings(model({})) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a safetensors file (it is empty)"),
        (bytes(100), r"is not a safetensors file (it begins with b'\x00"),
        (b"<!DOCTYPE html><html>Sign in</html>", "begins with b'<!DOCTYP'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "begins with b'version '"),
        (shard("c")[:20], "is cut off after 20 bytes, within its header"),
        (shard("c")[:-1], f"is cut off: {len(shard('c')) - 1} of {len(shard('c'))} bytes"),
        (shard("c") + b"12", "is 2 bytes longer than its header says"),
        ((4).to_bytes(8, "little") + b"{{}}", "has a header that is not that of"),
        ((8).to_bytes(8, "little") + b'{"c": 1}', "has a header that is not that of"),
    ],
)
def test_a_broken_shard_is_named_with_what_is_wrong(model: Make, content: bytes, said: str) -> None:
    found = only(findings(model({SHARD_2: content})))
    assert found.where == SHARD_2
    assert said in found.what


def test_the_fix_of_a_broken_shard_names_the_blob_and_not_the_link(model: Make) -> None:
    snapshot = model({SHARD_2: b""})
    found = only(findings(snapshot))
    blob = (snapshot / SHARD_2).resolve()
    assert blob.parent.name == "blobs"
    assert f"delete {blob} and" in found.fix


def test_shards_that_the_index_names_and_that_are_not_there_are_named(model: Make) -> None:
    found = only(findings(model({SHARD_2: None})))
    assert found.where == INDEX
    assert f"1 weight files are not there: {SHARD_2}" in found.what
    assert "`hf download` fetches what is missing" in found.fix


def test_many_missing_shards_make_one_finding(model: Make) -> None:
    many = {f"t{number}": f"model-{number:05}-of-00030.safetensors" for number in range(1, 31)}
    found = only(findings(model({SHARD_1: None, SHARD_2: None, INDEX: index(**many)})))
    assert "30 weight files are not there: model-00001-of-00030.safetensors, " in found.what
    assert found.what.endswith("and 27 more")


def test_a_numbered_shard_is_missed_without_an_index_too(model: Make) -> None:
    found = only(findings(model({SHARD_1: None, INDEX: None})))
    assert SHARD_1 in found.what


@pytest.mark.parametrize(
    "files",
    [
        {"pytorch_model-00001-of-00002.bin": b"PK"},
        {
            "consolidated-a.safetensors": shard("a"),
            "consolidated.safetensors.index.json": index(
                a="consolidated-a.safetensors", b="consolidated-b.safetensors"
            ),
        },
    ],
)
def test_a_gap_is_found_in_every_form_of_weights(model: Make, files: dict[str, bytes]) -> None:
    found = only(findings(model({SHARD_1: None, SHARD_2: None, INDEX: None, **files})))
    assert "1 weight files are not there" in found.what


def test_an_unfinished_download_is_told_as_the_reason_of_what_is_missing(model: Make) -> None:
    snapshot = model({SHARD_2: None})
    (snapshot.parents[1] / "blobs" / "0123.incomplete").touch()
    assert "1 downloads of this model were not finished" in only(findings(snapshot)).what


def test_an_unfinished_download_of_something_that_is_there_is_no_fault(model: Make) -> None:
    snapshot = model({})
    (snapshot.parents[1] / "blobs" / "0123.incomplete").touch()
    assert findings(snapshot) == []


def test_tensors_that_the_index_promises_are_looked_for_in_their_shard(model: Make) -> None:
    snapshot = model({SHARD_1: shard("a")})
    found = only(findings(snapshot))
    assert found.where == SHARD_1
    assert f"lacks 1 tensors that {INDEX} says it holds: b" in found.what
    assert str((snapshot / SHARD_1).resolve()) in found.fix
    assert str((snapshot / INDEX).resolve()) in found.fix, "either may be the wrong one"


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", INDEX, "preprocessor_config.json"]
)
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"<html>502</html>", "begins with b'<html>"), (b'{"a": ', "begins with"), (b"", "is empty")],
)
def test_a_file_that_is_not_json_is_named_with_its_beginning(
    model: Make, name: str, content: bytes, said: str
) -> None:
    found = only(findings(model({name: content})))
    assert found.where == name
    assert "is not valid JSON" in found.what
    assert said in found.what


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", SHARD_1, INDEX])
def test_a_link_to_a_blob_that_is_gone_is_a_missing_file(model: Make, name: str) -> None:
    snapshot = model({})
    (snapshot / name).resolve().unlink()
    found = only(findings(snapshot))
    assert name in str(found)
    assert "`hf download` fetches what is missing" in found.fix


def test_no_config_and_no_weights_and_no_tokenizer_are_said_at_once(model: Make) -> None:
    nothing: dict[str, bytes | None] = dict.fromkeys(WHOLE)
    found = findings(model({**nothing, "README.md": b"", "training_args.bin": b""}))
    assert [finding.where for finding in found] == ["config.json", ".", "tokenizer.json"]


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"tokenizer.json": b"{}"},
        {"tokenizer.model": b"spm"},
        {"tokenizer.model.v3": b"spm"},
        {"tekken.json": b"{}"},
        {"vocab.json": b"{}", "merges.txt": b""},
        {"qwen.tiktoken": b""},
        {"vocab.txt": b""},
        {"tokenization_own.py": b""},
        {"tokenizer/tokenizer.json": b"{}"},
        {"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["other/repo--x.Y", null]}}'},
        {"tokenizer_config.json": b'{"tokenizer_class": "ByT5Tokenizer"}'},
    ],
)
def test_any_known_form_of_a_tokenizer_will_do(model: Make, tokenizer: dict[str, bytes]) -> None:
    assert findings(model({"tokenizer.json": None, **tokenizer})) == []


@pytest.mark.parametrize("rest", [{}, {"vocab.json": b"{}"}, {"merges.txt": b""}])
def test_without_any_form_of_a_tokenizer_every_request_would_be_refused(
    model: Make, rest: dict[str, bytes]
) -> None:
    found = only(findings(model({"tokenizer.json": None, **rest})))
    assert "nor any other form of a tokenizer" in found.what


@pytest.mark.parametrize(
    "files",
    [
        # Mistral's own form alone, and beside a Hugging Face form that was not fetched
        {
            "config.json": None,
            "params.json": b"{}",
            INDEX: None,
            "consolidated.safetensors": shard("a"),
        },
        {"consolidated.safetensors": shard("a")},
        {"pytorch_model.bin": b"PK", INDEX: None},
        {"config.json": None, "model-Q4_K_M.gguf": b"GGUF", INDEX: None},
        {"transformer/model.safetensors": b"of some other layout", INDEX: None},
    ],
)
def test_weights_in_any_other_form_are_let_through(
    model: Make, files: dict[str, bytes | None]
) -> None:
    assert findings(model({SHARD_1: None, SHARD_2: None, **files})) == []


def test_what_vllm_does_not_need_is_not_looked_at(model: Make) -> None:
    assert findings(model({"mistaken.safetensors": b"", "generation_config.json": b"{"})) == []


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({}, []),
        ({"load-format": "safetensors", "skip-tokenizer-init": False}, []),
        ({"load-format": "dummy"}, ["weights"]),
        ({"tokenizer": "owner/other"}, ["tokenizer"]),
        ({"skip-tokenizer-init": True, "hf-config-path": "x"}, ["config", "tokenizer"]),
    ],
)
def test_flags_tell_which_parts_come_from_elsewhere(
    flags: dict[str, object], parts: list[str]
) -> None:
    assert kept_elsewhere(flags) == parts


def test_a_link_to_a_tokenizer_that_is_gone_is_no_tokenizer(model: Make) -> None:
    snapshot = model({"tokenizer.json": None, "tokenizer.model": b"spm"})
    (snapshot / "tokenizer.model").resolve().unlink()
    assert only(findings(snapshot)).where == "tokenizer.json"


def test_parts_that_come_from_elsewhere_are_not_asked_for(model: Make) -> None:
    snapshot = model({"config.json": None, "tokenizer.json": None, SHARD_1: None})
    assert findings(snapshot, ("config", "weights", "tokenizer")) == []


def test_a_snapshot_is_found_by_branch_and_by_commit(model: Make, tmp_path: Path) -> None:
    snapshot = model({})
    assert snapshot_of(tmp_path, "owner/name", "main") == snapshot
    assert snapshot_of(tmp_path, "owner/name", COMMIT) == snapshot
    assert snapshot_of(tmp_path, "owner/name", "v2") is None


def test_a_model_that_is_not_in_the_cache_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "owner/name"]) == 1
    assert "owner/name: there is no snapshot of its revision main" in capsys.readouterr().err


def test_it_runs_from_standard_input_with_nothing_but_a_python(model: Make, tmp_path: Path) -> None:
    model({SHARD_2: b"<html>"})
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-", str(tmp_path), "owner/name", "--without", "config"],
        input=Path(checkpoint.__file__).read_text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("owner/name cannot be served from what is in the cache:\n1. ")
    assert SHARD_2 in ran.stderr
    assert "\n    fix: delete /" in ran.stderr
    assert "Traceback" not in ran.stderr


@given(st.binary(max_size=200) | st.builds(lambda text: len(text).to_bytes(8, "little") + text,
                                           st.text(max_size=50).map(str.encode)))  # fmt: skip
def test_no_content_of_a_shard_is_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    snapshot = tmp_path_factory.mktemp("snapshot")
    (snapshot / "model.safetensors").write_bytes(content)
    for finding in findings(snapshot, ("config", "tokenizer")):
        assert finding.where == "model.safetensors"


def test_a_good_shard_tells_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(shard("a", "b"))
    assert tensors_in(path) == {"a", "b"}
