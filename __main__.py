"""Serves one LLM with vLLM, as the selected stack's config says: `pulumi up --stack spark`."""

import signal

import pulumi

from components import VllmServer
from components.stack_config import stack_args
from vllm_spark import __version__

# When an update has failed, Pulumi (3.259) ends this program with SIGINT. Python's own answer to it
# would wait for calls that the engine has left open, until it is killed 5 s later.
signal.signal(signal.SIGINT, signal.SIG_DFL)

args = stack_args()
settings = args.settings
server = VllmServer("vllm", args)

pulumi.export("url", server.url)
pulumi.export("model", server.model)
pulumi.export("containerName", server.container_name)
pulumi.export("image", settings.image.name)
pulumi.export("imageDigest", server.image_digest)
pulumi.export("vllmVersion", server.vllm_version)
pulumi.export("container", settings.container.chosen)
pulumi.export("memoryPlan", server.memory_plan)
if server.memory_actual is not None:
    pulumi.export("memoryActual", server.memory_actual)
    pulumi.export("readySeconds", server.ready_seconds)
pulumi.export("curl", server.curl)
pulumi.export("version", __version__)
