"""Checks in the image itself, without serving: does its vLLM accept the flags, is a GPU visible?

The same container says which release of vLLM the image holds, and which kernels it brings.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError
from docker.types import LogConfig, Mount, Ulimit

from vllm_spark.config.container import Container
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpu_access import GpuOffer
from vllm_spark.deployment.gpus import GPU_QUERY, Gpu, read_gpus
from vllm_spark.deployment.host_memory import on_cpu
from vllm_spark.deployment.serving import (
    CACHE_PATH,
    COMPILE_CACHES,
    compile_caches,
    server_arguments,
)
from vllm_spark.deployment.tenants import CHECK_LABEL
from vllm_spark.diagnosis.verdict import diagnose
from vllm_spark.docker_host.connection import UNANSWERED, connect
from vllm_spark.docker_host.one_shot import OneShot
from vllm_spark.images import Version
from vllm_spark.in_image import script
from vllm_spark.problems import Problem

SCRIPT = script("check_start")
PATIENCE_SECONDS = 600
"""Importing vLLM takes long and prints nothing."""


_ABOUT_GPU = re.compile(r"gpu|nvidia|cuda|cdi\b", re.IGNORECASE)
"""What tells an error about the GPU from others of a start, such as an image without Python."""

_LOOK = "see whether `nvidia-smi` works on the host, then `docker run --rm --gpus all` too"


@dataclass(frozen=True)
class ImageAnswer:
    """The result of the check. `unknown` says, for the user, what could not be checked."""

    problems: tuple[Problem, ...] = ()
    unknown: str = ""
    gpus: tuple[Gpu, ...] = ()
    """The GPUs that a container of the image sees; empty if nvidia-smi does not report them."""
    holders: frozenset[int] | None = None
    """The processes of the host that use a GPU; None if that is not known."""
    version: Version | None = None
    """The release of vLLM in the image; None if the image does not tell."""
    prebuilt: tuple[tuple[str, str], ...] = ()
    """Compiled kernels that the image brings, and where to keep them."""


_OF_THE_HOST = (
    "devices", "mounts", "securityOptions", "capabilities", "ulimits", "ipc", "log",
)  # fmt: skip
"""The keys of `container` that Docker may refuse on this host."""


def flags_key(settings: Settings, image_id: str) -> str:
    """A key for these flags in this image, so that they are checked only once."""
    container = settings.container
    host = [container.chosen.get(key) for key in _OF_THE_HOST]
    environment = sorted(container.environment.items())
    # Pulumi hands over the keys of a mapping in any order, so flags count by name.
    flags = settings.declared()["engine"]
    others = [one for one in server_arguments(settings) if one not in settings.engine.argv]
    asked = [image_id, flags, others, environment, settings.model.id, host, SCRIPT]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def ask_image(settings: Settings, *, about_flags: bool, image_id: str = "") -> ImageAnswer:
    """Check the flags, and the GPU if one is configured and the image can use it.

    `image_id` selects the place of the image's kernels in the cache; without it, nobody asks for
    kernels that the image brings. Interrupted after Ctrl-C; the container is always removed.
    """
    about_gpu = not on_cpu(settings)
    known = settings.image.version is not None
    if not about_gpu and not about_flags and known:
        return ImageAnswer()
    question = {
        "gpus": about_gpu,
        "query": GPU_QUERY,
        "argv": [settings.model.id, *server_arguments(settings)] if about_flags else None,
        "caches": _places(settings, image_id),
    }
    shot = OneShot(
        image=settings.image.name,
        program=SCRIPT,
        arguments=[json.dumps(question)],
        labels={CHECK_LABEL: "yes"},
        environment={**settings.container.environment, "HF_HUB_OFFLINE": "1"},
        # Some flags name files in the cache. The check writes nothing and needs no network.
        volumes=[(settings.cache.source, CACHE_PATH, "ro")],
        gpus=settings.container.gpus if about_gpu else None,
        gpu_access=settings.container.gpu_access,
        host_pids=about_gpu,
        host_access=_host_access(settings.container),
    )
    try:
        said = shot.run(connect(), limit_seconds=PATIENCE_SECONDS)
        answer = json.loads(said.rpartition("\n")[2])
    except APIError as error:
        return _not_started(error, settings)
    except TimeoutError:
        return ImageAnswer(unknown=f"the image did not answer within {PATIENCE_SECONDS} s")
    except ValueError:
        last = said.rpartition("\n")[2][-200:]
        return ImageAnswer(unknown=f"the image's Python says: {last}")
    problems = []
    if answer["gpus"] == []:
        problems.append(_no_gpu(settings, answer["trouble"]))
    if answer["flags"] == "refused":
        problems.append(_refused(settings, answer["said"]))
    words = answer["said"].strip().rpartition("\n")[2][-200:]
    unknown = f"the image's vLLM could not be asked ({words})"
    holders = answer["holders"]
    return ImageAnswer(
        tuple(problems),
        unknown if answer["flags"] == "unknown" else "",
        tuple(read_gpus(answer["gpus"] or ())),
        None if holders is None else frozenset(holders),
        release(answer["version"]),
        tuple((source, target) for source, target in answer["prebuilt"]),
    )


def release(text: str | None) -> Version | None:
    """vLLM's version of itself. A build without git history calls itself 0.1.dev1: not known."""
    if text is None or text.startswith("0.1.dev"):
        return None
    try:
        return Version.parse(text)
    except ValueError:
        return None


