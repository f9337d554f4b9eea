"""The place where weights outlive containers: a folder of the host or a Docker volume."""

from __future__ import annotations

import pulumi
import pulumi_docker as docker

from vllm_spark.config.sections import Cache
from vllm_spark.deployment.serving import CACHE_PATH


class ModelCache(pulumi.ComponentResource):
    """Declares the cache and says how a container mounts it.

    It never deletes weights: it does not manage the host's folder, and keeps the volume when the
    stack is destroyed, because two stacks may share it and 31 GB take long to download again.
    `docker volume rm NAME` removes the volume.
    """

    def __init__(
        self, resource_name: str, *, cache: Cache, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("spark:vllm:Cache", resource_name, None, opts)
        if cache.volume is not None:
            docker.Volume(
                resource_name,
                name=cache.volume,
                opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
            )
        self.mount = docker.ContainerVolumeArgs(
            container_path=CACHE_PATH, host_path=cache.host_path, volume_name=cache.volume
        )
        self.source = cache.source
        self.register_outputs({"source": self.source})
