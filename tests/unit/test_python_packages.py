"""`make` on a machine as it comes: no ensurepip, an old Python, no network, a full disk."""

from __future__ import annotations

import ast
import errno
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import Programs
from vllm_spark.setup import python_packages

SCRIPT = Path(python_packages.__file__)
VENV_PACKAGE = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without an environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").touch()
    return tmp_path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python as Debian and Ubuntu install it: without ensurepip. And no other tool."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    monkeypatch.setenv("PATH", "/nowhere")


def install() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "requirements.txt", ".venv/ready"],
        capture_output=True,
        text=True,
        check=False,
    )


def environment(folder: Path, pip: str) -> None:
    """An environment whose Python is a shell script; its `pip install` does this."""
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\n[ "$3" = --version ] && exit\n{pip}\n')
    python.chmod(0o755)


def test_an_environment_is_made_with_pip_and_used_again(folder: Path) -> None:
    assert install().returncode == 0
    assert (folder / ".venv" / "ready").exists()
    made = (folder / ".venv" / "pyvenv.cfg").stat().st_mtime_ns
    assert install().returncode == 0
    assert (folder / ".venv" / "pyvenv.cfg").stat().st_mtime_ns == made


def test_one_without_pip_is_completed(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], check=True)
    assert install().returncode == 0
    assert (folder / ".venv" / "bin" / "pip").exists()


def test_one_of_a_python_that_is_gone_is_made_anew(folder: Path) -> None:
    packages = folder / ".venv" / "lib" / "package"
    packages.mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir()
    (folder / ".venv" / "bin" / "python").symlink_to("/nowhere/python3.10")
    assert install().returncode == 0
    assert not packages.exists()
    subprocess.run([folder / ".venv" / "bin" / "python", "-m", "pip", "--version"], check=True)


def test_a_python_without_ensurepip_is_said_with_the_package_to_install(bare: None) -> None:
    ran = install()
    assert ran.returncode == 1
    assert "its module ensurepip is not installed" in ran.stderr
    assert f"fix: `sudo apt install {VENV_PACKAGE}` (or install uv)" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("tool", "call"),
    [
        ("uv", f"venv --quiet --seed --clear --python {sys.executable} .venv"),
        ("virtualenv", f"--quiet --clear --python {sys.executable} .venv"),
    ],
)
def test_without_ensurepip_uv_and_virtualenv_do(
    tool: str, call: str, bare: None, folder: Path, programs: Programs
) -> None:
    environment(folder / "made", "exit 0")
    programs.add(tool, f"PATH=/bin:/usr/bin; cp -r {folder}/made/.venv .venv")
    ran = install()
    assert ran.returncode == 0, ran.stderr
    assert programs.calls(tool) == [call]


@pytest.mark.parametrize(
    ("printed", "fix"),
    [
        ("OSError: [Errno 28] No space left on device", "free some disk (`df -h . /tmp`"),
        ("OSError: [Errno 122] Disk quota exceeded", "free some disk"),
        ("[Errno 13] Permission denied: '/x/.venv/lib'", "`sudo chown -R $USER .`"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProxyError('Cannot "
            "connect to proxy.', OSError('Tunnel connection failed: 407'))'\n"
            "ERROR: No matching distribution found for annotated-types==0.8.0",
            "HTTPS_PROXY names the proxy of your network",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError("
            "'Failed to establish a new connection: [Errno -2] Name or service not known')'\n"
            "ERROR: No matching distribution found for annotated-types==0.8.0",
            "whether PyPI can be reached; in a network with a proxy, set HTTPS_PROXY",
        ),
        ("something else", "fix: see above"),
    ],
    ids=["disk", "quota", "owner", "proxy", "network", "unknown"],
)
def test_what_pip_prints_is_shown_and_explained(folder: Path, printed: str, fix: str) -> None:
    environment(folder, f'cat <<"END"\n{printed}\nEND\nexit 1')
    ran = install()
    assert ran.returncode == 1
    assert printed in ran.stderr
    assert fix in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_environment_of_another_user_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    environment(folder, "exit 0")
    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(SystemExit, match=r"fix: `sudo chown -R \$USER \.`"):
        python_packages.main("requirements.txt", ".venv/ready")
    assert "Permission denied: '.venv/ready'" in capsys.readouterr().err


def test_a_python_that_is_too_old_can_read_the_program_and_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 8))
    monkeypatch.setattr(python_packages, "OLDEST", (99, 0))
    with pytest.raises(SystemExit, match=r"(?s)python3 is Python 3\.\d+, and .*fix: "):
        python_packages.main("requirements.txt", ".venv/ready")


def test_an_environment_that_was_made_with_a_newer_python_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(folder, "exit 0")
    monkeypatch.setattr(python_packages, "OLDEST", (99, 0))
    python_packages.main("requirements.txt", ".venv/ready")
    assert (folder / ".venv" / "ready").exists()
