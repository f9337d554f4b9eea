"""One model, served: image, cache, weights, container and health gate joined in their order."""

from __future__ import annotations

import json

import pulumi

from components.cache import ModelCache
from components.container import EngineContainer
from components.health_gate import HealthGate
from components.image import EngineImage
from components.last_good import LastGood
from components.preflight import Preflight
from components.weights import ModelWeights
from engine.serving import container_name
from engine.settings import Settings


class VllmServer(pulumi.ComponentResource):
    """Serves the model of `settings`; when it is up, the model has answered.

    It manages one container and what that needs. It does not manage the Docker engine, GPU
    drivers, or a reverse proxy in front of it.
    """

    def __init__(
        self,
        resource_name: str,
        *,
        settings: Settings,
        api_key: pulumi.Output[str] | None = None,
        token: pulumi.Output[str] | None = None,
        registry_password: pulumi.Output[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("spark:vllm:Server", resource_name, None, opts)
        ours = pulumi.ResourceOptions(parent=self)
        self.container_name = container_name(settings, pulumi.get_stack())
        self.url = settings.endpoint.base_url
        self.model = settings.served_name
        self.curl = curl_line(self.url, self.model, with_key=api_key is not None)
        self.gate: HealthGate | None = None

        image = EngineImage("image", image=settings.image, password=registry_password, opts=ours)
        self.image_digest = image.digest
        cache = ModelCache("cache", cache=settings.cache, opts=ours)
        needed: list[pulumi.Resource] = [image, cache]
        weights: ModelWeights | None = None
        if settings.state == "running":
            weights = ModelWeights(
                "weights", settings=settings, image=image, cache=cache, token=token, opts=ours
            )
            preflight = Preflight(
                "preflight",
                container_name=self.container_name,
                settings=settings,
                image_id=image.pulled.image_id,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[*needed, weights]),
            )
            needed += [weights, preflight]
        server = EngineContainer(
            "server",
            name=self.container_name,
            settings=settings,
            image=image,
            cache=cache,
            api_key=api_key,
            token=token,
            opts=pulumi.ResourceOptions(parent=self, depends_on=needed),
        )
        if settings.state == "running":
            self.gate = HealthGate(
                "health",
                container_id=server.container.id,
                container_name=self.container_name,
                url=self.url,
                model=self.model,
                api_key=api_key,
                health=settings.health,
                opts=ours,
            )
        LastGood(
            "last-good",
            gate=self.gate,
            container_id=server.container.id,
            image=image,
            weights=weights,
            opts=ours,
        )
        self.register_outputs({"url": self.url, "model": self.model})


def curl_line(url: str, model: str, *, with_key: bool) -> str:
    """A line to paste that asks the model something. It names the API key, never shows it."""
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if with_key else ""
    request = {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}
    return (
        f"curl {url}/chat/completions -H 'Content-Type: application/json'{key} "
        f"-d '{json.dumps(request)}'"
    )
