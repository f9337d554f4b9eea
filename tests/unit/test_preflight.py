"""Everything in the way of a container is found and told at once, and nothing is touched before."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.fake_daemon import GPU, Container, FakeDaemon, hangs_up, refuses
from tests.fake_daemon_api import STDERR
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.tenants import CHECK_LABEL, Identity
from vllm_spark.docker_host.host import DockerHost
from vllm_spark.docker_host.image_check import flags_key
from vllm_spark.docker_host.preflight import Preflight
from vllm_spark.errors import DockerRefused, DockerUnavailable, Interrupted, PreflightError
from vllm_spark.memory.limits import GIB

NAME = "vllm-spark"
US = Identity("project", "spark", "vllm", "0123456789ab")
IMAGE = "nvcr.io/nvidia/vllm:25.09-py3"
COMMAND = ["vllm", "serve", "--gpu-memory-utilization", "0.85"]
ON_GPU: dict[str, Any] = {"image": IMAGE, "host": {"DeviceRequests": [GPU]}, "Cmd": COMMAND}
ACCEPTED: dict[str, Any] = {
    "flags": "accepted",
    "said": "",
    "gpus": ["0, GPU-1, NVIDIA GB10, 12.1, [N/A], [N/A]"],
    "trouble": "",
    "holders": None,
    "version": None,
    "prebuilt": [],
}

SetAvailable = Callable[[float], None]


@pytest.fixture(autouse=True)
def spark(daemon: FakeDaemon, available: SetAvailable) -> None:
    """A Spark with the image, whose vLLM accepts everything and sees the GPU."""
    daemon.add_image(IMAGE)
    image_says(daemon)


def image_says(daemon: FakeDaemon, **answer: Any) -> None:
    def process(container: Container) -> None:
        if CHECK_LABEL in container.inspected["Config"]["Labels"]:
            container.prints(json.dumps({**ACCEPTED, **answer}))
            container.exits(0)

    daemon.when_started = process


def serving(daemon: FakeDaemon) -> Container:
    """Our server, which runs."""
    return daemon.add(NAME, Labels=US.labels, **ON_GPU)


def settings(port: int, **keys: Any) -> Settings:
    config = {
        "model": "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8",
        "image": IMAGE,
        "cache": {"volume": "weights"},
        "engine": {"max-model-len": 32768, "gpu-memory-utilization": 0.85},
        "endpoint": {"port": port},
        **keys,
    }
    return Settings.parse(config, frozenset())


def check(declared: Settings, *, accepted: str = "") -> str:
    preflight = Preflight(NAME, US, declared, "sha256:1", accepted)
    return preflight.run().accepted


def problems(declared: Settings) -> str:
    with pytest.raises(PreflightError) as failed:
        check(declared)
    return str(failed.value)


def test_where_nothing_is_in_the_way_the_accepted_flags_are_noted(
    daemon: FakeDaemon, port: int
) -> None:
    serving(daemon)
    declared = settings(port)
    assert check(declared) == flags_key(declared, "sha256:1")


def test_a_paused_server_is_unpaused_so_that_it_can_answer(
    daemon: FakeDaemon, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = serving(daemon)
    ours.inspected["State"]["Paused"] = True
    check(settings(port))
    assert not ours.inspected["State"]["Paused"]
    assert "it was paused; unpausing it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "keys", "known", "asked"),
    [
        (True, {}, False, True),
        (True, {}, True, False),
        (False, {}, False, False),
        (False, {"gpu": {"takeover": True}}, False, True),
    ],
    ids=["new flags", "accepted before", "nothing to protect", "others to protect"],
)
def test_flags_are_asked_about_once_and_only_where_a_server_could_be_lost(
    old: bool, keys: dict[str, Any], known: bool, asked: bool, daemon: FakeDaemon, port: int
) -> None:
    declared = settings(port, **keys)
    if old:
        serving(daemon)
    questions: list[Any] = []

    def process(container: Container) -> None:
        questions.append(json.loads(container.inspected["Config"]["Cmd"][-1])["argv"])
        container.prints(json.dumps(ACCEPTED))
        container.exits(0)

    daemon.when_started = process
    check(declared, accepted=flags_key(declared, "sha256:1") if known else "")
    (argv,) = questions
    assert (argv is not None) is asked


def test_everything_is_one_list_and_the_old_server_is_left_alone(
    daemon: FakeDaemon, available: SetAvailable, held_port: int
) -> None:
    old = daemon.add(NAME, Labels=US.labels, image=IMAGE)
    old.stats["memory_stats"] = {"usage": 2 * GIB, "stats": {}}
    old.inspected["Config"]["Cmd"] = ["serve"]
    daemon.add("other", **ON_GPU)
    available(10.0)
    image_says(daemon, flags="refused", said="vllm: error: unrecognized arguments: --x", gpus=[])
    said = problems(settings(held_port))
    head = f"{NAME} cannot be started on this host; {NAME}, which runs, is left untouched"
    assert said.startswith(head)
    assert "1. GPU: container other" in said
    assert f"2. port {held_port} on 127.0.0.1: is held by another process" in said
    assert "3. memory: the server needs 103.4 GiB; 10.0 of the host's 121.7 are available" in said
    assert f"and {NAME} gives back about 2.0" in said
    assert f"4. GPU: a container of {IMAGE} with `gpus: all` sees none" in said
    assert "5. vllm-spark:engine: the image's own vLLM refuses it" in said
    assert old.running


def test_a_first_deployment_says_nothing_of_an_old_server(held_port: int) -> None:
    said = problems(settings(held_port)).splitlines()[0]
    assert said == f"{NAME} cannot be started on this host"


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {**US.labels, "vllm-spark.state-id": "another"},
        {**US.labels, "vllm-spark.project": "another"},
        {**US.labels, "vllm-spark.server": "another"},
    ],
    ids=["unknown", "another state", "another project", "another server"],
)
def test_a_container_of_our_name_that_is_not_ours_is_in_the_way(
    labels: dict[str, str], daemon: FakeDaemon, port: int
) -> None:
    theirs = daemon.add(NAME, Labels=labels)
    said = problems(settings(port))
    assert f"container {NAME}: exists, and the state of this stack does not know it" in said
    assert f"docker rm --force {NAME}, or give this stack's another name" in said
    assert theirs.running


def test_a_model_that_has_come_to_be_known_as_too_big_is_in_the_way(port: int) -> None:
    too_long = {"max-model-len": 262144, "gpu-memory-utilization": 0.3}
    assert "max-model-len" in problems(settings(port, engine=too_long))


# Memory


def test_memory_that_the_old_server_gives_back_counts(
    daemon: FakeDaemon, available: SetAvailable, port: int
) -> None:
    serving(daemon)
    available(10.0)
    assert check(settings(port))


def test_memory_of_which_nobody_knows_what_comes_back_is_said_and_no_problem(
    daemon: FakeDaemon, available: SetAvailable, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.add("train", image=IMAGE, host={"DeviceRequests": [GPU]}, Entrypoint=[], Cmd=["train"])
    available(10.0)
    assert check(settings(port, gpu={"takeover": True}))
    said = capsys.readouterr().out
    assert "memory not checked: nobody knows what train will give back; besides, the server" in said


def test_memory_that_is_too_little_is_let_through_where_the_config_says_so(
    available: SetAvailable, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    available(10.0)
    assert check(settings(port, host={"allowMisfit": True}))
    assert "host.allowMisfit lets it pass" in capsys.readouterr().out


def test_a_host_that_does_not_tell_its_memory_is_said_and_no_problem(
    daemon: FakeDaemon, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere(daemon, "cat: /proc/meminfo: Permission denied\n", code=1)
    assert check(settings(port))
    assert "memory not checked: the host does not tell" in capsys.readouterr().out


def elsewhere(daemon: FakeDaemon, meminfo: str, code: int = 0) -> None:
    """The daemon is on another machine, of 64 GiB, whose memory a container reads so."""
    daemon.info["MemTotal"] = 64 * GIB
    image = daemon.when_started

    def process(container: Container) -> None:
        if "/proc/meminfo" in container.inspected["Config"]["Cmd"][1]:
            container.prints(meminfo)
            container.exits(code)
        else:
            image(container)

    daemon.when_started = process


def test_a_plan_for_a_larger_machine_is_a_problem_with_the_number_to_set(
    daemon: FakeDaemon, port: int
) -> None:
    kib = 64 * 2**20
    elsewhere(daemon, f"MemTotal: {kib} kB\nMemFree: {kib} kB\nMemAvailable: {kib} kB\n")
    said = problems(settings(port))
    assert "host.memoryGiB: the plan is for 121.69 GiB, and this machine has 64.00" in said
    assert "pulumi config set --path vllm-spark:host.memoryGiB 64.0" in said
    assert "memory: the server needs" not in said, "one mistake is one problem"


@pytest.mark.parametrize(("free", "fits"), [(60000, True), (30000, False)])
def test_a_gpu_with_a_memory_of_its_own_is_asked_what_is_free(
    free: int, fits: bool, daemon: FakeDaemon, port: int
) -> None:
    image_says(daemon, gpus=[f"0, GPU-2, NVIDIA H100 80GB HBM3, 9.0, 81559, {free}"])
    engine = {"max-model-len": 32768, "gpu-memory-utilization": 0.6}
    declared = settings(port, engine=engine, host={"memoryGiB": 79.18, "unified": False})
    if fits:
        assert check(declared)
    else:
        said = problems(declared)
        assert "memory of GPU 0: the server needs 47.8 GiB; 29.3 of 79.6 are free" in said


def test_a_plan_that_cannot_be_made_is_said_and_no_problem(
    daemon: FakeDaemon, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = "vllm/vllm-openai-cpu:v0.32.0-x86_64"
    assert check(settings(port, image=cpu, engine={}, container={"gpus": "none"}))
    assert "memory not checked: without VLLM_CPU_KVCACHE_SPACE" in capsys.readouterr().out


# The image


@pytest.mark.parametrize("emulated", [False, True])
def test_an_image_for_another_processor_is_a_problem_unless_its_programs_run(
    emulated: bool, daemon: FakeDaemon, port: int
) -> None:
    serving(daemon)
    daemon.info["Architecture"] = "aarch64"
    daemon.images[IMAGE]["Architecture"] = "amd64"
    answers = daemon.when_started

    def process(container: Container) -> None:
        if emulated and "print('runs')" in container.inspected["Config"]["Cmd"]:
            container.prints("runs\n")
            container.exits()
        elif emulated:
            answers(container)
        else:
            container.prints("exec /usr/bin/python3: exec format error\n", STDERR)
            container.exits(255)

    daemon.when_started = process
    if emulated:
        assert check(settings(port))
    else:
        said = problems(settings(port))
        assert f"vllm-spark:image.name: {IMAGE} is built for amd64, and this host is arm64" in said
        assert f"docker pull --platform linux/arm64 {IMAGE}" in said
        assert said.count("fix:") == 1, "nothing else is asked of an image that does not run"


def test_an_image_that_docker_does_not_start_for_its_processor_is_a_problem(
    daemon: FakeDaemon, port: int
) -> None:
    daemon.images[IMAGE]["Architecture"] = "arm64"
    daemon.fault(r"POST /containers/create", refuses(400, "no such platform"))
    assert "its programs do not run here (no such platform)" in problems(settings(port))


@pytest.mark.parametrize("request_", ["GET /info", "GET /images/.*/json"])
def test_a_processor_that_is_not_known_is_no_problem(
    request_: str, daemon: FakeDaemon, port: int
) -> None:
    daemon.fault(request_, refuses(500, "cannot do it"))
    assert DockerHost(NAME, IMAGE).architecture_problem() is None


def test_flags_that_cannot_be_checked_are_said_and_not_noted_as_accepted(
    daemon: FakeDaemon, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    serving(daemon)
    image_says(daemon, flags="unknown", said="it ended with exit code 1")
    assert check(settings(port)) == ""
    assert "flags not checked: the image's vLLM could not be asked" in capsys.readouterr().out


def test_an_interruption_is_no_problem_of_the_host(
    daemon: FakeDaemon, port: int, ctrl_c: Callable[[], None]
) -> None:
    daemon.when_started = lambda _container: ctrl_c()
    with pytest.raises(Interrupted):
        check(settings(port))


# Takeover


def test_a_takeover_stops_others_once_nothing_else_is_in_the_way(
    daemon: FakeDaemon, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    other = daemon.add("other", **ON_GPU)
    other.inspected["HostConfig"]["RestartPolicy"]["Name"] = "always"
    friend = daemon.add("friend", **ON_GPU)
    assert check(settings(port, gpu={"takeover": True, "alongside": ["friend"]}))
    assert (other.status, friend.status) == ("exited", "running")
    said = capsys.readouterr().out
    assert f"takes the GPU over: stopping other ({IMAGE}, of stack spark)" in said
    assert "other is stopped; `docker start other` brings it back, and so does a restart" in said
    assert "friend" not in said


def test_a_takeover_stops_nobody_while_something_is_in_the_way(
    daemon: FakeDaemon, held_port: int
) -> None:
    other = daemon.add("other", **ON_GPU)
    said = problems(settings(held_port, gpu={"takeover": True}))
    assert f"1. port {held_port}" in said
    assert "container other" not in said
    assert other.running


def test_who_ends_before_it_is_stopped_is_no_failure(daemon: FakeDaemon, port: int) -> None:
    other = daemon.add("other", **ON_GPU)
    image = daemon.when_started

    def process(container: Container) -> None:
        other.removed()
        image(container)

    daemon.when_started = process
    assert check(settings(port, gpu={"takeover": True}))


def test_a_sibling_is_neither_in_the_way_nor_stopped(daemon: FakeDaemon, port: int) -> None:
    sibling = Identity(US.project, US.stack, "second", US.state_id)
    second = daemon.add("vllm-second", Labels=sibling.labels, **ON_GPU)
    assert check(settings(port))
    assert check(settings(port, gpu={"takeover": True}))
    assert second.running


# The daemon


def test_a_daemon_that_is_away_is_no_problem_of_the_host(daemon: FakeDaemon, port: int) -> None:
    daemon.goes_away()
    with pytest.raises(DockerUnavailable, match="no Docker daemon answers"):
        check(settings(port))


def test_a_daemon_that_hangs_up_in_between_is_said(daemon: FakeDaemon, port: int) -> None:
    daemon.fault("GET /containers/json", hangs_up)
    with pytest.raises(DockerUnavailable):
        check(settings(port))


def test_a_daemon_that_refuses_to_list_is_said(daemon: FakeDaemon, port: int) -> None:
    daemon.fault("GET /containers/json", refuses(500, "layer does not exist"))
    with pytest.raises(DockerRefused, match="layer does not exist"):
        check(settings(port))


UNKNOWN = "nvcr.io/nvidia/vllm:26.10.pre1-py3"


def test_flags_are_judged_by_the_release_that_the_image_tells(
    daemon: FakeDaemon, port: int
) -> None:
    daemon.add_image(UNKNOWN)
    image_says(daemon, version="0.31.0")
    flags = {"max-model-len": 32768, "gpu-memory-utilization": 0.85, "swap-space": 4}
    said = problems(settings(port, image=UNKNOWN, engine=flags))
    assert "vllm-spark:engine.swap-space" in said
    assert "0.31.0" in said


def test_a_release_that_is_not_what_the_tag_says_is_a_warning(
    daemon: FakeDaemon, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    image_says(daemon, version="0.13.0+nv26.01")
    check(settings(port))
    said = capsys.readouterr().out
    assert "the image holds vLLM 0.13.0, not 0.10.1.1 as its tag or config says" in said
    assert "pulumi config set --path vllm-spark:image.vllmVersion 0.13.0" in said


def test_kernels_that_cannot_be_kept_do_not_stop_a_deployment(
    daemon: FakeDaemon, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def process(container: Container) -> None:
        question = json.loads(container.inspected["Config"]["Cmd"][-1])
        if isinstance(question, dict):
            container.prints(json.dumps({**ACCEPTED, "prebuilt": [["/root/.cache/vllm", "/x"]]}))
        else:
            container.prints("/root/.cache/vllm: No space left on device\n", stream=2)
        container.exits(0)

    daemon.when_started = process
    check(settings(port))
    said = capsys.readouterr().out
    assert "keeping the kernels that the image brings in /root/.cache/vllm" in said
    assert "not kept: /root/.cache/vllm: No space left on device" in said
