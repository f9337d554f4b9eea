"""`vllm-spark model` against a hub on this machine: headers are read, weights never."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import tests.local_hub
from tests.planner_data import config_path
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.memory.limits import Machine
from vllm_spark.memory.model_config import read_config
from vllm_spark.memory.plan import MemoryPlan, make_plan
from vllm_spark.memory.shape import Loaded, ModelShape
from vllm_spark.memory.weights.headers import FORMAT_BITS, role_of

ROOT = Path(__file__).parents[2]
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
}
LAYER = {
    "self_attn.q_proj.weight": [64, 64],
    "self_attn.k_proj.weight": [32, 64],
    "self_attn.v_proj.weight": [32, 64],
    "self_attn.o_proj.weight": [64, 64],
    "mlp.gate_proj.weight": [128, 64],
    "mlp.up_proj.weight": [128, 64],
    "mlp.down_proj.weight": [64, 128],
    "input_layernorm.weight": [64],
    "post_attention_layernorm.weight": [64],
}
TENSORS = {
    "model.embed_tokens.weight": [1024, 64],
    "model.norm.weight": [64],
    "lm_head.weight": [1024, 64],
    **{f"model.layers.{layer}.{name}": size for layer in (0, 1) for name, size in LAYER.items()},
}


def safetensors(
    tensors: Mapping[str, list[int]], kind: str = "BF16", claimed: int | None = None
) -> bytes:
    """A file with these tensors, all zeros. `claimed` makes its header lie about the last one."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, size in tensors.items():
        length = math.prod(size) * FORMAT_BITS[kind] // 8
        header[name] = {"dtype": kind, "shape": size, "data_offsets": [position, position + length]}
        position += length
    if claimed is not None:
        header[name]["data_offsets"][1] = header[name]["data_offsets"][0] + claimed
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(position)


