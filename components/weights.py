"""The model's files, complete in the cache before a server is started or an old one stopped.

vLLM would fetch them itself while it starts: with the old server gone, within the health gate's
time, and again at every restart it would ask the hub for news. Fetched beforehand, the server can
be started with HF_HUB_OFFLINE=1 and needs no network.
"""

from __future__ import annotations

import shlex

import pulumi
import pulumi_command as command

from components.cache import ModelCache
from components.image import EngineImage
from components.mends import with_mend
from engine.serving import CACHE_PATH
from engine.settings import Model

_EXCLUDED = ("original/*", "*.pth", "*.pt", "*.gguf", "*.onnx", "*.h5", "*.msgpack")
"""Other formats of the same weights, which vLLM does not read beside safetensors."""


class ModelWeights(pulumi.ComponentResource):
    """Runs `hf download` in a one-shot container of the engine's image.

    What is in the cache already is not fetched again, a broken download is resumed, and without
    the hub a complete snapshot in the cache is enough.
    """

    def __init__(
        self,
        resource_name: str,
        *,
        model: Model,
        image: EngineImage,
        cache: ModelCache,
        token: pulumi.Output[str] | None,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("spark:vllm:ModelWeights", resource_name, None, opts)
        download = ["download", model.id]
        if model.revision is not None:
            download += ["--revision", model.revision]
        for pattern in _EXCLUDED:
            download += ["--exclude", pattern]
        run = ["docker", "run", "--rm", "--volume", f"{cache.source}:{CACHE_PATH}"]
        run += ["--env", f"HF_HUB_CACHE={CACHE_PATH}", "--env", "HF_TOKEN", "--entrypoint", "hf"]
        command.local.Command(
            resource_name,
            create=shlex.join([*run, image.name, *download]),
            # The token travels in the environment: an argument would be in every process list.
            environment={"HF_TOKEN": token} if token is not None else {},
            logging=command.local.Logging.STDERR,
            triggers=[cache.source],
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[image, cache],
                custom_timeouts=pulumi.CustomTimeouts(create="12h", update="12h"),
                hooks=with_mend(
                    "weights-mend",
                    "see vllm-spark:model for a typo, and that the hub can be reached; a gated "
                    "model needs its licence accepted and `pulumi config set --secret "
                    "vllm-spark:huggingFaceToken`",
                    model.id,
                ),
            ),
        )
        self.register_outputs({})
