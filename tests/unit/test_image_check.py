"""What an image says of flags and GPU, and what is made of an image that says nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fake_daemon import Container, FakeDaemon, hangs_up, refuses
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpus import GPU_QUERY, Gpu
from vllm_spark.deployment.serving import server_arguments
from vllm_spark.deployment.tenants import CHECK_LABEL
from vllm_spark.docker_host import image_check
from vllm_spark.docker_host.connection import UNANSWERED
from vllm_spark.docker_host.image_check import ImageAnswer, ask_image, flags_key, keep_prebuilt
from vllm_spark.errors import Interrupted
from vllm_spark.images import Version

GPU_ACCESS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "gpu_access.yaml").read_text()
)
MODEL = "Qwen/Qwen3-32B-FP8"
CPU = "vllm/vllm-openai-cpu:v0.32.0-x86_64"
ON_GPU = "vllm/vllm-openai:v0.32.0"
ROW = "0, GPU-1, NVIDIA GB10, 12.1, [N/A], [N/A]"
GB10 = Gpu("0", "GPU-1", "NVIDIA GB10", "12.1", total_gib=None, free_gib=None)
ACCEPTED: dict[str, Any] = {
    "flags": "accepted",
    "said": "",
    "gpus": [ROW],
    "trouble": "",
    "holders": None,
    "version": None,
    "prebuilt": [],
}


def settings(image: str = CPU, **keys: Any) -> Settings:
    config = {
        "model": MODEL,
        "image": image,
        "cache": {"volume": "weights"},
        "engine": {"max-model-len": 2048},
        **keys,
    }
    return Settings.parse(config, frozenset())


@pytest.fixture(autouse=True)
def images(daemon: FakeDaemon) -> None:
    daemon.add_image(CPU)
    daemon.add_image(ON_GPU)


def says(daemon: FakeDaemon, *printed: str, code: int = 0) -> None:
    """What the image's containers print from now on."""

    def process(container: Container) -> None:
        for text in printed:
            container.prints(text)
        container.exits(code)

    daemon.when_started = process


def answers(daemon: FakeDaemon, **answer: Any) -> None:
    says(daemon, "INFO an import that talks\n", "\n" + json.dumps({**ACCEPTED, **answer}) + "\n")


def ask(asked: Settings, *, about_flags: bool = True) -> ImageAnswer:
    return ask_image(asked, about_flags=about_flags)


def test_flags_that_the_image_takes_are_no_problem(daemon: FakeDaemon) -> None:
    answers(daemon, gpus=None)
    assert ask(settings()) == ImageAnswer()
    assert daemon.containers == {}, "nothing is left behind"


def test_the_container_that_is_asked_can_change_nothing_and_reach_nothing(
    daemon: FakeDaemon,
) -> None:
    asked: list[dict[str, Any]] = []

    def process(container: Container) -> None:
        asked.append(container.inspected)
        container.prints(json.dumps(ACCEPTED))
        container.exits(0)

    daemon.when_started = process
    declared = settings(ON_GPU, container={"gpus": [0, 1], "environment": {"A": "b"}})
    ask(declared)
    (container,) = asked
    config, host = container["Config"], container["HostConfig"]
    question = json.loads(config["Cmd"][-1])
    argv = [MODEL, *server_arguments(declared)]
    assert question == {"gpus": True, "query": GPU_QUERY, "argv": argv, "caches": []}
    assert {"A=b", "HF_HUB_OFFLINE=1"} <= set(config["Env"])
    assert CHECK_LABEL in config["Labels"]
    assert host["NetworkMode"] == "none"
    assert host["Binds"] == ["weights:/root/.cache/huggingface:ro"]
    assert host["DeviceRequests"][0]["DeviceIDs"] == ["0", "1"]
    assert host["PidMode"] == "host", "nvidia-smi names only the processes that it sees"


def test_a_container_that_is_asked_gets_the_gpu_as_the_server_will(daemon: FakeDaemon) -> None:
    requests: list[dict[str, Any]] = []

    def process(container: Container) -> None:
        requests.extend(container.inspected["HostConfig"]["DeviceRequests"])
        container.prints(json.dumps(ACCEPTED))
        container.exits(0)

    daemon.when_started = process
    ask(settings(ON_GPU, container={"gpus": [0, 1], "gpuAccess": "cdi"}))
    (request,) = requests
    assert (request["Driver"], request["Count"]) == ("cdi", 0)
    assert request["DeviceIDs"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]


def test_a_container_that_is_asked_about_flags_alone_sees_no_process_of_the_host(
    daemon: FakeDaemon,
) -> None:
    modes: list[str] = []

    def process(container: Container) -> None:
        modes.append(container.inspected["HostConfig"].get("PidMode") or "")
        container.prints(json.dumps({**ACCEPTED, "gpus": None}))
        container.exits(0)

    daemon.when_started = process
    ask(settings())
    assert modes == [""]


