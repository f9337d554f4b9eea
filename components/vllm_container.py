"""The vLLM container: the guide's compose service, declared from typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_docker as docker

from components.hooks import fix_hook, in_a_thread
from components.identity import Release, state_id
from components.model_cache import ModelCache
from components.vllm_image import VllmImage
from vllm_spark.config.container import Capabilities, Container
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpus import cdi_names
from vllm_spark.deployment.serving import (
    CONTAINER_PORT,
    compile_caches,
    server_command,
    server_environment,
    stop_seconds,
)
from vllm_spark.deployment.tenants import COMMIT_LABEL, IDENTITY_LABELS, VERSION_LABEL, Identity
from vllm_spark.docker_host.memory_wait import make_room


class VllmContainer(pulumi.ComponentResource):
    """Declares the container. Running is not serving: that is for the health gate to decide.

    `commit` is that of the model's files, None if they were not fetched. A new commit replaces the
    container, so that the recorded commit is the one that answered. `environment` holds variables
    that are not in the settings, including secrets.
    """

    def __init__(
        self,
        resource_name: str,
        *,
        name: str,
        identity: pulumi.Output[Identity],
        settings: Settings,
        image: VllmImage,
        cache: ModelCache,
        commit: pulumi.Output[str] | None,
        environment: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(
            "spark:vllm:Container", resource_name, _for_policies(settings, environment), opts
        )
        container, endpoint = settings.container, settings.endpoint
        command, plain = server_command(settings), server_environment(settings)
        release = Release(
            f"{resource_name}-release",
            container=[
                name,
                image.name,
                image.pulled.image_id,
                commit,
                command,
                plain,
                # Without defaults, so that a key that a later release adds changes nothing.
                container.model_dump(mode="json", exclude={"restart"}, exclude_defaults=True),
                endpoint.model_dump(mode="json", exclude={"open"}, exclude_defaults=True),
                cache.source,
            ],
            opts=pulumi.ResourceOptions(parent=self),
        )
        envs: list[pulumi.Input[str]] = [f"{key}={value}" for key, value in plain.items()]
        # One by one, so that a preview shows all the others when a new image is not pulled yet.
        envs += [_compile_cache(settings, image, key) for key in compile_caches(settings, "")]
        envs += [pulumi.Output.concat(f"{key}=", value) for key, value in environment.items()]
        self.container = docker.Container(
            resource_name,
            name=name,
            image=image.name,
            command=command,
            envs=envs,
            ports=_ports(settings),
            volumes=[cache.mount],
            mounts=[
                docker.ContainerMountArgs(
                    type=mount.type,
                    source=mount.source,
                    target=mount.container_path,
                    read_only=mount.read_only,
                )
                for mount in container.mounts
            ],
            **_gpus(container),
            devices=[
                docker.ContainerDeviceArgs(host_path=host, container_path=path, permissions=how)
                for host, path, how in container.device_mappings
            ],
            ipc_mode=container.ipc,
            shm_size=container.shm_mib,
            security_opts=container.security_opts or None,
            capabilities=_capabilities(container.capabilities),
            ulimits=[
                docker.ContainerUlimitArgs(name=limit, soft=value, hard=value)
                for limit, value in container.ulimits.items()
            ],
            log_driver=container.log.driver,
            log_opts=container.log.options,
            labels=_labels(identity, release, commit),
            restart=container.restart,
            # Without a grace period the plugin kills at once.
            destroy_grace_seconds=stop_seconds(settings),
            stop_timeout=stop_seconds(settings),
            # If unset, the plugin reads back another value than it sent (pulumi-docker#1272).
            network_mode=container.network,
            must_run=settings.state == "running",
            start=settings.state == "running",
            opts=pulumi.ResourceOptions(
                parent=self,
                # If `start` becomes false, the plugin does not stop the container. So a new one is
                # created and not started. The plugin orders old before new only for replacements
                # that it asks for itself.
                replace_on_changes=["start"],
                delete_before_replace=True,
                hooks=pulumi.ResourceHookBinding(
                    before_create=[_room_hook(resource_name, name, identity, settings)],
                    on_error=[fix_hook(resource_name, name)],
                ),
            ),
        )
        self.register_outputs({"name": name, "id": self.container.id})


def _for_policies(
    settings: Settings, environment: Mapping[str, pulumi.Input[str]]
) -> dict[str, pulumi.Input[Any]]:
    """What `policy/` cannot see in the container: secret variables, and the config's exceptions."""
    secret = {name: pulumi.Output.from_input(environment[name]).is_secret() for name in environment}
    exceptions = settings.policy.model_dump(mode="json")["exceptions"]
    told = {"variables": secret, "exceptions": exceptions}
    return {key: value for key, value in told.items() if value}


