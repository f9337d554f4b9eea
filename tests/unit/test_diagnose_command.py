"""`vllm-spark diagnose`: what it prints, and what it asks Docker about a container."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound

from tests.cli import vllm_spark
from tests.recorded_logs import LOGS, lines_of
from vllm_spark.cli import diagnose as command
from vllm_spark.diagnosis.commands import Change, changes_in, for_stack, for_vllm
from vllm_spark.docker_host.connection import Daemon


class FakeContainer:
    def __init__(self, log: str, state: dict[str, Any], restarts: int = 0) -> None:
        self.attrs = {"State": state, "RestartCount": restarts}
        self.labels = {"vllm-spark.stack": "spark"}
        self._log = log.encode()

    def logs(self, *, stream: bool) -> list[bytes]:
        assert stream
        return [self._log[at : at + 7] for at in range(0, len(self._log), 7)]


class FakeDocker:
    def __init__(self, container: FakeContainer | None) -> None:
        self._container = container
        self.containers = self

    def get(self, name: str) -> FakeContainer:
        if self._container is None:
            raise NotFound(f"No such container: {name}")
        return self._container


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(container: FakeContainer | None) -> None:
        monkeypatch.setattr(command, "connect", lambda: FakeDocker(container))
        remote = Daemon("tcp://elsewhere:2375", "DOCKER_HOST")
        monkeypatch.setattr(command, "resolve", lambda: remote)

    return use


def state(**changed: Any) -> dict[str, Any]:
    return {
        "Status": "exited",
        "Running": False,
        "ExitCode": 1,
        "OOMKilled": False,
        "Error": "",
        "StartedAt": "2026-11-25T22:25:00.1Z",
        **changed,
    }


def test_a_containers_log_is_read_with_dockers_state(docker: Any) -> None:
    log = (LOGS / "unfinished_compiling.log").read_text()
    docker(FakeContainer(log, state(ExitCode=1, OOMKilled=True), restarts=3))
    ran = vllm_spark("diagnose", "--container", "llm")
    assert ran.exit_code == 1
    assert ran.stdout.startswith("failed: killed for memory")
    assert "OOMKilled" in ran.stdout
    assert "restarted it 3 times" in ran.stdout


def test_a_running_container_that_serves_is_healthy(docker: Any) -> None:
    log = (LOGS / "healthy_serving.log").read_text()
    docker(FakeContainer(log, state(Status="running", Running=True, ExitCode=0)))
    assert vllm_spark("diagnose", "--container", "llm").exit_code == 0


def test_what_docker_could_not_start_is_explained_by_dockers_words(docker: Any) -> None:
    error = 'could not select device driver "nvidia" with capabilities: [[gpu]]'
    never = state(Status="created", ExitCode=128, Error=error, StartedAt="0001-01-01T00:00:00Z")
    docker(FakeContainer("", never))
    ran = vllm_spark("diagnose", "--container", "llm")
    assert "NVIDIA container toolkit" in ran.stdout


def test_the_commands_are_those_of_the_containers_stack(docker: Any) -> None:
    log = (LOGS / "gpu_memory_taken.log").read_text()
    docker(FakeContainer(log, state()))
    ran = vllm_spark("diagnose", "--container", "llm")
    assert (
        "pulumi config set --path vllm-spark:engine.gpu-memory-utilization 0.49 --stack spark"
        in ran.stdout
    )


def test_a_container_that_is_not_there_is_one_sentence_with_its_fix(docker: Any) -> None:
    docker(None)
    ran = vllm_spark("diagnose", "--container", "nosuch")
    assert ran.exit_code == 2
    assert "no container nosuch" in ran.stderr and "docker ps --all" in ran.stderr


@pytest.mark.parametrize("arguments", [(), ("log", "--container", "llm")])
def test_a_log_or_a_container_is_needed_and_not_both(arguments: tuple[str, ...]) -> None:
    ran = vllm_spark("diagnose", *arguments)
    assert ran.exit_code == 2
    assert "one of the two" in ran.stderr


def test_without_a_stack_the_commands_are_those_of_vllm() -> None:
    ran = vllm_spark("diagnose", str(LOGS / "gpu_memory_taken.log"))
    assert "vllm serve ... --gpu-memory-utilization 0.49" in ran.stdout
    ran = vllm_spark("diagnose", str(LOGS / "gpu_memory_taken.log"), "--stack", "spark", "--json")
    assert json.loads(ran.stdout)["commands"] == [
        "pulumi config set --path vllm-spark:engine.gpu-memory-utilization 0.49 --stack spark"
    ]


def test_an_unknown_failure_prints_the_text_of_an_issue(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(
        "(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700] EngineCore failed to start.\n"
        "(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700] Traceback (most recent call last):\n"
        '(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700]   File "a.py", line 1, in f\n'
        "(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700] FluxError: no frobs\n"
    )
    ran = vllm_spark("diagnose", str(log))
    assert "open an issue" in ran.stdout
    assert "- vLLM: not in the log" in ran.stdout


@pytest.mark.parametrize(
    ("fix", "changes"),
    [
        ("set moe-backend: marlin; or take a newer image", [Change("moe-backend", "marlin")]),
        ("set no-enable-prefix-caching, or wait", [Change("enable-prefix-caching", "false")]),
        (
            "remove disable-hybrid-kv-cache-manager and kv-transfer-config",
            [Change("disable-hybrid-kv-cache-manager", None), Change("kv-transfer-config", None)],
        ),
        ("set max-model-len to at most 8192, or raise it", [Change("max-model-len", "8192")]),
        (
            "set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False.",
            [Change("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:False")],
        ),
        ("take a newer image; or set enforce-eager: true", [Change("enforce-eager", "true")]),
        ("set container.ipc: host; reboot the host", []),
    ],
)
def test_the_settings_of_a_fix_are_picked_out_of_it(fix: str, changes: list[Change]) -> None:
    assert changes_in(fix) == changes


def test_a_change_is_a_command_for_a_stack_or_for_vllm() -> None:
    assert for_stack(Change("enable-lora", None), "spark") == (
        "pulumi config rm --path vllm-spark:engine.enable-lora --stack spark"
    )
    assert for_stack(Change("NCCL_DEBUG", "INFO"), "spark").startswith(
        "pulumi config set --path vllm-spark:container.environment.NCCL_DEBUG INFO"
    )
    assert for_vllm(Change("enforce-eager", "true")) == "vllm serve ... --enforce-eager"
    assert for_vllm(Change("enable-prefix-caching", "false")).endswith("--no-enable-prefix-caching")
    assert for_vllm(Change("enable-lora", None)).endswith("(without --enable-lora)")


def test_the_command_prints_cause_fix_and_evidence() -> None:
    ran = vllm_spark("diagnose", str(LOGS / "port_taken.log"))
    assert ran.exit_code == 1
    printed = ran.stdout
    assert printed.startswith("failed: port 8099 is taken by another program\n")
    assert "\nfix: stop the other server" in printed
    assert "[Errno 98] Address already in use" in printed


def test_the_command_prints_one_json_object() -> None:
    ran = vllm_spark("diagnose", str(LOGS / "kv_cache_none.log"), "--json")
    assert ran.exit_code == 1
    found = json.loads(ran.stdout)
    assert list(found) == ["verdict", "cause", "fix", "evidence"]
    assert found["verdict"] == "failed"
    assert isinstance(found["evidence"], list)


@pytest.mark.parametrize(
    ("name", "code"), [("healthy_stopped", 0), ("port_taken", 1), ("unfinished_compiling", 3)]
)
def test_the_exit_code_is_the_verdict(name: str, code: int) -> None:
    ran = vllm_spark("diagnose", str(LOGS / f"{name}.log"))
    assert ran.exit_code == code
    assert ran.stdout


def test_a_missing_file_is_one_sentence_with_its_fix() -> None:
    ran = vllm_spark("diagnose", "/no/such/file.log")
    assert ran.exit_code == 2
    said = ran.stderr
    assert said.count("\n") == 2
    assert "/no/such/file.log" in said and "docker logs" in said


def test_a_reader_that_wants_the_first_line_only_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "vllm_spark", "diagnose", str(LOGS / "port_taken.log")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_log_that_powershell_saved_is_read(encoding: str, tmp_path: Path) -> None:
    saved = tmp_path / "vllm.log"
    saved.write_text("\r\n".join(lines_of("port_taken")), encoding=encoding)
    ran = vllm_spark("diagnose", str(saved))
    assert ran.exit_code == 1
    assert "port 8099 is taken" in ran.stdout


def test_a_log_can_be_piped_in_whatever_its_bytes() -> None:
    log = (LOGS / "weights_missing.log").read_bytes() + b"\xff\xfe\x00\n"
    done = subprocess.run(
        [sys.executable, "-m", "vllm_spark", "diagnose", "-", "--json"],
        input=log,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["verdict"] == "failed"
