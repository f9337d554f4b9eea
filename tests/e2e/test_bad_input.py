"""Mistakes of users: each gives a readable error, and once it is fixed the stack comes up."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.project import Project

pytestmark = pytest.mark.e2e


@pytest.fixture
def listener(project: Project) -> Iterator[None]:
    """A process outside of Docker holds the stack's port."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", project.port))
        server.listen()
        yield


def test_mistakes_in_the_config_are_listed_before_anything_is_created(project: Project) -> None:
    project.configure(endpoint={"port": 70000}, cahce={})
    preview = project.pulumi("preview")
    assert preview.code != 0
    assert "vllm-spark:endpoint.port: 70000" in preview.output
    assert "write cache" in preview.output
    assert "Traceback" not in preview.output


def test_an_image_that_does_not_exist_is_named_with_a_fix(project: Project) -> None:
    project.configure(image={"name": "127.0.0.1:1/nobody/nothing:1"}, host={"memoryGiB": 64})
    up = project.up()
    assert up.code != 0
    assert "127.0.0.1:1/nobody/nothing:1" in up.output
    assert "see vllm-spark:image.name for a typo" in up.output
    assert "Traceback" not in up.output


def test_a_model_that_cannot_be_fetched_is_said_with_cause_and_fix(
    project: Project,
) -> None:
    project.configure(model={"id": "nobody/no-such-model"})
    up = project.up()
    assert up.code != 0
    assert "cause: nobody/no-such-model is not complete in the cache" in up.output
    assert "fix:" in up.output
    assert "container:Container" not in project.pulumi("stack", "export").output


def test_a_port_in_use_is_found_before_a_container_is_created(
    project: Project, listener: None, fake_image: str
) -> None:
    project.configure_fake({})
    up = project.up()
    assert up.code != 0
    assert f"1. port {project.port} on 127.0.0.1: is held by another process" in up.output
    assert "vllm-spark:endpoint.port" in up.output
    assert "Traceback" not in up.output
    assert "container:Container" not in project.pulumi("stack", "export").output


def test_no_docker_engine_is_said_in_one_sentence(project: Project) -> None:
    project.configure()
    project.environment["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    try:
        # A refresh comes before the program, and asks the plugin; `make` asks Docker before both.
        up = project.pulumi("up", "--yes", "--skip-preview")
    finally:
        del project.environment["DOCKER_HOST"]
    assert up.code != 0
    assert "no Docker daemon answers at unix:///nowhere/docker.sock (DOCKER_HOST)" in up.output
    assert "fix: start it there" in up.output
    assert "Traceback" not in up.output


def test_before_a_first_start_flags_are_not_asked_about_and_the_start_itself_refuses_them(
    project: Project,
) -> None:
    project.configure(engine={"max-model-len": 2048, "bogus-flag": 1})
    up = project.up()
    assert up.code != 0
    assert "asking the image's own vLLM about the flags" not in up.output
    assert "this vLLM 0.32.0 does not know: --bogus-flag" in up.output
    assert "does not serve" in up.output
    assert "Traceback" not in up.output


def test_the_fixed_stack_comes_up(project: Project) -> None:
    project.configure()
    up = project.up()
    assert up.code == 0, up.output
    assert "flags not checked" not in up.output


def test_a_flag_that_the_images_own_parser_refuses_leaves_the_server_alone(
    project: Project,
) -> None:
    project.configure(engine={"max-model-len": 2048, "bogus-flag": 1})
    up = project.up()
    assert up.code != 0
    said = "the image's own vLLM refuses it: this vLLM 0.32.0 does not know: --bogus-flag"
    assert said in up.output
    assert f"{project.container}, which runs, is left untouched" in up.output
    assert "Traceback" not in up.output
    assert project.answers()
