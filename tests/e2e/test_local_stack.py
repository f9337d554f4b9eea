"""The life of stack `local` with a real vLLM, in order: up, a request, unchanged, changed, down."""

from __future__ import annotations

import docker
import pytest
import requests
from openai import OpenAI

from tests.e2e.project import Project

pytestmark = pytest.mark.e2e

ENGINE = {"max-model-len": 2048, "max-num-seqs": 4, "enforce-eager": True}
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def client(project: Project) -> OpenAI:
    """The client of the guide, on a stack that is up."""
    project.configure(engine=ENGINE)
    up = project.up()
    assert up.code == 0, up.output
    return OpenAI(base_url=project.outputs()["url"], api_key="not-needed")


def test_up_ends_when_a_chat_is_answered(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "What is the capital of France? Answer with one word."}
        ],
        max_tokens=20,
        temperature=0,
    )
    assert "Paris" in (answer.choices[0].message.content or "")


def test_an_answer_can_be_streamed(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Count from one to five."}],
        max_tokens=20,
        stream=True,
    )
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 1


def test_the_outputs_say_what_was_deployed(client: OpenAI, project: Project) -> None:
    outputs = project.outputs()
    assert outputs["url"] == f"http://127.0.0.1:{project.port}/v1"
    assert outputs["model"] == MODEL
    assert outputs["containerName"] == project.container
    assert outputs["readySeconds"] > 0


def test_the_planned_kv_cache_is_the_engines_to_the_token(client: OpenAI, project: Project) -> None:
    planned = project.outputs()["memoryPlan"]["kvTokens"]
    metrics = requests.get(f"http://127.0.0.1:{project.port}/metrics", timeout=60).text
    assert f'kv_cache_size_tokens="{planned}"' in metrics
    actual = project.outputs()["memoryActual"]
    assert actual["kvTokens"] == planned
    assert actual["differencePercent"]["kvTokens"] == 0


def test_nothing_changes_right_after_an_up(client: OpenAI, project: Project) -> None:
    preview = project.pulumi("preview", "--expect-no-changes", "--diff")
    assert preview.code == 0, preview.output


def test_a_refresh_finds_everything_as_it_was_left(client: OpenAI, project: Project) -> None:
    refresh = project.pulumi("refresh", "--yes", "--expect-no-changes", "--diff")
    assert refresh.code == 0, refresh.output


def test_a_changed_flag_is_named_and_replaces_the_container_only(
    client: OpenAI, project: Project
) -> None:
    project.configure(engine={**ENGINE, "max-num-seqs": 8})
    preview = project.pulumi("preview", "--diff")
    assert preview.code == 0, preview.output
    assert '"--max-num-seqs=4" => "--max-num-seqs=8"' in preview.output
    assert preview.output.count("max-num-seqs=8") == 1, "a change appears once"
    replaced = [line for line in preview.output.splitlines() if ": (replace)" in line]
    assert len(replaced) == 1, preview.output
    assert "docker:index/container:Container" in replaced[0]


def test_the_change_comes_up_and_answers(client: OpenAI, project: Project) -> None:
    up = project.up()
    assert up.code == 0, up.output
    assert client.models.list().data[0].id == MODEL


def test_destroy_leaves_nothing_but_the_cache(
    client: OpenAI, project: Project, docker_client: docker.DockerClient
) -> None:
    image = project.outputs()["image"]
    down = project.pulumi("destroy", "--yes")
    assert down.code == 0, down.output
    assert not docker_client.api.containers(all=True, filters={"name": project.container})
    assert docker_client.volumes.get("vllm-spark-cache").name == "vllm-spark-cache"
    assert docker_client.images.get(image)