@pytest.mark.parametrize(
    ("listed", "holders"),
    [([4711, 4712], frozenset({4711, 4712})), ([], frozenset()), (None, None)],
    ids=["two", "none", "unknown"],
)
def test_the_gpus_and_the_processes_on_them_are_told(
    listed: list[int] | None, holders: frozenset[int] | None, daemon: FakeDaemon
) -> None:
    answers(daemon, holders=listed)
    answer = ask(settings(ON_GPU))
    assert answer.gpus == (GB10,)
    assert answer.holders == holders, "no process is something else than not knowing"


def test_a_gpu_that_only_shows_as_a_device_file_is_there_and_has_no_facts(
    daemon: FakeDaemon,
) -> None:
    answers(daemon, gpus=["nvidia0"], trouble="No such file or directory: 'nvidia-smi'")
    answer = ask(settings(ON_GPU))
    assert (answer.problems, answer.gpus) == ((), ())


def test_a_flag_that_vllm_refuses_is_a_problem_in_its_words(daemon: FakeDaemon) -> None:
    said = "vllm: error: unrecognized arguments: --bogus-flag 1"
    answers(daemon, flags="refused", said=said)
    (problem,) = ask(settings()).problems
    assert problem.where == "vllm-spark:engine"
    assert "the image's own vLLM refuses it" in problem.what
    assert "--bogus-flag" in problem.what


def test_a_vllm_that_cannot_be_asked_is_unknown_and_no_problem(daemon: FakeDaemon) -> None:
    answers(daemon, flags="unknown", said="Traceback\nImportError: No module named 'vllm'")
    answer = ask(settings())
    assert not answer.problems
    said = "the image's vLLM could not be asked (ImportError: No module named 'vllm')"
    assert answer.unknown == said


@pytest.mark.parametrize(
    ("trouble", "fix"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch", "reboot"),
        ("No devices were found", "see whether `nvidia-smi` works on the host"),
        ("", "see whether `nvidia-smi` works on the host"),
    ],
)
def test_a_gpu_that_is_not_there_is_a_problem(trouble: str, fix: str, daemon: FakeDaemon) -> None:
    answers(daemon, gpus=[], trouble=trouble)
    (problem,) = ask(settings(ON_GPU)).problems
    assert f"a container of {ON_GPU} with `gpus: all` sees none" in problem.what
    assert trouble in problem.what
    assert fix in problem.fix


@pytest.mark.parametrize("known", GPU_ACCESS, ids=lambda known: known["name"])
def test_a_docker_that_gives_no_gpu_is_a_problem_with_the_command_that_fixes_it(
    known: dict[str, Any], daemon: FakeDaemon
) -> None:
    daemon.info.update(known["info"])
    daemon.fault("/start", refuses(500, known["said"]))
    gpus = known.get("gpus", "all")
    (problem,) = ask(settings(ON_GPU, container={"gpus": gpus})).problems
    assert f"a container of {ON_GPU} with `gpus: {gpus}` sees none, because " in problem.what
    assert f"({' '.join(known['said'].split())}); Docker" in problem.what
    assert f"Docker {known['info']['ServerVersion']} lists " in problem.what
    assert known["lists"] in problem.what
    assert [text for text in known["fix"] if text not in problem.fix] == []
    assert daemon.containers == {}, "the container that was created is removed"


def test_a_daemon_that_does_not_say_what_it_offers_leaves_the_fix_for_any_host(
    daemon: FakeDaemon,
) -> None:
    known = GPU_ACCESS[0]
    daemon.fault("/start", refuses(500, known["said"]))
    daemon.fault("/info", refuses(500, "cannot do it"))
    (problem,) = ask(settings(ON_GPU)).problems
    assert problem.what.endswith(f"({known['said']})")
    assert [text for text in known["fix"] if text not in problem.fix] == []


@pytest.mark.parametrize(
    "said",
    [
        'exec: "python3": executable file not found in $PATH: unknown',
        "No such image: nvcr.io/nvidia/vllm:25.09-py3",
    ],
)
def test_an_error_that_is_not_about_the_gpu_is_no_missing_gpu(
    said: str, daemon: FakeDaemon
) -> None:
    daemon.add_image("nvcr.io/nvidia/vllm:25.09-py3")
    daemon.fault("/start", refuses(500, said))
    answer = ask(settings("nvcr.io/nvidia/vllm:25.09-py3"))
    assert not answer.problems
    assert said in answer.unknown