def _places(settings: Settings, image_id: str) -> list[tuple[str, str, str, str]]:
    """Each variable of a compile cache, the library's own place, the part below it, and ours."""
    if not image_id:
        return []
    return [
        (name, COMPILE_CACHES[name].default, COMPILE_CACHES[name].part, ours)
        for name, ours in compile_caches(settings, image_id).items()
    ]


def keep_prebuilt(settings: Settings, answer: ImageAnswer) -> list[str]:
    """Copy the kernels that the image brings into the cache; returns what could not be copied.

    Raises docker-py's exceptions, TimeoutError, and Interrupted after Ctrl-C.
    """
    said: list[str] = []
    shot = OneShot(
        image=settings.image.name,
        program=script("seed_caches"),
        arguments=[json.dumps(answer.prebuilt)],
        labels={CHECK_LABEL: "yes"},
        volumes=[(settings.cache.source, CACHE_PATH, "rw")],
    )
    shot.run(connect(), limit_seconds=PATIENCE_SECONDS, report=said.append)
    return said


def _host_access(container: Container) -> dict[str, Any]:
    """What the server's container gets of the host, so that Docker refuses it here first."""
    return {
        "devices": [":".join(mapping) for mapping in container.device_mappings],
        "mounts": [
            # The check writes nothing.
            Mount(mount.container_path, mount.source, type=mount.type, read_only=True)
            for mount in container.mounts
        ],
        "security_opt": container.security_options,
        "cap_add": container.capabilities.add,
        "cap_drop": container.capabilities.drop,
        "ulimits": [
            Ulimit(name=limit, soft=value, hard=value) for limit, value in container.ulimits.items()
        ],
        "ipc_mode": container.ipc,
        "log_config": LogConfig(type=container.log.driver),
    }


_REFUSALS = {
    "mounts": (r"bind source path does not exist: (?P<what>\S+)", "is not on this host"),
    "devices": (r'custom device "(?P<what>[^"]+)"', "is not on this host"),
    "securityOptions": (r"(?P<what>apparmor|seccomp|security-opt|selinux)", "is refused"),
}
"""Keys of `container`, by what Docker says when it refuses their values."""


_REFUSED_ANYWHERE = {
    "ulimit_refused": "ulimits",
    "ipc_refused": "ipc",
    "log_driver_refused": "log.driver",
}
"""Keys of `container` whose refusal the failure catalogue knows, by its rule."""


def _not_started(error: APIError, settings: Settings) -> ImageAnswer:
    said = str(error.explanation or error)
    verdict = diagnose(said.splitlines())
    if (refused := _REFUSED_ANYWHERE.get(verdict.rule)) is not None:
        where = f"vllm-spark:container.{refused}"
        return ImageAnswer((Problem(where, f"{verdict.cause} ({said})", verdict.fix),))
    for key, (pattern, what) in _REFUSALS.items():
        if key in settings.container.chosen and (found := re.search(pattern, said, re.I)):
            where = f"vllm-spark:container.{key}"
            fix = "correct the value, or make it right on the host (the Docker daemon's machine)"
            return ImageAnswer((Problem(where, f"{found['what']} {what}: {said}", fix),))
    if on_cpu(settings) or not _ABOUT_GPU.search(said.replace(settings.image.name, "")):
        return ImageAnswer(unknown=f"Docker did not start a container of the image ({said})")
    return ImageAnswer((_no_gpu(settings, said),))


def _no_gpu(settings: Settings, said: str) -> Problem:
    """`said` is what the daemon or nvidia-smi said; empty if neither said anything."""
    gpus = settings.container.gpus
    what = f"a container of {settings.image.name} with `gpus: {gpus}` sees none"
    found = diagnose(said.splitlines())
    fix = found.fix if found.rule else _LOOK
    said = " ".join(said.split())
    if found.rule:
        what += f", because {found.cause} ({said})"
    elif said:
        what += f": {said}"
    with suppress(*UNANSWERED):  # then the catalogue's fix, which is for any host
        offer = GpuOffer.of(connect().info())
        what += f"; {offer}"
        fix = offer.fix(found.rule, gpus) or fix
    return Problem("GPU", what, fix)


def _refused(settings: Settings, said: str) -> Problem:
    version = settings.image.version
    code = 2 if ": error: " in said else 1
    found = diagnose(said.splitlines(), exit_code=code, version=str(version) if version else None)
    return Problem(
        "vllm-spark:engine", f"the image's own vLLM refuses it: {found.cause}", found.fix
    )
