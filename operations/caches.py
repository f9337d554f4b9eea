"""`make caches STACK=x`: what the stack's cache holds, and with PRUNE=1 less of it.

Weights are listed, never removed: 30 GB take long to fetch again, and other stacks may serve them.
Compiled kernels of an image that nobody has any more are of no use; PRUNE=1 removes those which
belong neither to a container on this host, running or not, nor to the image of a stack here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import ImageNotFound, NotFound

from bootstrap.docker_engine import SILENT, silent
from bootstrap.steps import ROOT
from engine.limits import GIB
from engine.problems import ConfigError
from engine.serving import CACHE_PATH, COMPILED, compiled_by
from engine.settings import Settings, load_stack

SCRIPT = ROOT / "in_image" / "look_into_cache.py"


@dataclass(frozen=True)
class Part:
    """Something in the cache: `kind` is weights, compiled or other."""

    kind: str
    bytes: int
    name: str


def main() -> int:
    """Exit code 0, or 1 if the cache could not be looked into."""
    parser = argparse.ArgumentParser(prog="caches", description=__doc__)
    parser.add_argument("--stack", default="local")
    parser.add_argument("--prune", action="store_true", help="remove kernels that nobody uses")
    given = parser.parse_args()
    try:
        settings = load_stack(ROOT / f"Pulumi.{given.stack}.yaml")
        client: Any = docker.from_env()
        stacks = [load_stack(path) for path in sorted(ROOT.glob("Pulumi.*.yaml"))]
        client.images.get(settings.image.name)
        print(report(client, settings, stacks, prune=given.prune))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
    except ImageNotFound:
        print(
            f"error: the cache is looked into with {settings.image.name}, which is not here\n"
            f"  mend: make up STACK={given.stack}, or docker pull it",
            file=sys.stderr,
        )
    except SILENT as error:
        print(f"error: {silent(error)}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"error: the cache cannot be read: {error.stderr.strip()}", file=sys.stderr)
    else:
        return 0
    return 1


def report(client: Any, settings: Settings, stacks: Iterable[Settings], *, prune: bool) -> str:
    """What is there, and what nobody uses; removed before, with `prune`."""
    parts = look(settings)
    used = in_use(client, stacks, [part.name for part in parts if part.kind == "compiled"])
    unused = [part for part in parts if part.kind == "compiled" and part.name not in used]
    if prune and unused:
        look(settings, remove=[part.name for part in unused])
    gone = "removed" if prune else "nobody uses it"
    lines = [f"cache {settings.cache.source}"]
    lines += [
        f"  {part.kind:<9}{_size(part.bytes):>10}  {part.name}"
        + (f"  ({gone})" if part in unused else "")
        for part in parts
    ]
    if unused and not prune:
        lines.append("`make caches ... PRUNE=1` removes what nobody uses; it never removes weights")
    lines.append(f"Weights go by hand: {removal(settings)}")
    return "\n".join(lines)


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"


def look(settings: Settings, remove: Iterable[str] = ()) -> list[Part]:
    """The parts of a stack's cache, looked at (after `remove`) in a container of its image."""
    ended = subprocess.run(
        ["docker", "run", "--rm", "--interactive", "--network", "none", "--entrypoint", "python3"]
        + ["--volume", f"{settings.cache.source}:{CACHE_PATH}", settings.image.name]
        + ["-", CACHE_PATH, "--remove", *remove],
        input=SCRIPT.read_text(),
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split("\t") for line in ended.stdout.splitlines()]
    return [Part(kind, int(size), name) for kind, size, name in rows]


def in_use(client: Any, stacks: Iterable[Settings], compiled: Iterable[str]) -> set[str]:
    """Which of the folders `compiled` somebody may want."""
    used: set[str] = set()
    for listed in client.api.containers(all=True):
        with suppress(NotFound):  # it has gone meanwhile
            for entry in client.api.inspect_container(listed["Id"])["Config"]["Env"] or ():
                if f"{CACHE_PATH}/{COMPILED}/" in entry:
                    used.add(Path(entry.partition(f"/{COMPILED}/")[2]).parts[0])
    for settings in stacks:
        name = settings.image.name
        try:
            used.add(compiled_by(name, client.images.get(name).id))
        except ImageNotFound:
            # Which of its folders will be the right one shows when it is pulled again.
            used |= {one for one in compiled if one.startswith(compiled_by(name, ""))}
    return used


def removal(settings: Settings) -> str:
    """How a person removes one model's weights."""
    if settings.cache.volume is not None:
        return (
            f"docker run --rm -v {settings.cache.volume}:/cache --entrypoint rm "
            f"{settings.image.name} -r /cache/models--OWNER--NAME; all of the cache, once no "
            f"container uses it: docker volume rm {settings.cache.volume}"
        )
    return f"sudo rm -r {settings.cache.host_path}/models--OWNER--NAME"


if __name__ == "__main__":
    sys.exit(main())
