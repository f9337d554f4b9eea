"""What the program declares for a stack's config, under Pulumi's mocks."""

from __future__ import annotations

import json
import signal
from typing import Any

import pulumi
import pytest
from pulumi.runtime.rpc import is_rpc_secret, unwrap_rpc_secret

from tests.stack.conftest import Deploy
from vllm_spark.deployment.records import RECORD
from vllm_spark.errors import DockerUnavailable

CONTAINER = "docker:index/container:Container"
IMAGE = "docker:index/remoteImage:RemoteImage"
VOLUME = "docker:index/volume:Volume"
WEIGHTS = "pulumi-python:dynamic/spark:Fetch"
CHECK = "command:local:Command"
GATE = "pulumi-python:dynamic/spark:HealthGate"


def test_stack_spark_declares_the_guides_container(deploy: Deploy) -> None:
    container = deploy("spark").inputs(CONTAINER)
    assert container["image"] == "nvcr.io/nvidia/vllm:25.09-py3"
    assert container["gpus"] == "all"
    assert container["ipcMode"] == "host"
    assert container["restart"] == "unless-stopped"
    assert container["volumes"] == [
        {"hostPath": "/opt/hf", "containerPath": "/root/.cache/huggingface"}
    ]
    limits = {limit["name"]: (limit["soft"], limit["hard"]) for limit in container["ulimits"]}
    assert limits == {"memlock": (-1, -1), "stack": (67108864, 67108864)}
    command = container["command"]
    assert command[:3] == ["vllm", "serve", "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"]
    assert "--max-num-seqs=64" in command
    assert "--enable-prefix-caching" in command


def test_gpus_by_number_are_requested_by_their_ids(deploy: Deploy) -> None:
    container = deploy("spark", container={"gpus": [0, 1]}).inputs(CONTAINER)
    request = {"driver": "nvidia", "deviceIds": ["0", "1"], "capabilities": ["gpu"]}
    assert container["deviceRequests"] == [request]
    assert "gpus" not in container


@pytest.mark.parametrize(
    ("gpus", "ids"),
    [("all", ["nvidia.com/gpu=all"]), ([0, 1], ["nvidia.com/gpu=0", "nvidia.com/gpu=1"])],
)
def test_gpus_by_cdi_are_requested_by_the_names_of_their_specification(
    gpus: str | list[int], ids: list[str], deploy: Deploy
) -> None:
    container = deploy("spark", container={"gpus": gpus, "gpuAccess": "cdi"}).inputs(CONTAINER)
    assert container["deviceRequests"] == [{"driver": "cdi", "deviceIds": ids}]
    assert "gpus" not in container


def test_stack_local_runs_on_the_cpu_with_a_volume(deploy: Deploy) -> None:
    local = deploy("local")
    container = local.inputs(CONTAINER)
    assert "gpus" not in container
    assert container["command"][0] == "HuggingFaceTB/SmolLM2-135M-Instruct", (
        "the CPU image starts with `vllm serve`, so the command begins with the model"
    )
    assert local.inputs(VOLUME)["name"] == "vllm-spark-cache"


def test_a_host_folder_needs_no_volume(deploy: Deploy) -> None:
    assert VOLUME not in deploy("spark").types()


def test_both_stacks_declare_the_same_kinds_of_resources_but_for_the_cache(deploy: Deploy) -> None:
    assert deploy("local").types() - {VOLUME} == deploy("spark").types()


def test_the_server_listens_on_this_host_only_unless_told_otherwise(deploy: Deploy) -> None:
    (port,) = deploy("spark").inputs(CONTAINER)["ports"]
    assert (port["ip"], port["external"]) == ("127.0.0.1", 8000)


def test_a_log_is_rotated_and_nothing_of_the_host_is_given_unless_told(deploy: Deploy) -> None:
    container = deploy("spark").inputs(CONTAINER)
    assert container["logDriver"] == "json-file"
    assert container["logOpts"] == {"max-size": "100m", "max-file": "3"}
    assert container["networkMode"] == "bridge"
    given = ("devices", "mounts", "securityOpts", "capabilities", "shmSize", "privileged")
    assert not [key for key in given if container.get(key)]