def test_a_container_that_does_not_start_for_a_server_on_the_cpu_is_unknown(
    daemon: FakeDaemon,
) -> None:
    daemon.fault("/start", refuses(500, "OCI runtime create failed"))
    answer = ask(settings())
    assert not answer.problems
    assert "Docker did not start a container of the image (OCI runtime" in answer.unknown


def test_an_image_without_python_is_unknown_by_its_last_words(daemon: FakeDaemon) -> None:
    says(daemon, "ModuleNotFoundError: No module named 'json'\n", code=1)
    assert ask(settings()).unknown == (
        "the image's Python says: ModuleNotFoundError: No module named 'json'"
    )


def test_an_image_that_says_nothing_is_unknown(daemon: FakeDaemon) -> None:
    says(daemon)
    assert ask(settings()).unknown.startswith("the image's Python says:")


def test_where_there_is_nothing_to_ask_no_container_is_made(daemon: FakeDaemon) -> None:
    assert ask(settings(), about_flags=False) == ImageAnswer()
    assert daemon.asked == []


def test_known_flags_are_not_asked_about_again_and_the_gpu_is(daemon: FakeDaemon) -> None:
    questions: list[Any] = []

    def process(container: Container) -> None:
        questions.append(json.loads(container.inspected["Config"]["Cmd"][-1]))
        container.prints(json.dumps({**ACCEPTED, "flags": None}))
        container.exits(0)

    daemon.when_started = process
    assert ask(settings(ON_GPU), about_flags=False) == ImageAnswer(gpus=(GB10,))
    assert questions == [{"gpus": True, "query": GPU_QUERY, "argv": None, "caches": []}]


def test_an_image_that_does_not_answer_in_time_is_unknown_and_its_container_goes(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_check, "PATIENCE_SECONDS", 0)
    assert "did not answer within 0 s" in ask(settings()).unknown
    assert daemon.containers == {}


def test_an_interruption_ends_it_and_nothing_is_left(
    daemon: FakeDaemon, ctrl_c: Callable[[], None]
) -> None:
    daemon.when_started = lambda _container: ctrl_c()
    with pytest.raises(Interrupted, match="nothing was changed"):
        ask_image(settings(), about_flags=True)
    assert daemon.containers == {}


def test_a_daemon_that_goes_away_is_no_answer(daemon: FakeDaemon) -> None:
    daemon.when_started = lambda _container: threading.Thread(target=daemon.goes_away).start()
    with pytest.raises(UNANSWERED):
        ask(settings())


@pytest.mark.parametrize("request_", ["/containers/create", "/attach"])
def test_a_daemon_that_hangs_up_is_no_answer(request_: str, daemon: FakeDaemon) -> None:
    daemon.fault(request_, hangs_up)
    with pytest.raises(UNANSWERED):
        ask(settings())


def test_a_removal_that_fails_does_not_hide_the_answer(daemon: FakeDaemon) -> None:
    answers(daemon, gpus=None)
    daemon.fault("DELETE", refuses(409, "removal of container is already in progress"))
    assert ask(settings()) == ImageAnswer()


def test_an_answer_is_kept_for_the_same_flags_and_image_only() -> None:
    key = flags_key(settings(), "sha256:1")
    assert key == flags_key(settings(health={"timeoutSeconds": 5}), "sha256:1")
    assert key != flags_key(settings(), "sha256:2")
    assert key != flags_key(settings(engine={"max-model-len": 4096}), "sha256:1")
    assert key != flags_key(settings(container={"environment": {"A": "b"}}), "sha256:1")


OF_THE_HOST: dict[str, Any] = {
    "devices": ["/dev/infiniband"],
    "mounts": [{"hostPath": "/opt/templates", "containerPath": "/templates"}],
    "securityOptions": ["apparmor=spark"],
    "capabilities": {"add": ["IPC_LOCK"]},
    "ulimits": {"memlock": -1},
    "ipc": "private",
    "log": {"driver": "journald"},
}


def test_the_check_gets_of_the_host_what_the_server_will_get(daemon: FakeDaemon) -> None:
    answers(daemon, gpus=None)
    asked: list[dict[str, Any]] = []
    answer = daemon.when_started

    def process(container: Container) -> None:
        asked.append(container.inspected["HostConfig"])
        answer(container)

    daemon.when_started = process
    ask(settings(container=OF_THE_HOST))
    (host,) = asked
    assert [device["PathOnHost"] for device in host["Devices"]] == ["/dev/infiniband"]
    (mount,) = host["Mounts"]
    assert (mount["Source"], mount["Target"]) == ("/opt/templates", "/templates")
    assert mount["ReadOnly"], "the check writes nothing"
    assert (host["SecurityOpt"], host["CapAdd"]) == (["apparmor=spark"], ["CAP_IPC_LOCK"])
    assert host["Ulimits"] == [{"Name": "memlock", "Soft": -1, "Hard": -1}]
    assert (host["IpcMode"], host["LogConfig"]["Type"]) == ("private", "journald")


