"""The vLLM image, present on the Docker host before anything that runs it is touched."""

from __future__ import annotations

import pulumi
import pulumi_docker as docker

from vllm_spark.config.sections import Image


class VllmImage(pulumi.ComponentResource):
    """Pulls the image if the host does not have it.

    The image is kept when the stack is destroyed: it is large, other stacks may run it, and a
    nightly tag, once gone from its registry, cannot be pulled again.

    `name` is the image that a container is created from. It is the name from the config and not an
    output, so that a preview shows the old and the new name instead of "unknown". `digest` is what
    the name referred to: name@sha256:..., or the image's id if no registry has it.

    The official plugin shows no progress while it pulls.
    """

    def __init__(
        self, resource_name: str, *, image: Image, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("spark:vllm:Image", resource_name, None, opts)
        self.name = name = image.name
        self.pulled = docker.RemoteImage(
            resource_name,
            name=name,
            keep_locally=True,
            opts=pulumi.ResourceOptions(
                parent=self,
                # 20 GB over a slow line take long; the plugin's own limit is 20 minutes.
                custom_timeouts=pulumi.CustomTimeouts(create="2h"),
                hooks=pulumi.ResourceHookBinding(
                    on_error=[pulumi.ErrorHook(f"{resource_name}-fix", self._say_fix)]
                ),
            ),
        )
        self.digest = pulumi.Output.all(self.pulled.repo_digest, self.pulled.image_id).apply(
            lambda known: known[0] or known[1]
        )
        self.register_outputs({"name": name, "imageId": self.pulled.image_id})

    def _say_fix(self, args: pulumi.ErrorHookArgs) -> bool:
        """Log the fix: the plugin's message ends with the registry's own. False: do not retry."""
        if args.failed_operation != "delete":
            pulumi.log.error(
                f"{self.name}: fix: see vllm-spark:image.name for a typo; `docker pull` the name "
                "for the registry's own words; where it wants a login, `pulumi config set "
                "--secret vllm-spark:registryPassword`"
            )
        return False