def test_what_a_recipe_needs_of_the_host_is_declared_and_shown(deploy: Deploy) -> None:
    asked = {
        "ipc": "private",
        "shmSize": "16g",
        "network": "host",
        "securityOptions": ["seccomp=unconfined"],
        "capabilities": {"add": ["IPC_LOCK"]},
        "devices": ["/dev/infiniband"],
        "mounts": [{"hostPath": "/opt/b12x", "containerPath": "/b12x", "readOnly": True}],
        "log": {"driver": "local"},
    }
    spark = deploy("spark", container=asked)
    container = spark.inputs(CONTAINER)
    assert container["shmSize"] == 16384
    assert container["networkMode"] == "host"
    assert not container["ports"], "vLLM listens on the endpoint itself"
    assert container["securityOpts"] == ["seccomp=unconfined"]
    assert container["capabilities"]["adds"] == ["CAP_IPC_LOCK"]
    assert container["devices"] == [
        {"hostPath": "/dev/infiniband", "containerPath": "/dev/infiniband", "permissions": "rwm"}
    ]
    assert container["mounts"] == [
        {"type": "bind", "source": "/opt/b12x", "target": "/b12x", "readOnly": True}
    ]
    assert container["logDriver"] == "local"
    assert spark.outputs["settings"].container.chosen == {
        **asked,
        "capabilities": {"add": ["CAP_IPC_LOCK"]},
    }
    warnings = "\n".join(map(str, spark.outputs["server"].review.warnings))
    assert "device /dev/infiniband" in warnings


def test_the_gate_asks_for_the_name_that_clients_use(deploy: Deploy) -> None:
    model = {"id": "Qwen/Qwen3-32B-FP8", "servedName": "qwen"}
    spark = deploy("spark", model=model, endpoint={"port": 9000})
    gate = spark.inputs(GATE)[RECORD]
    assert gate["model"] == "qwen"
    assert gate["url"] == "http://127.0.0.1:9000/v1"
    assert gate["containerId"] == "vllm-container-id", "the verdict belongs to one container"


def test_a_stopped_stack_creates_the_container_and_waits_for_nothing(deploy: Deploy) -> None:
    stopped = deploy("spark", state="stopped")
    container = stopped.inputs(CONTAINER)
    assert (container["start"], container["mustRun"]) == (False, False)
    assert not {GATE, WEIGHTS} & stopped.types()


def test_secrets_are_in_the_environment_and_in_no_argument(deploy: Deploy) -> None:
    secrets = {"apiKey": "key-of-ours", "huggingFaceToken": "hf_token"}
    spark = deploy("spark", secrets=secrets)
    container = spark.inputs(CONTAINER)
    weights = spark.inputs(WEIGHTS, "vllm-weights")
    for sealed, value in (
        (container["envs"], "VLLM_API_KEY=key-of-ours"),
        (weights["secrets"], "hf_token"),
    ):
        assert is_rpc_secret(sealed), "Pulumi keeps it encrypted in the state"
        assert value in str(unwrap_rpc_secret(sealed))
    for text in (str(container["command"]), str({**weights, "secrets": None})):
        assert "key-of-ours" not in text
        assert "hf_token" not in text


def test_mirrors_and_proxies_reach_the_fetch_and_other_variables_do_not(deploy: Deploy) -> None:
    told = {"HF_ENDPOINT": "http://mirror:8080", "https_proxy": "p:1", "VLLM_LOGGING_LEVEL": "INFO"}
    fetch = deploy("local", container={"environment": told}).inputs(WEIGHTS, "vllm-weights")
    assert fetch[RECORD]["environment"] == {
        "HF_ENDPOINT": "http://mirror:8080",
        "https_proxy": "p:1",
    }, "a changed level of logs is no reason to fetch again"


def test_a_new_release_and_another_image_fetch_nothing_again_and_another_place_does(
    deploy: Deploy,
) -> None:
    def what(**keys: Any) -> str:
        return str(deploy("local", **keys).inputs(WEIGHTS, "vllm-weights")["what"])

    assert what() == what(image="vllm/vllm-openai-cpu:v0.31.0")
    assert what() != what(cache={"volume": "another"})
    assert what() != what(model={"id": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "v2"})


def test_a_server_is_labelled_with_the_commit_that_it_serves(deploy: Deploy) -> None:
    labels = deploy("local").inputs(CONTAINER)["labels"]
    assert {"label": "vllm-spark.commit", "value": "0123abc"} in labels


def test_parts_that_a_flag_takes_from_elsewhere_are_not_looked_for(deploy: Deploy) -> None:
    engine = {"max-model-len": 2048, "tokenizer": "other/tokenizer", "load-format": "dummy"}
    check = deploy("local", engine=engine).inputs(CHECK, "vllm-weights-check")["create"]
    assert check.endswith(" --without weights --without tokenizer")


def test_the_outputs_say_where_the_model_is_and_how_to_ask_it(deploy: Deploy) -> None:
    server = deploy("local").outputs["server"]
    assert server.url == "http://127.0.0.1:8000/v1"
    assert server.model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert server.container_name == "vllm-local"
    assert server.curl.startswith("curl http://127.0.0.1:8000/v1/chat/completions ")


