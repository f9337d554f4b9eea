"""The model's files, complete in the cache before a server is started or an old one stopped.

vLLM would fetch them itself while it starts: with the old server gone, within the health gate's
time, and again at every restart it would ask the hub for news. Fetched beforehand, the server can
be started with HF_HUB_OFFLINE=1 and needs no network.
"""

from __future__ import annotations

import re
import shlex

import pulumi
import pulumi_command as command

from components.model_cache import ModelCache
from components.vllm_image import VllmImage
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.repositories import besides_the_model
from vllm_spark.deployment.serving import CACHE_PATH
from vllm_spark.in_image import script
from vllm_spark.in_image.checkpoint import kept_elsewhere

_FOR_THE_HUB = re.compile(r"(?i)HF_\w+|\w+_PROXY|SSL_CERT_\w+|\w+_CA_BUNDLE")
"""Variables that name mirrors, proxies and their certificates. With the engine's own among them,
every change of those would ask the hub for news."""


class ModelWeights(pulumi.ComponentResource):
    """Fetches the files, then looks whether they are whole; `commit` is what `fetch` fetched.

    Both run in one-shot containers of the engine's image, where the cache is mounted and the hub's
    client installed. What is there is not fetched again, a broken download is resumed, and without
    the hub a complete copy in the cache is enough.
    """

    def __init__(
        self,
        resource_name: str,
        *,
        settings: Settings,
        image: VllmImage,
        cache: ModelCache,
        token: pulumi.Input[str] | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("spark:vllm:Weights", resource_name, None, opts)
        model = settings.model
        run = ["docker", "run", "--rm", "--interactive", "--entrypoint", "python3"]
        run += ["--volume", f"{cache.source}:{CACHE_PATH}", "--env", f"HF_HUB_CACHE={CACHE_PATH}"]
        for name, value in settings.container.environment.items():
            if _FOR_THE_HUB.fullmatch(name):
                run += ["--env", f"{name}={value}"]
        fetch = [*run, "--env", "HF_TOKEN", image.name, "-"]

        def fetched(
            name: str, repository: list[str], after: list[pulumi.Resource]
        ) -> command.local.Command:
            return command.local.Command(
                name,
                create=shlex.join([*fetch, *repository]),
                stdin=script("fetch_weights"),
                # The token travels in the environment: an argument would be in every process list.
                environment={"HF_TOKEN": token} if token is not None else {},
                logging=command.local.Logging.STDERR,
                triggers=[cache.source],
                opts=pulumi.ResourceOptions(
                    parent=self,
                    depends_on=after,
                    custom_timeouts=pulumi.CustomTimeouts(create="12h", update="12h"),
                ),
            )

        repository = [model.id, *([model.revision] if model.revision is not None else [])]
        self.fetch = shlex.join([*fetch, *repository])
        own = fetched(resource_name, repository, [image, cache])
        # Secret only because the token went in beside it.
        self.commit: pulumi.Output[str] = pulumi.Output.unsecret(own.stdout)
        look = shlex.join([*run, image.name, "-", CACHE_PATH, model.id])
        without = "".join(f" --without {part}" for part in kept_elsewhere(settings.engine))
        command.local.Command(
            f"{resource_name}-check",
            create=pulumi.Output.concat(look, " ", self.commit, without),
            stdin=script("checkpoint"),
            logging=command.local.Logging.STDERR,
            opts=pulumi.ResourceOptions(parent=self),
        )
        for other in besides_the_model(settings):
            repository = [other.id, *([other.revision] if other.revision is not None else [])]
            repository += [] if other.weights else ["--without-weights"]
            # One after the other: each looks for room on the same disk.
            fetched(f"{resource_name}-{other.id.replace('/', '-')}", repository, [own])
        self.register_outputs({"commit": self.commit})
