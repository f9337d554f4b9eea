"""A stand-in for the package `vllm` in the fake server's image: the command line that
vllm_spark/in_image/check_start.py runs. The real one takes 10 to 20 seconds to import.

It refuses flags that begin with `--bogus`, and accepts every other one.
"""

from __future__ import annotations

import argparse
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

__path__: list[str] = []


class ServeSubcommand:
    cmd: Any = None

    def validate(self, args: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="vllm")
    refused = [word for word in sys.argv if word.startswith("--bogus")]
    if refused:
        parser.error(f"unrecognized arguments: {' '.join(refused)}")
    args = argparse.Namespace()
    ServeSubcommand().validate(args)
    ServeSubcommand.cmd(args)


def _module(name: str, **members: Any) -> None:
    module = ModuleType(f"vllm.{name}")
    vars(module).update(members, __path__=[])
    sys.modules[module.__name__] = module


platforms = SimpleNamespace(current_platform=SimpleNamespace(device_type="cpu"))
_module("entrypoints")
_module("entrypoints.cli")
_module("entrypoints.cli.main", main=main)
_module("entrypoints.cli.serve", ServeSubcommand=ServeSubcommand)