class Project:
    """A project of a user, and the hub that its commands ask."""

    def __init__(self, folder: Path, address: str) -> None:
        self.hub, self.root, self.cache = folder / "hub", folder / "project", folder / "cache"
        for made in (self.hub, self.root, self.cache):
            made.mkdir()
        (self.root / "Pulumi.yaml").write_text("name: test\n")
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
            "HF_ENDPOINT": address,
            "HF_HOME": str(self.cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(ROOT),
        }

    def upload(self, model: str = "some/llama", **files: bytes | dict[str, Any]) -> None:
        """Put files on the hub; `__` in their names stands for a dot."""
        folder = self.hub / model
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (folder / name.replace("__", ".")).write_bytes(data)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`vllm-spark model` with these arguments."""
        command = [sys.executable, "-m", "vllm_spark", "model", *arguments]
        variables = {**self.environment, **environment}
        return subprocess.run(
            command, cwd=self.root, env=variables, capture_output=True, text=True, check=False
        )

    @property
    def written(self) -> list[Path]:
        """The files in models/."""
        return sorted((self.root / "models").glob("*"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr(tests.local_hub, "FOLDER", tmp_path / "hub")
    monkeypatch.setattr(tests.local_hub.Hub, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), tests.local_hub.Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Project(tmp_path, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def shape_in(path: Path) -> ModelShape:
    shape = read_config(path)
    assert isinstance(shape, ModelShape)
    return shape


def test_a_model_is_planned_from_the_bytes_of_its_checkpoint(project: Project) -> None:
    project.upload(config__json=LLAMA, model__safetensors=safetensors(TENSORS))
    ran = project.run("some/llama")
    assert ran.returncode == 0, ran.stderr
    (path,) = project.written
    assert path.name == "llama.yaml"
    assert "make fit MODEL=models/llama.yaml" in ran.stdout
    content = yaml.safe_load(path.read_text())
    assert content["id"] == "some/llama"
    assert "bos_token_id" not in content["config"], "it decides nothing"
    assert content["weights"]["embedding"] == {"BF16": 1024 * 64 * 2}

    from_bytes = shape_in(path)
    config = project.hub / "some" / "llama" / "config.json"
    from_config = shape_in(config)
    assert from_bytes.cached == from_config.cached
    assert from_bytes.weight_bytes(None, 2, 1) == from_config.weight_bytes(None, 2, 1)
    assert from_bytes.bytes_read_per_token(None, 2, 1) == pytest.approx(
        from_config.bytes_read_per_token(None, 2, 1), rel=0.01
    )
    plan = make_plan(from_bytes, EngineFlags(), Machine())
    assert isinstance(plan, MemoryPlan)
    assert not any("computed from config.json" in note for note in plan.notes())


def test_only_headers_are_asked_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, int]] = []
    original = tests.local_hub.Hub.send_file

    def send_file(self: Any, path: Path, first: int, last: int) -> None:
        sent.append((path.suffix, last - first))
        original(self, path, first, last)

    monkeypatch.setattr(tests.local_hub.Hub, "send_file", send_file)
    large = {**TENSORS, "model.layers.1.mlp.experts.0.up_proj.weight": [4096, 1024]}
    project.upload(config__json=LLAMA, model__safetensors=safetensors(large))
    assert project.run("some/llama").returncode == 0
    assert max(length for suffix, length in sent if suffix == ".safetensors") <= 100_000


def test_shards_are_those_of_the_index_and_copies_do_not_count(project: Project) -> None:
    first, second = dict(list(TENSORS.items())[:5]), dict(list(TENSORS.items())[5:])
    index = {
        "weight_map": {**dict.fromkeys(first, "a.safetensors")}
        | dict.fromkeys(second, "b.safetensors")
    }
    project.upload(
        config__json=LLAMA,
        a__safetensors=safetensors(first),
        b__safetensors=safetensors(second),
        consolidated__safetensors=safetensors(TENSORS),
        model__safetensors__index__json=index,
    )
    assert project.run("some/llama").returncode == 0
    stored = shape_in(project.written[0]).stored
    assert stored is not None
    assert stored.total == sum(math.prod(size) * 2 for size in TENSORS.values())


def test_a_format_that_no_formula_knows_is_planned_by_its_bytes(project: Project) -> None:
    config = {**LLAMA, "model_type": "brand_new", "quantization_config": {"quant_method": "novel"}}
    project.upload(config__json=config, model__safetensors=safetensors(TENSORS, "U8"))
    assert project.run("some/llama").returncode == 0
    shape = shape_in(project.written[0])
    assert shape.weight_bytes(shape.quantization, 2, 1) > 0
    assert make_plan(shape, EngineFlags(), Machine())


def test_a_second_model_of_the_same_name_keeps_the_first_ones_file(project: Project) -> None:
    for owner in ("some", "other"):
        project.upload(
            f"{owner}/llama", config__json=LLAMA, model__safetensors=safetensors(TENSORS)
        )
        assert project.run(f"{owner}/llama").returncode == 0
    assert [path.name for path in project.written] == ["llama.yaml", "other--llama.yaml"]
    assert project.run("some/llama").returncode == 0, "again: its file is replaced"
    assert len(project.written) == 2


def test_a_snapshot_in_the_cache_is_enough_without_a_network(project: Project) -> None:
    snapshot = project.cache / "hub" / "models--some--llama" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123abc")
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    (snapshot / "model.safetensors").write_bytes(safetensors(TENSORS))
    ran = project.run("some/llama", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert ran.returncode == 0, ran.stderr
    assert yaml.safe_load(project.written[0].read_text())["revision"] == "0123abc"


WHOLE = safetensors(TENSORS)
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "gated": ({"config__json": LLAMA, "GATED": b""}, "is gated"),
    "rate-limited": ({"config__json": LLAMA, "BUSY": b""}, "429"),
    "no model's config": (
        {"config__json": {"model_type": "x"}, "model__safetensors": WHOLE},
        "num_hidden_layers",
    ),
    "a config that is a list": (
        {"config__json": b"[]", "model__safetensors": WHOLE},
        "holds a list",
    ),
    "a config that is cut": (
        {"config__json": b'{"model_type"', "model__safetensors": WHOLE},
        "config.json",
    ),
    "no config": ({"model__safetensors": WHOLE}, "no config.json"),
    "only GGUF": ({"config__json": LLAMA, "model-q4__gguf": b"GGUF"}, "only GGUF"),
    "only .bin": ({"config__json": LLAMA, "pytorch_model__bin": b"PK"}, ".bin"),
    "a cut header": ({"config__json": LLAMA, "model__safetensors": WHOLE[:40]}, "header"),
    "no safetensors inside": (
        {"config__json": LLAMA, "model__safetensors": b"version https://git-lfs"},
        "header",
    ),
    "a file that is cut": (
        {"config__json": LLAMA, "model__safetensors": WHOLE[:-1000]},
        "speaks of",
    ),
    "a header that lies": (
        {"config__json": LLAMA, "model__safetensors": safetensors(TENSORS, claimed=10**12)},
        "need",
    ),
    "an index without files": (
        {
            "config__json": LLAMA,
            "model__safetensors": WHOLE,
            "model__safetensors__index__json": {"weight_map": {"x": "gone.safetensors"}},
        },
        "gone.safetensors is not there",
    ),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_read_is_an_error_with_a_fix_and_nothing_is_written(
    project: Project, case: tuple[dict[str, Any], str]
) -> None:
    files, said = case
    project.upload(**files)
    ran = project.run("some/llama")
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert said in ran.stderr
    assert "fix:" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert project.written == []


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["some/missing"], {}, "is private"),
        (["llama"], {}, "owner/name"),
        (["some/llama", "--revision", "v9"], {}, "no revision 'v9'"),
        (["some/llama"], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "could not be asked"),
        (["some/llama"], {"HF_HUB_OFFLINE": "1"}, "not complete in the hub's cache"),
    ],
)
def test_a_hub_that_gives_nothing_is_told_from_a_model_that_is_none(
    project: Project, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    project.upload(config__json=LLAMA, model__safetensors=WHOLE)
    ran = project.run(*arguments, **environment)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "fix:" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_token_opens_a_gated_model_and_is_never_shown(project: Project) -> None:
    project.upload(config__json=LLAMA, model__safetensors=WHOLE, GATED=b"")
    ran = project.run("some/llama", HF_TOKEN="hf_verysecret")
    assert ran.returncode == 0, ran.stderr
    assert "verysecret" not in ran.stdout + ran.stderr + project.written[0].read_text()


@pytest.mark.parametrize(
    ("tensor", "role"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", "experts"),
        ("model.layers.0.mlp.shared_expert.up_proj.weight", "other"),
        ("model.layers.0.self_attn.q_proj.weight", "attention"),
        ("model.language_model.layers.0.linear_attn.in_proj_qkv.weight", "attention"),
        ("backbone.layers.3.mixer.experts.5.up_proj.weight", "experts"),
        ("backbone.embeddings.weight", "embedding"),
        ("model.embed_tokens.weight", "embedding"),
        ("lm_head.weight", "output"),
        ("mtp.layers.0.mlp.experts.3.down_proj.weight", "drafts"),
        ("model.layers.92.self_attn.q_proj.weight", "drafts"),
        ("model.visual.blocks.3.attn.qkv.weight", "vision"),
        ("vision_tower.encoder.layers.99.mlp.fc1.weight", "vision"),
    ],
)
def test_the_role_of_a_tensor_is_read_off_its_name(tensor: str, role: str) -> None:
    assert role_of(tensor, layers=92) == role


def test_kernels_pad_the_experts_of_a_checkpoint_whose_bytes_are_known(tmp_path: Path) -> None:
    """gpt-oss-120b: 60.77 GiB of files, 65.97 in memory with Marlin."""
    config = json.loads(config_path("openai--gpt-oss-120b").read_text())["config"]
    experts = round(36 * 128 * 3 * 2880 * 2880 * (0.5 + 1 / 32))
    biases = 36 * 128 * 3 * 2880 * 2
    content = {
        "id": "openai/gpt-oss-120b",
        "config": config,
        "weights": {"experts": {"U8": experts, "BF16": biases}, "other": {"BF16": 2 * 10**9}},
    }
    path = tmp_path / "gpt-oss.yaml"
    path.write_text(yaml.safe_dump(content))
    shape = shape_in(path)
    padded = shape.weight_bytes(shape.quantization, 2, 1, Loaded())
    assert shape.stored is not None
    assert (padded - shape.stored.total) / 2**30 == pytest.approx(5.2, abs=0.2)


@pytest.mark.parametrize("weights", [[], {"experts": 5}, {"heads": {"BF16": 1}}])
def test_a_models_file_with_weights_of_the_wrong_form_is_refused(
    tmp_path: Path, weights: Any
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump({"id": "a/b", "config": LLAMA, "weights": weights}))
    with pytest.raises(ValueError, match="vllm-spark model ID"):
        read_config(path)
