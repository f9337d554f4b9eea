"""Checks an image without starting a server: does its vLLM accept the flags, does it see a GPU?

    python3 -c "$(cat check_start.py)" \\
        '{"gpus": true, "argv": ["MODEL", "--flag", "value"], "caches": []}'

vLLM refuses a flag 10 to 20 seconds into a start, when the old server is gone. This script runs the
image's own command line (`vllm serve ...`) without the serving part, so parser and checks are those
of the release in the image. Without argv it does not check flags.

The answer is the last line of standard output, a JSON object. `flags` is "accepted", "refused", or
"unknown" if this vLLM could not be asked; `said` is its output. `gpus` lists the visible GPUs, in
nvidia-smi's CSV or by their device files, null if they were not checked. `holders` are the
processes that use them, null if nvidia-smi does not report them. `trouble` is nvidia-smi's error.
`version` is the release of vLLM, null if it is not installed as a package. `prebuilt` are the
compiled kernels that the image brings, as [source, target], where the cache has none yet; `caches`
asks for them, each as [variable, default of its library, part below that, our place for it].
The script imports only the standard library before vLLM itself.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

REFUSED_BY_ARGPARSE = 2


class Parsed(BaseException):
    """vLLM's command line has accepted the arguments: the server would start now."""


def main() -> None:
    """Answer the question in the first argument."""
    question = json.loads(sys.argv[1])
    answer: dict[str, Any] = {"flags": None, "said": "", "gpus": None, "holders": None}
    answer["version"] = release()
    answer["prebuilt"] = [pair for cache in question["caches"] if (pair := prebuilt(*cache))]
    if question["gpus"]:
        answer["gpus"], answer["trouble"] = visible_gpus(question["query"])
        answer["holders"] = holders()
    if question["argv"] is not None:
        answer["flags"], answer["said"] = asked(question["argv"])
    print("\n" + json.dumps(answer), flush=True)


def release() -> str | None:
    """The release of vLLM, without importing it."""
    try:
        return metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return None


def prebuilt(variable: str, default: str, part: str, ours: str) -> tuple[str, str] | None:
    """Source and target of kernels to keep; None if the image has none, or our place has some."""
    source = Path(os.environ.get(variable) or default).expanduser() / part
    target = Path(ours) / part
    if target.exists() or not source.is_dir() or not any(source.iterdir()):
        return None
    return str(source), str(target)


def visible_gpus(query: str) -> tuple[list[str], str]:
    """The GPUs in this container, and nvidia-smi's error."""
    try:
        code, said = nvidia_smi(f"--query-gpu={query}")
    except (OSError, subprocess.TimeoutExpired) as error:
        # The container toolkit adds nvidia-smi only if the image requests `utility`.
        return [path.name for path in sorted(Path("/dev").glob("nvidia[0-9]*"))], str(error)
    lines = [line for line in said.splitlines() if line.count(",") == query.count(",")]
    return (lines, "") if code == 0 and lines else ([], said.strip())


def holders() -> list[int] | None:
    """The host's processes that use a GPU; None if nvidia-smi does not report them."""
    try:
        code, said = nvidia_smi("--query-compute-apps=pid")
        return [int(line) for line in said.splitlines() if line.strip()] if code == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None


def nvidia_smi(query: str) -> tuple[int, str]:
    """The exit code and the output of nvidia-smi."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def asked(argv: list[str]) -> tuple[str, str]:
    """The verdict of this image's vLLM on `vllm serve ARGV`, and its output."""
    said = io.StringIO()
    checking: list[bool] = []
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            run_command_line(argv, checking)
    except Parsed:
        return "accepted", ""
    except SystemExit as end:
        verdict = "refused" if end.code == REFUSED_BY_ARGPARSE else "unknown"
        return verdict, said.getvalue()[-4000:] or f"it ended with exit code {end.code}"
    except Exception as error:
        # A failure before vLLM's own checks is no verdict: there is no GPU, or the image is broken.
        known = checking and isinstance(error, ValueError | TypeError | KeyError)
        words = "".join(traceback.format_exception(error))[-4000:]
        return "refused" if known else "unknown", words
    return "unknown", "its command line came back without an answer"


def run_command_line(argv: list[str], checking: list[bool]) -> None:
    """Run `vllm serve ARGV` up to the point where it would serve; that raises Parsed."""
    from vllm import platforms
    from vllm.entrypoints.cli.main import main as command_line
    from vllm.entrypoints.cli.serve import ServeSubcommand

    if not platforms.current_platform.device_type:
        # Without a device vLLM cannot compute its defaults; `vllm bench` does the same.
        from vllm.platforms.cpu import CpuPlatform

        platforms.current_platform = CpuPlatform()
    own_checks = ServeSubcommand.validate

    def validate(self: Any, args: Any) -> None:
        checking.append(True)
        own_checks(self, args)
        check_parsers(args)

    def serve(_args: Any) -> None:
        raise Parsed

    ServeSubcommand.validate = validate
    ServeSubcommand.cmd = staticmethod(serve)
    sys.argv = ["vllm", "serve", *argv]
    command_line()


def check_parsers(args: Any) -> None:
    """Run vLLM's own check of the parsers' names, which moved between releases."""
    if getattr(args, "tool_parser_plugin", "") or getattr(args, "reasoning_parser_plugin", ""):
        return  # they add names, but only once the server is set up
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.") and "validate_api_server_args" in vars(module):
            module.validate_api_server_args(args)
            return


if __name__ == "__main__":
    main()
