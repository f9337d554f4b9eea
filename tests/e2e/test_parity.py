"""Compares stack `spark` with the guide's compose service, field by field of `docker inspect`.

docker compose creates the guide's container from the guide's own file (tests/data/guide), Pulumi
creates ours from Pulumi.spark.yaml. Neither is started, so no GPU is needed. They differ only in
DEVIATIONS, which docs/parity.md documents.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import docker
import pytest
import yaml

from offline.bootstrap.compose import ensure_compose
from tests.e2e.project import GUIDE_IMAGE, ROOT, Project

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("guide_image")]

GUIDE = ROOT / "tests" / "data" / "guide" / "compose.yaml"
SERVICE = "vllm-qwen3-30b-a3b-fp8"
TOKEN = "hf_not-a-real-token"

KERNELS = "keeps compiled kernels when the container is removed"
LABEL = "identifies the server that owns the container"
DEVIATIONS = {
    "Config.AttachStderr": "as AttachStdout",
    "Config.AttachStdout": "matters only for a container started in the foreground",
    "Config.Cmd.--served-model-name": "the same name as with the guide, made explicit: since "
    "0.10.2 an offline vLLM would use a path as the name",
    "Config.Env.B12X_COMPILE_CACHE_DIR": KERNELS,
    "Config.Env.CUTE_DSL_CACHE_DIR": KERNELS,
    "Config.Env.FLASHINFER_WORKSPACE_BASE": KERNELS,
    "Config.Env.HF_HUB_CACHE": "the guide's `--download-dir`, so that existing weights are found",
    "Config.Env.HF_HUB_OFFLINE": "the model is complete before the server starts, so the server "
    "needs no network",
    "Config.Env.TIKTOKEN_RS_CACHE_DIR": "where gpt-oss finds OpenAI's vocabulary, fetched "
    "with the weights",
    "Config.Env.TILELANG_CACHE_DIR": KERNELS,
    "Config.Env.TORCHINDUCTOR_CACHE_DIR": KERNELS,
    "Config.Env.TORCH_EXTENSIONS_DIR": KERNELS,
    "Config.Env.TRITON_CACHE_DIR": KERNELS,
    "Config.Env.TVM_FFI_CACHE_DIR": KERNELS,
    "Config.Env.VLLM_CACHE_ROOT": KERNELS,
    "Config.Env.VLLM_ENGINE_READY_TIMEOUT_S": "`vllm-spark:health` limits the start; vLLM's own "
    "limit must not end it first",
    "Config.Labels.vllm-spark.project": LABEL,
    "Config.Labels.vllm-spark.server": LABEL,
    "Config.Labels.vllm-spark.stack": LABEL,
    "Config.Labels.vllm-spark.state-id": LABEL,
    "Config.Labels.vllm-spark.version": "the release that declared the container",
    "Config.StopTimeout": "explicit, because Pulumi stops the container with the same limit; it "
    "is also Docker's default",
    "Config.Volumes./root/.cache/huggingface": "the docker plugin repeats the mount here; "
    "HostConfig.Binds decides, and equals the guide's",
    "HostConfig.DeviceRequests.0.Driver": "as with `docker run --gpus all`: Docker selects the "
    "driver with the capability `gpu`, on a Spark NVIDIA's",
    "HostConfig.Init": "the docker plugin always sends it; false is also Docker's default, unless "
    "the daemon is configured otherwise",
    "HostConfig.LogConfig.Config.max-file": "rotates the log, so that it cannot fill the disk",
    "HostConfig.LogConfig.Config.max-size": "as max-file",
    "HostConfig.NetworkMode": "compose creates a network for every project; one server needs none",
    "HostConfig.PortBindings.8000/tcp.0.HostIp": "the guide's clients use localhost, and its "
    "server requires no key; `vllm-spark:endpoint` opens the port",
}
"""Each field that is meant to differ, and why."""

DEVIATIONS_WITHOUT_TOKEN = {
    "Config.Env.HF_TOKEN": "set only if `vllm-spark:huggingFaceToken` is set, and then as in the "
    "guide; an empty token is no token",
    "Config.Env.HUGGING_FACE_HUB_TOKEN": "as HF_TOKEN",
}

NOT_COMPARED = {
    "Id": "identity",
    "Created": "identity",
    "Name": "identity",
    "Config.Hostname": "made from the id",
    "GraphDriver.Data.*": "made from the id",
    "Config.Labels.com.docker.compose.*": "by which compose knows its own",
    "NetworkSettings.Networks.*": "follows HostConfig.NetworkMode",
    "Args.*": "follows Config.Entrypoint and Config.Cmd",
}


@dataclass(frozen=True)
class Pair:
    """The two inspections."""

    guide: dict[str, Any]
    ours: dict[str, Any]

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """The differences: by path, the guide's value and ours; None if absent."""
        guide, ours = dict(fields(self.guide)), dict(fields(self.ours))
        return {
            path: (guide.get(path), ours.get(path))
            for path in sorted(guide.keys() | ours.keys())
            if guide.get(path) != ours.get(path)
            and not any(fnmatchcase(path, pattern) for pattern in NOT_COMPARED)
        }


