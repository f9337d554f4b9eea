"""The fetch of a model's files: the hub's real client in the vLLM image, and a local hub."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
import pytest
from docker.models.containers import Container
from docker.types import Mount

from offline.bootstrap.vllm_image import IMAGE

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
SCRIPT = (ROOT / "vllm_spark" / "in_image" / "fetch_weights.py").read_text()
IMPATIENT = re.sub(r"(?m)^(PROGRESS|HUB|STALL)_SECONDS = .*$", r"\1_SECONDS = 1.0", SCRIPT)
"""The script with time limits of one second."""

BROKEN_CLIENT = """
import huggingface_hub
def snapshot_download(*_, **__):
    raise RuntimeError("Data processing error: CAS service error")
huggingface_hub.snapshot_download = snapshot_download
"""
"""Fails like hf_xet, which fetches large files."""


class Hub:
    """A hub with some models, in a container, and fetches from it into a volume."""

    def __init__(self, docker_client: docker.DockerClient, folder: Path) -> None:
        self.docker_client = docker_client
        self.folder = folder
        self.volume = docker_client.volumes.create(f"vllm-spark-test-{uuid4().hex[:8]}")
        self.server: Container | None = None

    def model(self, name: str, **files: int) -> None:
        """Put a model on the hub. `files` maps names (with `_` for `.`) to sizes in bytes."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        for file, size in files.items():
            with (folder / file.replace("_", ".")).open("wb") as content:
                content.truncate(size)

    def serve(self, **switches: int) -> None:
        """Start, or start again with other switches."""
        self.stop()
        self.server = self.docker_client.containers.run(
            IMAGE,
            ["-u", "/local_hub.py", "/hub"],
            entrypoint="python3",
            environment={f"HUB_{key.upper()}": str(value) for key, value in switches.items()},
            volumes={
                str(ROOT / "tests" / "local_hub.py"): {"bind": "/local_hub.py", "mode": "ro"},
                str(self.folder): {"bind": "/hub", "mode": "ro"},
            },
            detach=True,
        )
        next(line for line in self.server.logs(stream=True) if b"listens" in line)

    def stop(self) -> None:
        if self.server is not None:
            self.server.remove(force=True)
            self.server = None

    def requests(self) -> str:
        """The requests to the hub, one per line."""
        assert self.server is not None
        return str(self.server.logs().decode())

    @property
    def url(self) -> str:
        if self.server is None:
            return "http://127.0.0.1:9"
        self.server.reload()
        return (
            f"http://{self.server.attrs['NetworkSettings']['Networks']['bridge']['IPAddress']}:8080"
        )

    def fetch(
        self, *arguments: str, token: str = "", cache: Any = None, script: str = SCRIPT
    ) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a fetch."""
        mount = cache or ["--volume", f"{self.volume.name}:/cache"]
        ended = subprocess.run(
            ["docker", "run", "--rm", "--interactive", *mount, "--env", "HF_HUB_CACHE=/cache"]
            + ["--env", f"HF_ENDPOINT={self.url}", "--env", f"HF_TOKEN={token}"]
            + ["--entrypoint", "python3", IMAGE, "-", *arguments],
            input=script,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return ended.returncode, ended.stdout.strip(), ended.stderr

    def files(self) -> dict[str, int]:
        """Every file in the cache with its size."""
        listing = self.in_cache("find /cache -type f -printf '%P %s\n'")
        return {line.split()[0]: int(line.split()[1]) for line in listing.splitlines()}

    def in_cache(self, command: str) -> str:
        """The output of a shell command that sees the cache."""
        said: bytes = self.docker_client.containers.run(
            IMAGE,
            ["-c", command],
            entrypoint="sh",
            mounts=[Mount("/cache", self.volume.name)],
            remove=True,
        )
        return said.decode()


@pytest.fixture
def hub(docker_client: docker.DockerClient, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(docker_client, tmp_path)
    hub.model("some/model", config_json=2, model_safetensors=3 * MIB, pytorch_bin=100)
    yield hub
    hub.stop()
    hub.volume.remove(force=True)


def test_a_model_is_fetched_once_and_its_commit_printed(hub: Hub) -> None:
    hub.serve()
    code, commit, said = hub.fetch("some/model")
    assert code == 0, said
    assert len(commit) == 40
    assert 3 * MIB in hub.files().values()
    assert "GET /some/model/resolve" in hub.requests()
    hub.serve()
    assert hub.fetch("some/model")[:2] == (0, commit)
    assert "GET /some/model/resolve" not in hub.requests(), "it was there already"


VOCABULARY = b"IQ== 0\n"


@pytest.fixture
def gpt_oss(hub: Hub) -> Iterator[str]:
    """The script, which takes OpenAI's vocabulary from the hub, where there is a gpt-oss model."""
    hub.model("some/gpt-oss", model_safetensors=MIB)
    (hub.folder / "some/gpt-oss/config.json").write_text('{"model_type": "gpt_oss"}')
    hub.model("open/encodings")
    (hub.folder / "open/encodings/o200k_base.tiktoken").write_bytes(VOCABULARY)
    hub.serve()
    url = f"{hub.url}/open/encodings/resolve/main/o200k_base.tiktoken"
    script = re.sub(r"(?m)^VOCABULARY = .*$", f'VOCABULARY = "{url}"', SCRIPT)
    known = hashlib.sha256(VOCABULARY).hexdigest()
    yield re.sub(r"(?m)^VOCABULARY_SHA256 = .*$", f'VOCABULARY_SHA256 = "{known}"', script)


