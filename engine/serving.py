"""What the server's container is told: its arguments and its environment, from the settings."""

from __future__ import annotations

import re

from engine.flags import to_argv
from engine.images import serve_command
from engine.settings import LONGEST_START, Settings

CACHE_PATH = "/root/.cache/huggingface"
"""Where every container of ours sees the cache; the place that the guide's users have filled."""


def container_name(settings: Settings, stack: str) -> str:
    """The container's name: the configured one, else after the stack."""
    return settings.container.name or f"vllm-{stack}"


def server_arguments(settings: Settings) -> list[str]:
    """The container's command, as the image's family wants it.

    `--download-dir` is where vLLM looks for weights, HF_HUB_CACHE (see below) where it looks for
    the rest of the repository; both name one folder.
    """
    argv = ["--download-dir", CACHE_PATH]
    if settings.model.revision is not None:
        argv += ["--revision", settings.model.revision]
    # Offline, vLLM since 0.10.2 replaces the model's id by a path: pin the name that clients use.
    argv += ["--served-model-name", settings.served_name]
    argv += to_argv(settings.engine)
    image = settings.image
    return serve_command(image.reference, settings.model.id, argv, version=image.version)


def server_environment(settings: Settings) -> dict[str, str]:
    """The container's environment but for its secrets, which never become plain values here."""
    return {
        "HF_HUB_CACHE": CACHE_PATH,
        "HF_HUB_OFFLINE": "1",
        # The health gate holds the clocks. The engine's own (600 s) must not run out before them,
        # and must not change with them, since that would replace the container.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(LONGEST_START),
        **_compile_caches(settings.image.name),
        **settings.container.environment,
    }


def _compile_caches(image: str) -> dict[str, str]:
    """Where compiled kernels outlive the container: beside the weights, apart for each image.

    A first start on an H200 took 291 s and the next one 74 s; VLLM_CACHE_ROOT (torch.compile and
    DeepGEMM) saved nearly all of it. Kernels of one image are of no use to another.
    """
    place = f"{CACHE_PATH}/compiled/{re.sub(r'[^A-Za-z0-9._-]', '-', image)}"
    return {
        "VLLM_CACHE_ROOT": f"{place}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{place}/torchinductor",
        "TRITON_CACHE_DIR": f"{place}/triton",
        "FLASHINFER_WORKSPACE_BASE": f"{place}/flashinfer",
    }