def test_the_curl_line_names_the_api_key_and_does_not_show_it(deploy: Deploy) -> None:
    curl = deploy("local", secrets={"apiKey": "key-of-ours"}).outputs["server"].curl
    assert "$VLLM_API_KEY" in curl
    assert "key-of-ours" not in curl


def test_the_gates_provider_is_stored_by_its_name_so_that_code_edits_change_no_stack(
    deploy: Deploy,
) -> None:
    assert len(deploy("local").inputs(GATE)["__provider"]) < 200


def test_every_mistake_in_the_config_is_said_at_once_and_declares_nothing(deploy: Deploy) -> None:
    with pytest.raises(pulumi.RunError) as failed:
        deploy("local", endpoint={"port": 70000}, enginee={}, apiKey="in plain text")
    text = str(failed.value)
    assert "vllm-spark:endpoint.port: 70000" in text
    assert "vllm-spark:enginee: is not a key" in text
    assert "write engine" in text
    assert "pulumi config set --secret vllm-spark:apiKey" in text
    assert "in plain text'" not in text, "the value of a secret is never shown"


def test_a_server_that_can_drain_is_told_to_and_given_the_time(deploy: Deploy) -> None:
    container = deploy("local").inputs(CONTAINER)
    command = container["command"]
    assert "--shutdown-timeout=30" in command
    assert (container["destroyGraceSeconds"], container["stopTimeout"]) == (40, 40)


def test_a_server_that_cannot_drain_is_not_waited_for(deploy: Deploy) -> None:
    container = deploy("spark").inputs(CONTAINER)
    assert "--shutdown-timeout" not in str(container["command"]), "vLLM 0.10.1 does not know it"
    assert (container["destroyGraceSeconds"], container["stopTimeout"]) == (10, 10)


def test_a_drain_that_the_stack_sets_is_the_one_that_is_waited_for(deploy: Deploy) -> None:
    engine = {"max-model-len": 2048, "shutdown-timeout": 120}
    container = deploy("local", engine=engine).inputs(CONTAINER)
    assert str(container["command"]).count("--shutdown-timeout") == 1
    assert container["destroyGraceSeconds"] == 130


def test_compiled_kernels_are_kept_by_image_id_so_that_a_moved_tag_takes_none(
    deploy: Deploy,
) -> None:
    envs = deploy("spark").inputs(CONTAINER)["envs"]
    kept = "/root/.cache/huggingface/compiled/nvcr.io-nvidia-vllm-25.09-py3-0123456789ab"
    assert f"VLLM_CACHE_ROOT={kept}/vllm" in envs


def test_a_cache_of_kernels_that_the_stack_names_itself_is_left_alone(deploy: Deploy) -> None:
    own = {"environment": {"VLLM_CACHE_ROOT": "/own"}}
    envs = deploy("spark", container=own).inputs(CONTAINER)["envs"]
    assert [entry for entry in envs if "VLLM_CACHE_ROOT" in entry] == ["VLLM_CACHE_ROOT=/own"]


def test_a_registry_password_logs_in_to_the_images_registry_and_stays_secret(
    deploy: Deploy,
) -> None:
    spark = deploy("spark", secrets={"registryPassword": "nvapi-of-ours"})
    sealed = spark.inputs("pulumi:providers:docker")["registryAuth"]
    assert is_rpc_secret(sealed)
    (login,) = json.loads(unwrap_rpc_secret(sealed))
    assert login == {"address": "nvcr.io", "username": "$oauthtoken", "password": "nvapi-of-ours"}
    assert "registryAuth" not in deploy("spark").inputs("pulumi:providers:docker")


