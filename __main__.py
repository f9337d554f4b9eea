"""Serves one LLM with vLLM, as the selected stack's config says: `pulumi up --stack spark`."""

import pulumi

from components.stack_config import read_stack, secret
from components.vllm_server import VllmServer
from engine.plan_report import output_of

settings, review = read_stack()
server = VllmServer(
    "vllm",
    settings=settings,
    api_key=secret("apiKey"),
    token=secret("huggingFaceToken"),
)

pulumi.export("url", server.url)
pulumi.export("model", server.model)
pulumi.export("containerName", server.container_name)
pulumi.export("image", settings.image.name)
pulumi.export("engine", settings.engine)
pulumi.export("memoryPlan", output_of(review.plan))
pulumi.export("readySeconds", server.ready_seconds)
pulumi.export("curl", server.curl)