def fields(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value by its path. What is empty is absent, as it is to Docker.

    Flags, variables and limits go by their names, since their order means nothing.
    """
    if path == "Config.Cmd":
        yield from ((f"{path}.{flag}", told) for flag, told in by_flag(value).items())
    elif path == "Config.Env":
        for name, _, told in (variable.partition("=") for variable in value or ()):
            yield f"{path}.{name}", told
    elif path == "HostConfig.Ulimits":
        for limit in value or ():
            yield from fields(limit, f"{path}.{limit['Name']}")
    elif path in ("Config.ExposedPorts", "Config.Volumes"):
        yield from ((f"{path}.{member}", nothing) for member, nothing in (value or {}).items())
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from fields(item, f"{path}.{key}".lstrip("."))
    elif value is not None and value != "":
        yield path, value


def by_flag(command: Sequence[str]) -> dict[str, str]:
    """The value of each flag, given with or without `=`; the words before under `program`."""
    told: dict[str, list[str]] = {}
    flag = "program"
    for word in command:
        if word.startswith("-"):
            flag, equals, value = word.partition("=")
            assert flag not in told, f"{flag} is given twice"
            told[flag] = [value] if equals else []
        else:
            told.setdefault(flag, []).append(word)
    return {flag: " ".join(words) for flag, words in told.items()}


@pytest.fixture(scope="module")
def compose(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., None]]:
    """Runs docker compose on the guide's file; its container gets a separate name."""
    override = tmp_path_factory.mktemp("compose") / "name.yaml"
    name = {"container_name": f"{project.container}-guide"}
    override.write_text(yaml.safe_dump({"services": {SERVICE: name}}))
    command = [*ensure_compose(), "--project-name", project.container]
    command += ["--file", str(GUIDE), "--file", str(override)]

    def run(*arguments: str, **variables: str) -> None:
        inherited = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"}
        subprocess.run([*command, *arguments], env={**inherited, **variables}, check=True)

    yield run
    run("down")


def inspected(docker_client: docker.DockerClient, project: Project) -> Pair:
    """Both containers as they are now; ours after an `up` with its config."""
    up = project.up()
    assert up.code == 0, up.output
    return Pair(
        guide=docker_client.api.inspect_container(f"{project.container}-guide"),
        ours=docker_client.api.inspect_container(project.container),
    )


@pytest.fixture(scope="module")
def without_token(
    docker_client: docker.DockerClient, project: Project, compose: Callable[..., None]
) -> Pair:
    compose("create")
    project.configure("spark", state="stopped", endpoint={})
    return inspected(docker_client, project)


@pytest.fixture(scope="module")
def with_token(
    docker_client: docker.DockerClient,
    project: Project,
    compose: Callable[..., None],
    without_token: Pair,
) -> Pair:
    compose("create", HF_TOKEN=TOKEN)
    project.pulumi("config", "set", "--secret", "vllm-spark:huggingFaceToken", TOKEN)
    return inspected(docker_client, project)


def assert_only(pair: Pair, listed: dict[str, str]) -> None:
    found = pair.differences()
    unlisted = {path: found[path] for path in found.keys() - listed.keys()}
    assert not unlisted, f"not in the list: {json.dumps(unlisted, indent=2)}"
    unreal = listed.keys() - found.keys()
    assert not unreal, f"in the list, and not different any more: {sorted(unreal)}"


def test_the_two_containers_differ_in_what_is_listed_and_in_nothing_else(
    without_token: Pair,
) -> None:
    assert_only(without_token, DEVIATIONS | DEVIATIONS_WITHOUT_TOKEN)


def test_a_token_is_passed_on_as_the_guide_does(with_token: Pair) -> None:
    assert_only(with_token, DEVIATIONS)
    assert f"HUGGING_FACE_HUB_TOKEN={TOKEN}" in with_token.ours["Config"]["Env"]


@pytest.mark.parametrize(
    ("path", "value"),
    {
        "Config.Image": GUIDE_IMAGE,
        "Config.Cmd.program": "vllm serve Qwen/Qwen3-30B-A3B-Instruct-2507-FP8",
        "Config.Cmd.--max-num-seqs": "64",
        "Config.Cmd.--trust-remote-code": "",
        "Config.ExposedPorts.8000/tcp": {},
        "HostConfig.PortBindings.8000/tcp.0.HostPort": "8000",
        "HostConfig.IpcMode": "host",
        "HostConfig.Ulimits.memlock.Soft": -1,
        "HostConfig.Ulimits.memlock.Hard": -1,
        "HostConfig.Ulimits.stack.Soft": 67108864,
        "HostConfig.Ulimits.stack.Hard": 67108864,
        "HostConfig.Binds.0": "/opt/hf:/root/.cache/huggingface:rw",
        "HostConfig.RestartPolicy.Name": "unless-stopped",
        "HostConfig.DeviceRequests.0.Count": -1,
        "HostConfig.DeviceRequests.0.Capabilities.0.0": "gpu",
    }.items(),
)
def test_what_the_guide_asks_for_is_among_the_compared(
    without_token: Pair, path: str, value: object
) -> None:
    assert dict(fields(without_token.guide))[path] == value
    assert dict(fields(without_token.ours))[path] == value


def test_the_table_for_people_is_this_list_with_these_values(
    without_token: Pair, project: Project
) -> None:
    why = DEVIATIONS | DEVIATIONS_WITHOUT_TOKEN
    rows = [
        f"| `{path}` | {shown(guide, project)} | {shown(ours, project)} | {why.get(path)} |"
        for path, (guide, ours) in without_token.differences().items()
    ]
    page = (ROOT / "docs" / "parity.md").read_text().splitlines()
    table = [line for line in page if line.startswith("| `")]
    assert table == rows, "docs/parity.md should hold these rows:\n" + "\n".join(rows)


def shown(value: Any, project: Project) -> str:
    """A value in the table; compose's project and an image that stands in differ by the run."""
    if value is None:
        return "absent"
    text = value if isinstance(value, str) and value else json.dumps(value)
    if value == project.stack:
        return "`<stack>`"
    if re.fullmatch(r"[0-9a-f]{12}", text):
        return "`<state id>`"
    text = re.sub(r"(25\.09-py3-)[0-9a-f]{12}", r"\1<image id>", text)
    return f"`{text.replace(project.container, '<project>')}`"
