"""The vLLM container: what the guide's compose service says, from typed settings."""

from __future__ import annotations

import pulumi
import pulumi_docker as docker

from components.cache import ModelCache
from components.image import EngineImage
from engine.serving import server_arguments, server_environment
from engine.settings import Settings

CONTAINER_PORT = 8000
"""vLLM's default; only the host's side of the port is configured."""

TOKEN_KEYS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class EngineContainer(pulumi.ComponentResource):
    """Declares the container. That it runs does not mean that it serves: the health gate tells."""

    def __init__(
        self,
        resource_name: str,
        *,
        name: str,
        settings: Settings,
        image: EngineImage,
        cache: ModelCache,
        api_key: pulumi.Output[str] | None,
        token: pulumi.Output[str] | None,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("spark:vllm:EngineContainer", resource_name, None, opts)
        container = settings.container
        envs: list[pulumi.Input[str]] = [
            f"{key}={value}" for key, value in server_environment(settings).items()
        ]
        if api_key is not None:
            envs.append(pulumi.Output.concat("VLLM_API_KEY=", api_key))
        if token is not None:
            # Older clients and the guide's users' own code read the second name.
            envs += [pulumi.Output.concat(f"{key}=", token) for key in TOKEN_KEYS]
        self.container = docker.Container(
            resource_name,
            name=name,
            image=image.name,
            command=server_arguments(settings),
            envs=envs,
            ports=[
                docker.ContainerPortArgs(
                    internal=CONTAINER_PORT,
                    external=settings.endpoint.port,
                    ip=str(settings.endpoint.bind),
                )
            ],
            volumes=[cache.mount],
            gpus=_gpus(container.gpus),
            ipc_mode=container.ipc,
            ulimits=[
                docker.ContainerUlimitArgs(name=limit, soft=value, hard=value)
                for limit, value in container.ulimits.items()
            ],
            restart=container.restart,
            # Left out, the plugin reads back another value than it sent (pulumi-docker#1272).
            network_mode="bridge",
            must_run=settings.state == "running",
            start=settings.state == "running",
            opts=pulumi.ResourceOptions(
                parent=self,
                # The plugin stops no container whose `start` becomes false: a new one is created,
                # and not started. The plugin's own order, old before new, holds for its own
                # replacements only.
                replace_on_changes=["start"],
                delete_before_replace=True,
            ),
        )
        self.register_outputs({"name": name, "id": self.container.id})


def _gpus(gpus: str | list[int]) -> str | None:
    """The `--gpus` of docker run."""
    if isinstance(gpus, list):
        return "device=" + ",".join(str(number) for number in gpus)
    return None if gpus == "none" else gpus
