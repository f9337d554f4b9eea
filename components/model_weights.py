"""The model's files, complete in the cache before a server is started or an old one stopped.

vLLM could fetch them itself while it starts. But by then the old server is gone and the health
gate's time limit runs, and every restart would ask the hub for updates. With the files fetched
first, the server starts with HF_HUB_OFFLINE=1 and needs no network.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TypeVar

import pulumi
import pulumi_command as command

from components.fetch import Fetch
from components.model_cache import ModelCache
from components.vllm_image import VllmImage
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.repositories import Repository, besides_the_model
from vllm_spark.deployment.serving import CACHE_PATH
from vllm_spark.in_image import script
from vllm_spark.in_image.checkpoint import kept_elsewhere

_FOR_THE_HUB = re.compile(
    r"(?i)HF_\w+|\w+_PROXY|SSL_CERT_\w+|\w+_CA_BUNDLE|TIKTOKEN_ENCODINGS_BASE"
)
"""Variables for mirrors, proxies, their certificates, the token, and a vocabulary that is there
already. Others are left out, because a change of any variable in this list fetches again."""


class ModelWeights(pulumi.ComponentResource):
    """Fetches the files, then checks that they are complete; `commit` is the fetched commit.

    Both run in one-shot containers of the vLLM image, where the cache is mounted and the hub's
    client installed. Files in the cache are not fetched again, a broken download is resumed, and
    without the hub a complete copy in the cache is enough. `environment` holds variables that are
    not in the settings, including secrets.
    """

    def __init__(
        self,
        resource_name: str,
        *,
        identity: pulumi.Input[dict[str, str]],
        settings: Settings,
        image: VllmImage,
        cache: ModelCache,
        environment: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("spark:vllm:Weights", resource_name, None, opts)

        def fetch(name: str, repository: Repository, after: list[pulumi.Resource]) -> Fetch:
            return Fetch(
                name,
                identity=identity,
                image=image.name,
                cache=cache.source,
                repository=repository,
                environment=_for_the_hub(settings.container.environment),
                secrets=_for_the_hub(environment),
                opts=pulumi.ResourceOptions(parent=self, depends_on=after),
            )

        model = settings.model
        own = fetch(resource_name, Repository(model.id, model.revision), [image, cache])
        self.fetched = own.fingerprint
        self.commit: pulumi.Output[str] = own.commit
        run = ["docker", "run", "--rm", "--interactive", "--network", "none"]
        run += ["--volume", f"{cache.source}:{CACHE_PATH}", "--entrypoint", "python3"]
        look = shlex.join([*run, image.name, "-", CACHE_PATH, model.id])
        without = "".join(f" --without {part}" for part in kept_elsewhere(settings.engine))
        command.local.Command(
            f"{resource_name}-check",
            # `exec`: the plugin kills only the process that it started; a shell would leave docker.
            create=pulumi.Output.concat("exec ", look, " ", self.commit, without),
            stdin=script("checkpoint"),
            logging=command.local.Logging.STDERR,
            opts=pulumi.ResourceOptions(parent=self),
        )
        for other in besides_the_model(settings):
            # One after the other: each checks the free space of the same disk.
            fetch(f"{resource_name}-{other.id.replace('/', '-')}", other, [own])
        self.register_outputs({"commit": self.commit})


Value = TypeVar("Value")


def _for_the_hub(variables: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in variables.items() if _FOR_THE_HUB.fullmatch(name)}