def test_what_gpt_oss_needs_besides_its_weights_is_fetched_once_with_them(
    hub: Hub, gpt_oss: str
) -> None:
    code, commit, said = hub.fetch("some/gpt-oss", script=gpt_oss)
    assert (code, len(commit)) == (0, 40), said
    (kept,) = (path for path in hub.files() if path.startswith("harmony/"))
    url = re.findall(r'(?m)^VOCABULARY = "(.*)"$', gpt_oss)[0]
    assert kept == f"harmony/{hashlib.sha1(url.encode()).hexdigest()}", "as openai_harmony names it"
    hub.stop()
    code, _, said = hub.fetch("some/gpt-oss", script=gpt_oss)
    assert code == 0, f"the start needs no network, nor does a second fetch: {said}"


def test_a_vocabulary_that_cannot_be_had_is_a_problem_before_the_old_server_stops(
    hub: Hub, gpt_oss: str
) -> None:
    wrong = gpt_oss.replace("o200k_base.tiktoken", "config.json")
    code, _, said = hub.fetch("some/gpt-oss", script=wrong)
    assert code == 1
    assert "cause: gpt-oss needs OpenAI's vocabulary" in said
    assert "TIKTOKEN_ENCODINGS_BASE" in said
    other = re.sub(r"(?m)^VOCABULARY_SHA256 = .*$", 'VOCABULARY_SHA256 = "0"', gpt_oss)
    code, _, said = hub.fetch("some/gpt-oss", script=other)
    assert code == 1
    assert "is not the file that gpt-oss needs" in said
    assert not any(path.startswith("harmony/") for path in hub.files())


def test_pickled_weights_are_left_on_the_hub_where_there_are_safetensors(hub: Hub) -> None:
    hub.serve()
    hub.fetch("some/model")
    assert "pytorch.bin" not in hub.requests()
    hub.model("old/model", config_json=2, pytorch_bin=100)
    assert hub.fetch("old/model")[0] == 0
    assert "GET /old/model/resolve" in hub.requests()
    assert "pytorch.bin" in hub.requests()


def test_a_complete_copy_is_enough_without_the_hub(hub: Hub) -> None:
    hub.serve()
    commit = hub.fetch("some/model")[1]
    hub.stop()
    code, found, said = hub.fetch("some/model")
    assert (code, found) == (0, commit), said
    assert "looking in the cache" in said


def test_a_download_that_broke_off_goes_on_where_it_was(hub: Hub) -> None:
    hub.model("large/model", model_safetensors=24 * MIB)
    hub.serve(**{"break": 12 * MIB})
    code, _, said = hub.fetch("large/model")
    assert code == 0, said
    assert '" 206 ' in hub.requests(), "the rest only was asked for"
    assert 24 * MIB in hub.files().values()


