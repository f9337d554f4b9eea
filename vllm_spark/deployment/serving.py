"""What the server's container is told: its arguments and its environment, from the settings."""

from __future__ import annotations

import re

from vllm_spark.config.sections import LONGEST_START
from vllm_spark.config.settings import Settings
from vllm_spark.flags.history import KNOWN
from vllm_spark.images import serve_command

CACHE_PATH = "/root/.cache/huggingface"
"""Where every container of ours sees the cache; the place that the guide's users have filled."""


TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Older clients, and the guide's users' own code, read the second name."""

SECRET_VARIABLES = {"VLLM_API_KEY": "apiKey", **dict.fromkeys(TOKEN_VARIABLES, "huggingFaceToken")}
"""Each secret variable of the server, and the config key that it comes from."""


def container_name(settings: Settings, server: str, stack: str) -> str:
    """The container's name: the configured one, else after server and stack."""
    return settings.container.name or f"{server}-{stack}"


def server_arguments(settings: Settings) -> list[str]:
    """What follows the model's name in `vllm serve MODEL`.

    `--download-dir` is where vLLM looks for weights, HF_HUB_CACHE (see below) where it looks for
    the rest of the repository; both name one folder.
    """
    argv = ["--download-dir", CACHE_PATH]
    if settings.model.revision is not None:
        argv += ["--revision", settings.model.revision]
    # Offline, vLLM since 0.10.2 replaces the model's id by a path: pin the name that clients use.
    argv += ["--served-model-name", settings.served_name]
    argv += settings.engine.argv
    return argv + _drained(settings)


def server_command(settings: Settings) -> list[str]:
    """The container's command, as the image's family wants it."""
    image, argv = settings.image, server_arguments(settings)
    return serve_command(image.reference, settings.model.id, argv, version=image.version)


DRAIN_SECONDS = 30
"""What answers that are under way get to end when the server is stopped: 1,200 tokens of the
guide's model. New requests are refused meanwhile, so it is also how much longer a swap takes."""

STOP_SECONDS = 10
"""What a server gets for everything else. vLLM frees the GPU within 2 s of SIGTERM, but where it
does not drain it then waits without end for its clients, whose streams get neither data nor an
end (measured on an H200); and while its engine starts it may not hear SIGTERM at all. Waiting
longer would gain nothing but downtime."""


def stop_seconds(settings: Settings) -> int:
    """Seconds from SIGTERM to SIGKILL, for Pulumi and for `docker stop`."""
    told = settings.engine.get("shutdown-timeout")
    if told is None and _drained(settings):
        told = DRAIN_SECONDS
    return STOP_SECONDS + (int(told) if isinstance(told, int | float) else 0)


def _drained(settings: Settings) -> list[str]:
    """The flag that lets requests end, where the image's vLLM is known to have it."""
    version = settings.image.version
    told = "shutdown-timeout" in settings.engine
    if told or version is None or not KNOWN["shutdown-timeout"].exists_in(version):
        return []
    return ["--shutdown-timeout", str(DRAIN_SECONDS)]


def server_environment(settings: Settings) -> dict[str, str]:
    """The container's environment but for `compile_caches`, and for its secrets, which never
    become plain values here.
    """
    return {
        "HF_HUB_CACHE": CACHE_PATH,
        "HF_HUB_OFFLINE": "1",
        # The health gate holds the clocks. The engine's own (600 s) must not run out before them,
        # and must not change with them, since that would replace the container.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(LONGEST_START),
        **settings.container.environment,
    }


COMPILED = "compiled"
"""The folder of the cache that holds compiled kernels, one folder below for each image."""

COMPILE_CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
}
"""Variables that name the places of compiled kernels, each with its folder.

A first start on an H200 took 291 s and the next one 74 s; VLLM_CACHE_ROOT (torch.compile and
DeepGEMM) saved nearly all of it."""


def compiled_by(image: str, image_id: str) -> str:
    """The folder of one image's kernels, which are of no use to another and may break it.

    The name is for people. The id tells a tag that has moved from what it was: `sha256:` and what
    identifies the image's content.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "-", image)
    return f"{name}-{image_id.removeprefix('sha256:')[:12]}"


def compile_caches(settings: Settings, image_id: str) -> dict[str, str]:
    """Where compiled kernels outlive the container: beside the weights, apart for each image."""
    place = f"{CACHE_PATH}/{COMPILED}/{compiled_by(settings.image.name, image_id)}"
    told = settings.container.environment
    return {name: f"{place}/{part}" for name, part in COMPILE_CACHES.items() if name not in told}
