"""The pid file of a dockerd that was killed: the next one must start."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from offline.bootstrap.docker_daemon import forget_dead_dockerd


@pytest.fixture
def dockerd(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this name, a child that nobody waits for."""
    program = tmp_path / "dockerd"
    program.write_text("#!/bin/sh\nread forever\n")
    program.chmod(0o755)
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "docker.pid"


def test_a_zombie_has_no_say(dockerd: subprocess.Popen[bytes], pid_file: Path) -> None:
    pid_file.write_text(f"{dockerd.pid}\n")
    dockerd.kill()
    os.waitid(os.P_PID, dockerd.pid, os.WEXITED | os.WNOWAIT)
    forget_dead_dockerd(pid_file)
    assert not pid_file.exists()


def test_nor_has_another_program_that_got_the_number(pid_file: Path) -> None:
    pid_file.write_text(str(os.getpid()))
    forget_dead_dockerd(pid_file)
    assert not pid_file.exists()


def test_a_dockerd_that_lives_keeps_its_file(
    dockerd: subprocess.Popen[bytes], pid_file: Path
) -> None:
    pid_file.write_text(str(dockerd.pid))
    forget_dead_dockerd(pid_file)
    assert pid_file.exists()


@pytest.mark.parametrize("content", ["", "no number", "4194305"])
def test_what_names_no_process_is_left_to_dockerd(pid_file: Path, content: str) -> None:
    pid_file.write_text(content)
    forget_dead_dockerd(pid_file)
    assert pid_file.exists()


def test_and_so_is_a_file_that_is_not_there(pid_file: Path) -> None:
    forget_dead_dockerd(pid_file)
