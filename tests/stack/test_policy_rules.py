"""The rules of the policy pack read what the program really declares."""

from __future__ import annotations

from typing import Any

from tests.stack.conftest import Deploy
from tests.stack.test_program import CONTAINER
from vllm_spark.policy.declared import DeclaredContainer
from vllm_spark.policy.rules import RULES


def broken(deploy: Deploy, stack: str, **keys: Any) -> set[str]:
    """The rules that the container of a stack breaks."""
    deployment = deploy(stack, **keys)
    told = deployment.inputs("spark:vllm:Container")
    container = DeclaredContainer.of(deployment.inputs(CONTAINER), told.get("variables", {}))
    return {name for name, rule in RULES.items() if rule.check(container, rule.options)}


def test_stacks_break_only_the_rules_that_they_are_excepted_from(deploy: Deploy) -> None:
    assert broken(deploy, "local") == set()
    assert broken(deploy, "spark") == {"remote-code"}
    assert broken(deploy, "nemotron3-nano") == {"remote-code"}


def test_every_setting_that_a_rule_forbids_is_seen(deploy: Deploy) -> None:
    recipe = {
        "network": "host",
        "securityOptions": ["seccomp=unconfined"],
        "capabilities": {"add": ["SYS_ADMIN"]},
        "mounts": [{"hostPath": "/var/run/docker.sock", "containerPath": "/docker.sock"}],
        "environment": {"DB_PASSWORD": "correct horse"},
    }
    found = broken(
        deploy,
        "spark",
        container=recipe,
        image={"name": "vllm/vllm-openai:nightly", "vllmVersion": "0.28.0"},
        engine={"trust-remote-code": True, "max-model-len": 8192, "gpu-memory-utilization": 0.91},
        host={"allowMisfit": True},
        endpoint={"bind": "0.0.0.0", "open": True},
    )
    assert found == RULES.keys()


def test_on_the_hosts_network_a_server_may_still_listen_on_loopback(deploy: Deploy) -> None:
    container = {"network": "host"}
    assert broken(deploy, "local", container={**container, "gpus": "none"}) == {"host-network"}