def test_the_address_of_this_machines_daemon_is_not_written_into_the_state(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    assert "host" not in deploy("spark").inputs("pulumi:providers:docker")


def test_an_update_without_docker_ends_before_anything_is_declared(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise DockerUnavailable("no Docker daemon answers at x: why\n  fix: do that")

    monkeypatch.setattr("components.vllm_server.connect", down)
    with pytest.raises(pulumi.RunError, match=r"no Docker .* x: why\n  fix: do that"):
        deploy("spark")


def test_repositories_that_flags_name_are_fetched_beforehand(deploy: Deploy) -> None:
    engine = {"tokenizer": "other/tokenizer", "speculative-config": {"model": "a/draft"}}
    local = deploy("local", engine=engine)
    draft = local.inputs(WEIGHTS, "vllm-weights-a-draft")[RECORD]["repository"]
    assert (draft["id"], draft["weights"]) == ("a/draft", True)
    tokenizer = local.inputs(WEIGHTS, "vllm-weights-other-tokenizer")[RECORD]["repository"]
    assert (tokenizer["id"], tokenizer["weights"]) == ("other/tokenizer", False)


def test_a_failed_update_ends_the_program_at_once(deploy: Deploy) -> None:
    assert deploy("local").on_interrupt is signal.SIG_DFL


@pytest.mark.parametrize(
    "key",
    ["", "   ", "key\nof two lines", "key\r", " key"],
    ids=["empty", "blank", "lines", "CR", "space"],
)
def test_an_api_key_that_would_open_the_server_or_that_no_client_can_send_is_refused(
    deploy: Deploy, key: str
) -> None:
    with pytest.raises(pulumi.RunError, match=r"1\. vllm-spark:apiKey: (is|holds|begins)"):
        deploy("spark", secrets={"apiKey": key})


def test_variables_that_are_secret_reach_the_container_and_nothing_else(deploy: Deploy) -> None:
    secrets = {"secretEnvironment": json.dumps({"AWS_SECRET_ACCESS_KEY": "hunter2"})}
    local = deploy("local", secrets=secrets)
    for resource in local.resources:
        inputs = dict(resource.inputs)
        envs = inputs.pop("envs", None)
        assert "hunter2" not in str(inputs), resource.name
        if envs is not None:
            assert is_rpc_secret(envs)
            assert "AWS_SECRET_ACCESS_KEY=hunter2" in unwrap_rpc_secret(envs)


@pytest.mark.parametrize("key", ["container", "engine", "cache"])
def test_a_secret_in_any_other_key_is_refused_without_showing_it(deploy: Deploy, key: str) -> None:
    value = json.dumps({"environment": {"AWS_SECRET_ACCESS_KEY": "hunter2"}})
    with pytest.raises(pulumi.RunError) as failed:
        deploy("local", secrets={key: value})
    text = str(failed.value)
    assert f"vllm-spark:{key}: holds a secret value" in text
    assert "--secret --path vllm-spark:secretEnvironment.NAME" in text
    assert "hunter2" not in text


def test_a_variable_that_is_secret_and_in_plain_text_too_is_refused(deploy: Deploy) -> None:
    secrets = {"secretEnvironment": json.dumps({"TWICE": "hunter2"})}
    with pytest.raises(pulumi.RunError, match=r"TWICE: set in container\.environment, and as a"):
        deploy("local", secrets=secrets, container={"gpus": "none", "environment": {"TWICE": "1"}})


def test_a_variable_with_a_key_of_its_own_is_refused_among_the_secret_ones(deploy: Deploy) -> None:
    secrets = {"secretEnvironment": json.dumps({"VLLM_API_KEY": "hunter2"})}
    with pytest.raises(pulumi.RunError, match=r"secretEnvironment\.VLLM_API_KEY"):
        deploy("local", secrets=secrets)


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.168.1.5", "::", "::ffff:10.0.0.1"])
def test_a_server_that_other_machines_reach_needs_a_key_or_has_to_be_open(
    deploy: Deploy, bind: str
) -> None:
    endpoint = {"bind": bind, "port": 8000}
    with pytest.raises(pulumi.RunError) as failed:
        deploy("local", endpoint=endpoint)
    assert "pulumi config set --secret vllm-spark:apiKey" in str(failed.value)
    assert "vllm-spark:endpoint.open true" in str(failed.value)
    assert deploy("local", endpoint={**endpoint, "open": True}).outputs["server"]
    assert deploy("local", endpoint=endpoint, secrets={"apiKey": "key-of-ours"}).outputs["server"]


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
def test_a_server_of_this_host_alone_needs_no_key(deploy: Deploy, bind: str) -> None:
    assert deploy("local", endpoint={"bind": bind}).outputs["server"]


def test_a_policy_pack_learns_which_variables_are_secret_and_what_is_excepted(
    deploy: Deploy,
) -> None:
    exception = {"rule": "remote-code", "reason": "as the guide has it"}
    secrets = {"apiKey": "sk-secret", "secretEnvironment": '{"DB_PASSWORD": "secret"}'}
    told = deploy("spark", policy={"exceptions": [exception]}, secrets=secrets).inputs(
        "spark:vllm:Container"
    )
    assert told == {
        "variables": {"DB_PASSWORD": True, "VLLM_API_KEY": True},
        "exceptions": [exception],
    }


def test_without_exceptions_and_secrets_the_container_tells_a_policy_pack_nothing(
    deploy: Deploy,
) -> None:
    assert deploy("local").inputs("spark:vllm:Container") == {}