@pytest.mark.parametrize(
    ("said", "key", "what"),
    [
        (
            'invalid mount config for type "bind": bind source path does not exist: /opt/templates',
            "mounts",
            "/opt/templates is not on this host",
        ),
        (
            'error gathering device information while adding custom device "/dev/infiniband": no '
            "such file or directory",
            "devices",
            "/dev/infiniband is not on this host",
        ),
        (
            "OCI runtime create failed: apply apparmor profile: apparmor failed to apply profile",
            "securityOptions",
            "apparmor is refused",
        ),
        (
            "OCI runtime create failed: error setting rlimit type 8: operation not permitted",
            "ulimits",
            "the host does not let the container have its ulimits",
        ),
        (
            'error mounting "mqueue" to rootfs at "/dev/mqueue": operation not permitted: unknown',
            "ipc",
            "rootless Docker cannot give the container `ipc: host`",
        ),
        (
            "failed to initialize logging driver: journald is not enabled on this host",
            "log.driver",
            "Docker cannot use the log driver: journald is not enabled",
        ),
    ],
)
def test_what_docker_refuses_to_give_is_named_by_its_key(
    daemon: FakeDaemon, said: str, key: str, what: str
) -> None:
    daemon.fault(r"POST /containers/create", refuses(400, said))
    (problem,) = ask(settings(ON_GPU, container=OF_THE_HOST)).problems
    assert problem.where == f"vllm-spark:container.{key}"
    assert problem.what.startswith(what)


def test_flags_that_pulumi_hands_over_in_another_order_are_the_same() -> None:
    first = {"max-num-seqs": 4, "speculative-config": {"method": "mtp", "model": "a/b"}}
    second = {"speculative-config": {"model": "a/b", "method": "mtp"}, "max-num-seqs": 4}
    one, other = settings(engine=first), settings(engine=second)
    assert flags_key(one, "id") == flags_key(other, "id")
    assert flags_key(one, "id") != flags_key(settings(engine={**first, "max-num-seqs": 8}), "id")


def test_other_access_to_the_host_is_checked_anew() -> None:
    assert flags_key(settings(container=OF_THE_HOST), "id") != flags_key(settings(), "id")


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("0.10.1.1+381074ae.nv25.09", "0.10.1.1"),
        ("0.31.1rc1.dev7+gabc", "0.31.1"),
        ("0.1.dev1+gabc", None),
        ("unknown", None),
        (None, None),
    ],
)
def test_the_image_tells_its_release(
    told: str | None, version: str | None, daemon: FakeDaemon
) -> None:
    answers(daemon, version=told)
    assert ask(settings(ON_GPU)).version == (Version.parse(version) if version else None)


def test_an_image_whose_name_tells_no_release_is_always_asked(daemon: FakeDaemon) -> None:
    daemon.add_image("mine/vllm-cpu:1")
    answers(daemon, gpus=None, flags=None, version="0.29.0")
    assert ask(settings("mine/vllm-cpu:1"), about_flags=False).version == Version.parse("0.29")


def test_kernels_that_the_image_brings_are_asked_for_and_copied(daemon: FakeDaemon) -> None:
    pair = ["/root/.cache/vllm", "/root/.cache/huggingface/compiled/x/vllm"]
    answers(daemon, prebuilt=[pair])
    questions: list[Any] = []
    answer = daemon.when_started

    def process(container: Container) -> None:
        questions.append((container.inspected["Config"]["Cmd"][-1], container.inspected))
        answer(container)

    daemon.when_started = process
    asked = settings(ON_GPU, container={"environment": {"VLLM_CACHE_ROOT": "/own"}})
    found = ask_image(asked, about_flags=False, image_id="sha256:0123456789abc")
    assert found.prebuilt == (tuple(pair),)
    places = {cache[0]: cache[1:] for cache in json.loads(questions[0][0])["caches"]}
    assert "VLLM_CACHE_ROOT" not in places, "the config has a place of its own for it"
    name = "vllm-vllm-openai-v0.32.0-0123456789ab"
    assert places["FLASHINFER_WORKSPACE_BASE"] == [
        "~", ".cache/flashinfer", f"/root/.cache/huggingface/compiled/{name}/flashinfer",
    ]  # fmt: skip
    keep_prebuilt(asked, found)
    copied, container = questions[1]
    assert json.loads(copied) == [pair]
    assert container["HostConfig"]["Binds"] == ["weights:/root/.cache/huggingface:rw"]
