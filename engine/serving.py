"""What the server's container is told: its arguments and its environment, from the settings."""

from __future__ import annotations

from engine.flags import to_argv
from engine.images import serve_command
from engine.settings import Settings

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
        **settings.container.environment,
    }
