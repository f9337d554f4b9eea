"""The vLLM container: what the guide's compose service says, from typed settings."""

from __future__ import annotations

import pulumi
import pulumi_docker as docker

from components.cache import ModelCache
from components.image import EngineImage
from engine.serving import (
    TOKEN_VARIABLES,
    compile_caches,
    server_command,
    server_environment,
    stop_seconds,
)
from engine.settings import Settings
from engine.tenants import STACK_LABEL

CONTAINER_PORT = 8000
"""vLLM's default; only the host's side of the port is configured."""


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
        # One by one, so that where a new image is still to be pulled, a preview shows all others.
        envs += [_compile_cache(settings, image, name) for name in compile_caches(settings, "")]
        if api_key is not None:
            envs.append(pulumi.Output.concat("VLLM_API_KEY=", api_key))
        if token is not None:
            envs += [pulumi.Output.concat(f"{key}=", token) for key in TOKEN_VARIABLES]
        self.container = docker.Container(
            resource_name,
            name=name,
            image=image.name,
            command=server_command(settings),
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
            labels=[docker.ContainerLabelArgs(label=STACK_LABEL, value=pulumi.get_stack())],
            restart=container.restart,
            # The plugin kills at once where no grace is given.
            destroy_grace_seconds=stop_seconds(settings),
            stop_timeout=stop_seconds(settings),
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
                hooks=pulumi.ResourceHookBinding(before_create=[_room_hook(name, settings)]),
            ),
        )
        self.register_outputs({"name": name, "id": self.container.id})


def _room_hook(name: str, settings: Settings) -> pulumi.ResourceHook:
    stack = pulumi.get_stack()

    async def room(_args: pulumi.ResourceHookArgs) -> None:
        # Here, because it loads the Docker client, and a preview never runs it.
        from components.room import make_room

        await make_room(name, stack, settings)

    return pulumi.ResourceHook(f"{name}-room", room)


def _compile_cache(settings: Settings, image: EngineImage, name: str) -> pulumi.Output[str]:
    return image.pulled.image_id.apply(
        lambda image_id: f"{name}={compile_caches(settings, image_id)[name]}"
    )


def _gpus(gpus: str | list[int]) -> str | None:
    """The `--gpus` of docker run."""
    if isinstance(gpus, list):
        return "device=" + ",".join(str(number) for number in gpus)
    return None if gpus == "none" else gpus
