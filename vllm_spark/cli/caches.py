"""`make caches STACK=x`: lists the stack's cache; with PRUNE=1 also removes unused kernels.

It never removes weights: 31 GB take long to fetch again, and other stacks may serve them. Compiled
kernels are useless without their image. PRUNE=1 removes those that belong neither to a container on
this host, running or not, nor to the image of a stack here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from docker.errors import ImageNotFound, NotFound

from vllm_spark.cli.options import json_option, stack_option
from vllm_spark.config.settings import Settings
from vllm_spark.config.stack_file import load_stack, load_stack_if_ours, stack_file
from vllm_spark.deployment.serving import CACHE_PATH, COMPILED, compiled_by
from vllm_spark.deployment.tenants import CHECK_LABEL
from vllm_spark.docker_host.connection import connect
from vllm_spark.docker_host.one_shot import OneShot
from vllm_spark.errors import SetupError
from vllm_spark.in_image import script
from vllm_spark.memory.limits import GIB
from vllm_spark.project import ROOT

LIMIT_SECONDS = 600.0
"""Enough to count the files of a cache with many models on a slow disk."""


@dataclass(frozen=True)
class Part:
    """An item in the cache: `kind` is weights, compiled or other."""

    kind: str
    bytes: int
    name: str


@click.command()
@stack_option
@click.option("--prune", is_flag=True, help="Remove compiled kernels that nobody uses.")
@json_option
def caches(stack: str, prune: bool, as_json: bool) -> None:
    """List what the stack's cache holds: weights, and compiled kernels by image."""
    settings = load_stack(stack_file(stack))
    client: Any = connect()
    files = sorted(ROOT.glob("Pulumi.*.yaml"))
    stacks = [found for path in files if (found := load_stack_if_ours(path)) is not None]
    try:
        client.images.get(settings.image.name)
    except ImageNotFound:
        raise SetupError(
            f"the cache is looked into with {settings.image.name}, which is not on this host\n"
            f"  fix: make up STACK={stack}, or docker pull it"
        ) from None
    parts, unused = swept(client, settings, stacks, prune=prune)
    if as_json:
        rows = [{**asdict(part), "unused": part in unused} for part in parts]
        click.echo(json.dumps({"cache": settings.cache.source, "pruned": prune, "parts": rows}))
    else:
        click.echo(report(settings, parts, unused, prune=prune))


def swept(
    client: Any, settings: Settings, stacks: Iterable[Settings], *, prune: bool
) -> tuple[list[Part], list[Part]]:
    """All parts of the cache, and the unused ones; `prune` removes these."""
    parts = look(settings)
    compiled = [part for part in parts if part.kind == "compiled"]
    used = in_use(client, stacks, [part.name for part in compiled])
    unused = [part for part in compiled if part.name not in used]
    if prune and unused:
        look(settings, remove=[part.name for part in unused])
    return parts, unused


def report(settings: Settings, parts: list[Part], unused: list[Part], *, prune: bool) -> str:
    """The parts of the cache as text, with the unused ones marked."""
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
    """The parts of a stack's cache (after `remove`), listed in a container of its image."""
    shot = OneShot(
        image=settings.image.name,
        program=script("look_into_cache"),
        arguments=[CACHE_PATH, "--remove", *remove],
        labels={CHECK_LABEL: "yes"},
        volumes=[(settings.cache.source, CACHE_PATH, "rw")],
    )
    said: list[str] = []
    try:
        listed = shot.run(connect(), limit_seconds=LIMIT_SECONDS, report=said.append)
    except TimeoutError:
        raise _unreadable(f"it takes longer than {LIMIT_SECONDS:.0f} s") from None
    if not listed.rpartition("\n")[2].startswith("other\t"):  # the last line of a complete list
        raise _unreadable(" ".join(said[-3:]))
    rows = [line.split("\t") for line in listed.splitlines()]
    return [Part(kind, int(size), name) for kind, size, name in rows]


def _unreadable(why: str) -> SetupError:
    return SetupError(
        f"the cache cannot be read: {why}\n  fix: see whether its folder or volume is there"
    )


def in_use(client: Any, stacks: Iterable[Settings], compiled: Iterable[str]) -> set[str]:
    """The folders among `compiled` that may still be used."""
    used: set[str] = set()
    for listed in client.api.containers(all=True):
        with suppress(NotFound):  # it was removed in the meantime
            for entry in client.api.inspect_container(listed["Id"])["Config"]["Env"] or ():
                if f"{CACHE_PATH}/{COMPILED}/" in entry:
                    used.add(Path(entry.partition(f"/{COMPILED}/")[2]).parts[0])
    for settings in stacks:
        name = settings.image.name
        try:
            used.add(compiled_by(name, client.images.get(name).id))
        except ImageNotFound:
            # The image is not here, so the id that selects its folder is not known: keep them all.
            used |= {one for one in compiled if one.startswith(compiled_by(name, ""))}
    return used


def removal(settings: Settings) -> str:
    """The command that removes one model's weights."""
    if settings.cache.volume is not None:
        return (
            f"docker run --rm -v {settings.cache.volume}:/cache --entrypoint rm "
            f"{settings.image.name} -r /cache/models--OWNER--NAME; all of the cache, once no "
            f"container uses it: docker volume rm {settings.cache.volume}"
        )
    return f"sudo rm -r {settings.cache.host_path}/models--OWNER--NAME"
