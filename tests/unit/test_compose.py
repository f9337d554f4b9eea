"""Which docker compose the tests take: an installed one, if it is the one that people use today."""

from __future__ import annotations

from pathlib import Path

import pytest

from offline.bootstrap import compose
from vllm_spark.errors import SetupError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it, and nothing built."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compose, "OURS", tmp_path / "built" / "docker-compose")
    return tmp_path


def install(file: Path, version: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\necho {version}\n")
    file.chmod(0o755)


@pytest.mark.parametrize("command", [["docker", "compose"], ["docker-compose"]])
def test_an_installed_one_is_taken(path: Path, command: list[str]) -> None:
    install(path / command[0], "v2.40.3-desktop.1")
    assert compose.ensure_compose() == command


def test_one_that_was_built_is_not_built_again(path: Path) -> None:
    install(compose.OURS, "2.40.3")
    assert compose.ensure_compose() == [str(compose.OURS)]


def test_docker_compose_1_is_not_taken_and_without_go_the_fix_is_said(path: Path) -> None:
    install(path / "docker-compose", "1.29.2")
    with pytest.raises(SetupError, match=r"fix: install docker compose .*, or install Go"):
        compose.ensure_compose()
