"""The vLLM image, present on the Docker host before anything that runs it is touched."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import pulumi
import pulumi_docker as docker

from components.hooks import fix_hook, in_a_thread
from vllm_spark.config.sections import Image
from vllm_spark.diagnosis.answer import Diagnosis
from vllm_spark.docker_host.pull import LIMIT_SECONDS, pull


class VllmImage(pulumi.ComponentResource):
    """Pulls the image if the host does not have it.

    The image is kept when the stack is destroyed: it is large, other stacks may run it, and a
    nightly tag, once gone from its registry, cannot be pulled again.

    `name` is the image that a container is created from. It is the name from the config and not an
    output, so that a preview shows the old and the new name instead of "unknown". `digest` is what
    the name referred to: name@sha256:..., or the image's id if no registry has it.

    A hook pulls it before the plugin does, with progress (vllm_spark/docker_host/pull.py).
    `password` is that of the registry.
    """

    def __init__(
        self,
        resource_name: str,
        *,
        image: Image,
        password: pulumi.Input[str] | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("spark:vllm:Image", resource_name, None, opts)
        self.name = name = image.name
        self.pulled = docker.RemoteImage(
            resource_name,
            name=name,
            keep_locally=True,
            opts=pulumi.ResourceOptions(
                parent=self,
                # The plugin's own limit is 20 minutes.
                custom_timeouts=pulumi.CustomTimeouts(create=f"{LIMIT_SECONDS / 3600:.0f}h"),
                hooks=pulumi.ResourceHookBinding(
                    before_create=[_pull_hook(resource_name, image, password)],
                    on_error=[fix_hook(resource_name, name, fix_of_pull)],
                ),
            ),
        )
        self.digest = pulumi.Output.all(self.pulled.repo_digest, self.pulled.image_id).apply(
            lambda known: known[0] or known[1]
        )
        self.register_outputs({"name": name, "imageId": self.pulled.image_id})


def fix_of_pull(found: Diagnosis) -> str:
    """The fix of a failed pull. The plugin's message ends with the registry's own.

    Of the catalogue, only the rules that mean the same here: "connection refused" in the log of a
    server is about the hub.
    """
    if found.rule in {"disk_full", "wrong_architecture"}:
        return found.fix
    return (
        "see vllm-spark:image.name for a typo; `docker pull` the name for the registry's own "
        "words; where it wants a login, `pulumi config set --secret vllm-spark:registryPassword`; "
        "behind a proxy, the daemon needs its own"
    )


def _pull_hook(
    resource_name: str, image: Image, password: pulumi.Input[str] | None
) -> pulumi.ResourceHook:
    """The hook that Pulumi runs before the plugin pulls."""

    async def before(_args: pulumi.ResourceHookArgs) -> None:
        login = None
        if password is not None:
            known = await pulumi.Output.from_input(password).future()
            login = {"username": image.registry_user or "", "password": known or ""}
        with suppress(TimeoutError):  # the plugin then joins in
            await asyncio.wait_for(in_a_thread(partial(pull, image.name, login)), LIMIT_SECONDS)

    return pulumi.ResourceHook(f"{resource_name}-pull", before)
