"""The `__main__.py` of a minimal Pulumi program, with which benchmarks/unchanged.py compares ours.

`minimal:types` lists the types of its resources. It declares nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_command as command
import pulumi_docker as docker
from pulumi.dynamic import CreateResult, Resource, ResourceProvider


class _Nothing(ResourceProvider):
    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult("nothing", props)


class _Dynamic(Resource):
    pass


config = pulumi.Config("minimal")
image, volume, container = (config.require(key) for key in ("image", "volume", "container"))

MADE: dict[str, Callable[[str], pulumi.Resource]] = {
    "docker:index/remoteImage:RemoteImage": lambda name: docker.RemoteImage(
        name, name=image, keep_locally=True
    ),
    "docker:index/volume:Volume": lambda name: docker.Volume(
        name, name=volume, opts=pulumi.ResourceOptions(retain_on_delete=True)
    ),
    "docker:index/container:Container": lambda name: docker.Container(
        name, name=container, image=image, command=["model"], network_mode="bridge"
    ),
    "command:local:Command": lambda name: command.local.Command(name, create="true"),
    "pulumi-python:dynamic": lambda name: _Dynamic(_Nothing(), name, {"given": name}),
}

for number, kind in enumerate(config.require_object("types")):
    name = f"part-{number}"
    # The type of a dynamic resource ends in its class; every other type is a component's.
    make = MADE.get(kind.partition("/spark")[0])
    if make is not None:
        make(name)
    else:
        pulumi.ComponentResource(f"minimal:index:Part{number}", name)
