"""Follows docs/guide.md exactly: its shell and Python lines on stack `local`, and previews.

These tests run each block of the guide that is marked `bash` or `python` unchanged, from top to
bottom, with a real vLLM that is started once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import docker
import pytest

from tests.e2e.checkout import Checkout
from tests.e2e.project import FAKE_IMAGE, ROOT

pytestmark = pytest.mark.e2e

GUIDE = (ROOT / "docs" / "guide.md").read_text()
BLOCKS = [
    (match[1], match[2])
    for match in re.finditer(r"^```(bash|python)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
]
STACKS = sorted(path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, guide_image: None) -> Iterator[Checkout]:
    """A checkout whose stack `local` has its own port and container name."""
    checkout = Checkout(tmp_path_factory.mktemp("guide"))
    container = {
        "gpus": "none",
        "name": f"vllm-guide-{checkout.port}",
        "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"},
    }
    checkout.change("local", endpoint={"port": checkout.port}, container=container)
    yield checkout
    downs = [checkout.run(f"make down STACK={stack}") for stack in ("local", "spark")]
    assert [down.code for down in downs] == [0, 0], "\n".join(down.output for down in downs)


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_can_be_previewed_where_no_docker_engine_answers(
    checkout: Checkout, stack: str
) -> None:
    preview = checkout.run(f"DOCKER_HOST=unix:///nowhere/docker.sock make preview STACK={stack}")
    assert preview.code == 0, preview.output
    assert "fits   " in preview.output
    assert "to create" in preview.output


def test_the_guide_works_line_by_line(checkout: Checkout) -> None:
    assert BLOCKS[0] == ("bash", "make up\n")
    assert BLOCKS[-1] == ("bash", "make down\n"), "no block is left out"
    for language, block in BLOCKS:
        script = f".venv/bin/python - <<'END'\n{block}END" if language == "python" else block
        ran = checkout.run(script)
        assert ran.code == 0, f"{block}\n{ran.output}"
        assert "Traceback" not in ran.output


def test_a_restart_ends_when_the_same_container_has_answered_again(
    checkout: Checkout, fake_image: str, docker_client: docker.DockerClient
) -> None:
    checkout.change("local", image=FAKE_IMAGE)
    up = checkout.run("make up")
    assert up.code == 0, up.output
    name = f"vllm-guide-{checkout.port}"
    before = docker_client.api.inspect_container(name)
    restart = checkout.run("make restart")
    assert restart.code == 0, restart.output
    after = docker_client.api.inspect_container(name)
    assert after["Id"] == before["Id"], "started again, not made again"
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]
    assert "answered after" in restart.output


def test_a_deployed_stack_previews_as_unchanged_where_no_docker_engine_answers(
    checkout: Checkout, fake_image: str
) -> None:
    checkout.change("local", image=FAKE_IMAGE)
    up = checkout.run("make up")
    assert up.code == 0, up.output
    for docker_host in ("unix:///nowhere/docker.sock", ""):
        preview = checkout.run(f"DOCKER_HOST={docker_host} make preview")
        assert preview.code == 0, preview.output
        assert re.search(r"^Resources:\n +\d+ unchanged$", preview.output, re.M), preview.output


def test_no_command_has_written_a_salt_into_a_stack_file(checkout: Checkout) -> None:
    for file in checkout.directory.glob("Pulumi.*.yaml"):
        assert "encryptionsalt" not in file.read_text(), file.name


def test_a_changed_flag_reads_in_the_preview_as_the_guide_shows_it(
    checkout: Checkout,
) -> None:
    """The stack is up but not started, so it needs no GPU."""
    name = f"vllm-spark-{checkout.port}"
    checkout.change("spark", state="stopped", container={"name": name})
    up = checkout.run("make up STACK=spark")
    assert up.code == 0, up.output
    commands, lines = shown("make preview STACK=spark")
    preview = checkout.run("\n".join(['eval "$(make -s env)"', *commands]))
    assert preview.code == 0, preview.output
    printed = iter(line.strip() for line in preview.output.splitlines())
    for line in lines:
        assert line in printed, f"{line!r} is not in, or not in this order:\n{preview.output}"


def shown(command: str) -> tuple[list[str], list[str]]:
    """The commands of the guide's one block with this command, and the output that it shows.

    `...` in it stands for lines left out.
    """
    blocks = re.findall(r"^```console\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if f"$ {command}\n" in block and "=>" in block)
    lines = [line.strip() for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return commands, [line for line in lines if not line.startswith("$ ") and line != "..."]