def identity_of(server: str) -> pulumi.Output[Identity]:
    """The owner of this server's containers."""
    project, stack = pulumi.get_project(), pulumi.get_stack()
    return state_id().apply(lambda known: Identity(project, stack, server, known))


def _labels(
    identity: pulumi.Output[Identity], release: Release, commit: pulumi.Output[str] | None
) -> list[docker.ContainerLabelArgs]:
    # An output each, not one of them all: a preview then shows which one is not known yet.
    def of_identity(label: str) -> pulumi.Output[str]:
        return identity.apply(lambda known: known.labels[label])

    facts: dict[str, pulumi.Input[str]] = {label: of_identity(label) for label in IDENTITY_LABELS}
    facts[VERSION_LABEL] = release.version
    if commit is not None:
        facts[COMMIT_LABEL] = commit
    return [docker.ContainerLabelArgs(label=label, value=facts[label]) for label in facts]


def _room_hook(
    resource_name: str, name: str, identity: pulumi.Output[Identity], settings: Settings
) -> pulumi.ResourceHook:
    """The hook that Pulumi runs after the old container is gone, before it creates the new one."""

    async def room(_args: pulumi.ResourceHookArgs) -> None:
        ours = await identity.future()
        assert ours is not None, "a hook runs in an update, where the id is known"
        await in_a_thread(
            lambda say: make_room(name, ours, settings, lambda line: say(f"{name}: {line}"))
        )

    return pulumi.ResourceHook(f"{resource_name}-room", room)


def _compile_cache(settings: Settings, image: VllmImage, name: str) -> pulumi.Output[str]:
    return image.pulled.image_id.apply(
        lambda image_id: f"{name}={compile_caches(settings, image_id)[name]}"
    )


def _ports(settings: Settings) -> list[docker.ContainerPortArgs]:
    """The published port; none on the host's network, where vLLM listens on the endpoint itself."""
    if settings.container.network == "host":
        return []
    endpoint = settings.endpoint
    return [
        docker.ContainerPortArgs(
            internal=CONTAINER_PORT, external=endpoint.port, ip=str(endpoint.bind)
        )
    ]


def _capabilities(asked: Capabilities) -> docker.ContainerCapabilitiesArgs | None:
    if not asked.add and not asked.drop:
        return None
    return docker.ContainerCapabilitiesArgs(adds=asked.add, drops=asked.drop)


def _gpus(container: Container) -> dict[str, Any]:
    """The container's argument for GPUs.

    Numbers go by device requests: of `gpus: device=0,1` the official plugin makes a count and an id
    at once, which Docker refuses (pulumi-docker 5.2, seen with Docker 20.10).
    """
    gpus = container.gpus
    if gpus == "none":
        return {}
    if container.gpu_access == "cdi":
        request = docker.ContainerDeviceRequestArgs(driver="cdi", device_ids=cdi_names(gpus))
    elif isinstance(gpus, list):
        ids = [str(number) for number in gpus]
        request = docker.ContainerDeviceRequestArgs(
            driver="nvidia", device_ids=ids, capabilities=["gpu"]
        )
    else:
        return {"gpus": gpus}
    return {"device_requests": [request]}
