"""Serves one LLM with vLLM, as the selected stack's config says: `pulumi up --stack spark`."""

import signal

import pulumi

from components.announcement import announce
from components.stack_config import read_stack, secret
from components.vllm_server import VllmServer
from engine.flags import normalised
from engine.memory_actual import compared
from engine.plan_report import output_of

# When an update has failed, Pulumi (3.259) ends this program with SIGINT. Python's own answer to it
# would wait for calls that the engine has left open, until it is killed 5 s later.
signal.signal(signal.SIGINT, signal.SIG_DFL)

settings, review = read_stack()
server = VllmServer(
    "vllm",
    settings=settings,
    api_key=secret("apiKey"),
    token=secret("huggingFaceToken"),
    registry_password=secret("registryPassword"),
)

pulumi.export("url", server.url)
pulumi.export("model", server.model)
pulumi.export("containerName", server.container_name)
pulumi.export("image", settings.image.name)
pulumi.export("imageDigest", server.image_digest)
pulumi.export("engine", normalised(settings.engine))
pulumi.export("memoryPlan", output_of(review.plan))
if server.gate is not None:
    plan = review.plan
    pulumi.export("memoryActual", server.gate.memoryActual.apply(lambda it: compared(plan, it)))
    pulumi.export("readySeconds", server.gate.readySeconds)
pulumi.export("curl", server.curl)
announce(server)