def test_a_hub_that_takes_a_question_and_never_answers_is_given_up(hub: Hub) -> None:
    hub.serve(silent=1)
    code, _, said = hub.fetch("some/model", script=IMPATIENT)
    assert code == 1
    assert "cause: the hub took the question, never answered" in said or (
        "is not complete in the cache, and the hub does not answer" in said
    )
    assert "Traceback" not in said


def test_a_download_from_which_nothing_arrives_any_more_is_given_up(hub: Hub) -> None:
    hub.serve(rate=1)
    code, _, said = hub.fetch("some/model", script=IMPATIENT)
    assert code == 1
    assert "cause: nothing of some/model has arrived for 1 s" in said
    assert "what was fetched is kept" in said


def test_what_is_fetched_does_not_stay_in_the_page_cache(hub: Hub) -> None:
    hub.model("large/model", model_safetensors=1024 * MIB)
    hub.serve()
    code, _, said = hub.fetch("large/model")
    assert code == 0, said
    resident = hub.in_cache("fincore --bytes --noheadings --output RES /cache/models--*/blobs/*")
    assert sum(map(int, resident.split())) < 10 * MIB


def test_an_error_of_the_client_for_large_files_is_told_in_words(hub: Hub, tmp_path: Path) -> None:
    hub.serve()
    (tmp_path / "sitecustomize.py").write_text(BROKEN_CLIENT)
    stub = ["--volume", f"{tmp_path}:/stub:ro", "--env", "PYTHONPATH=/stub"]
    code, _, told = hub.fetch("some/model", cache=["--volume", f"{hub.volume.name}:/cache", *stub])
    assert code == 1
    assert "cause: the fetch broke off: Data processing error: CAS service error" in told
    assert "what was fetched is kept" in told
    assert "Traceback" not in told


def test_a_repository_that_gives_a_tokenizer_is_fetched_without_its_weights(hub: Hub) -> None:
    hub.serve()
    code, _, said = hub.fetch("some/model", "--without-weights")
    assert code == 0, said
    assert "config.json" in hub.requests()
    assert ".safetensors" not in hub.requests()
    assert "pytorch.bin" not in hub.requests()


def test_a_model_that_the_hub_does_not_have_is_said(hub: Hub) -> None:
    hub.serve()
    code, _, said = hub.fetch("some/modle")
    assert code != 0
    assert "cause: the hub has no model some/modle" in said
    assert "fix:   correct vllm-spark:model.id" in said
    assert "Traceback" not in said


def test_a_revision_that_the_model_does_not_have_is_said(hub: Hub) -> None:
    hub.serve()
    code, _, said = hub.fetch("some/model", "v9")
    assert code != 0
    assert "has no revision v9" in said
    assert "vllm-spark:model.revision" in said


def test_a_gated_model_wants_a_token_and_the_token_is_never_shown(hub: Hub) -> None:
    hub.model("gated/model", config_json=2, GATED=1)
    hub.serve()
    code, _, said = hub.fetch("gated/model")
    assert code != 0
    assert "vllm-spark:huggingFaceToken" in said
    code, _, said = hub.fetch("gated/model", token="hf_secretsecretsecret")
    assert code == 0, said
    assert "secretsecret" not in said


def test_a_disk_without_room_is_said_before_anything_is_fetched(hub: Hub) -> None:
    hub.serve()
    small = ["--mount", "type=tmpfs,destination=/cache,tmpfs-size=2m"]
    code, _, said = hub.fetch("some/model", cache=small)
    assert code != 0
    assert "are free on the disk of the cache" in said
    assert "GET /some/model/resolve" not in hub.requests()


def test_files_of_others_in_the_cache_are_not_touched(hub: Hub) -> None:
    hub.in_cache(
        "mkdir -p /cache/models--other--model/blobs /cache/compiled; "
        "echo 1 > /cache/models--other--model/blobs/a; echo 2 > /cache/compiled/b; "
        "echo 3 > /cache/notes.txt"
    )
    before = hub.files()
    hub.serve()
    assert hub.fetch("some/model")[0] == 0
    assert before.items() <= hub.files().items()
