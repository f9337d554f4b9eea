"""Serves one model: declares image, cache, weights, container and health gate in that order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker

from components.announcement import announce
from components.health_gate import HealthGate
from components.last_good import LastGood
from components.model_cache import ModelCache
from components.model_weights import ModelWeights
from components.preflight import Preflight
from components.vllm_container import VllmContainer, identity_of
from components.vllm_image import VllmImage
from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import ROLLBACK, Settings
from vllm_spark.config.values import secret_problem
from vllm_spark.deployment.memory_actual import compared
from vllm_spark.deployment.review import Review, review
from vllm_spark.deployment.serving import TOKEN_VARIABLES, container_name
from vllm_spark.docker_host.connection import NO_DAEMON, connect, resolve
from vllm_spark.errors import DockerUnavailable, VllmSparkError
from vllm_spark.memory.report import output_of, table


@dataclass(frozen=True, kw_only=True)
class VllmServerArgs:
    """What a server is made from.

    `settings` are plain values, because the memory plan and the checks of a preview need them;
    `Settings.parse` makes them from a dict of config keys. The secrets and `environment` (further
    variables of the container) may be outputs of other resources.
    """

    settings: Settings
    api_key: pulumi.Input[str] | None = None
    hugging_face_token: pulumi.Input[str] | None = None
    registry_password: pulumi.Input[str] | None = None
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)


class VllmServer(pulumi.ComponentResource):
    """Serves the model of its settings; when it is up, the model has answered.

    A program may have any number of servers, each with its own name, port and container. A server
    manages one container and its dependencies. It does not manage the Docker daemon, GPU drivers,
    or a reverse proxy in front of it. RunError, before anything is declared, for settings that
    cannot be deployed.

    Outputs: `review` (the memory plan and the warnings), `url` (ending in /v1), `model` (the name
    in client requests), `container_name`, `image_digest`, `vllm_version` (None if it is not known),
    `memory_plan`, `memory_actual` and `ready_seconds` (None if it is not started), `curl` (a
    command that sends a request).
    """

    def __init__(
        self,
        resource_name: str,
        args: VllmServerArgs,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("spark:vllm:Server", resource_name, None, opts)
        settings = _rolled_back(resource_name) or args.settings
        self.review = self._reviewed(settings, has_key=args.api_key is not None)
        environment = _environment(args, settings)
        plan = self.review.plan
        self.container_name = container_name(settings, resource_name, pulumi.get_stack())
        self.url = settings.endpoint.base_url
        self.model = settings.served_name
        self.curl = curl_line(self.url, self.model, with_key=args.api_key is not None)
        self.memory_plan = output_of(plan)
        self.memory_actual: pulumi.Output[dict[str, object]] | None = None
        self.ready_seconds: pulumi.Output[float] | None = None

        ours = self._ours(resource_name, settings, args.registry_password)
        image = VllmImage(
            f"{resource_name}-image",
            image=settings.image,
            password=args.registry_password,
            opts=ours,
        )
        self.image_digest = image.digest
        cache = ModelCache(f"{resource_name}-cache", cache=settings.cache, opts=ours)
        identity = identity_of(resource_name)
        needed: list[pulumi.Resource] = [image, cache]
        weights: ModelWeights | None = None
        if settings.state == "running":
            weights = ModelWeights(
                f"{resource_name}-weights",
                identity=identity.apply(vars),
                settings=settings,
                image=image,
                cache=cache,
                environment=environment,
                opts=ours,
            )
            needed.append(weights)
        preflight = Preflight(
            f"{resource_name}-preflight",
            server=resource_name,
            container_name=self.container_name,
            identity=identity.apply(vars),
            settings=settings,
            variables=environment,
            image_id=image.pulled.image_id,
            opts=pulumi.ResourceOptions(parent=self, depends_on=needed),
        )
        self.vllm_version = preflight.vllmVersion
        container = VllmContainer(
            f"{resource_name}-container",
            name=self.container_name,
            identity=identity,
            settings=settings,
            image=image,
            cache=cache,
            commit=weights.commit if weights is not None else None,
            environment=environment,
            opts=pulumi.ResourceOptions.merge(
                ours, pulumi.ResourceOptions(depends_on=[*needed, preflight])
            ),
        )
        gate: HealthGate | None = None
        if settings.state == "running":
            gate = HealthGate(
                f"{resource_name}-health",
                container_id=container.container.id,
                container_name=self.container_name,
                url=self.url,
                model=self.model,
                api_key=args.api_key,
                health=settings.health,
                opts=pulumi.ResourceOptions(parent=self),
            )
            self.memory_actual = gate.memoryActual.apply(lambda actual: compared(plan, actual))
            self.ready_seconds = gate.readySeconds
            announce(self, gate)
        LastGood(
            f"{resource_name}-last-good",
            server=resource_name,
            settings=settings,
            gate=gate,
            container_id=container.container.id,
            image=image,
            weights=weights,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({"url": self.url, "model": self.model})

    def _reviewed(self, settings: Settings, *, has_key: bool) -> Review:
        """Review the settings; log the memory plan and every warning."""
        try:
            reviewed = review(settings, has_key=has_key)
        except VllmSparkError as error:
            raise pulumi.RunError(f"{self._name} cannot be deployed:\n{error}") from None
        for doubt in reviewed.warnings:
            pulumi.log.warn(str(doubt), self)
        pulumi.log.info(table(reviewed.plan, settings.model.id), self)
        return reviewed

    def _ours(
        self, resource_name: str, settings: Settings, password: pulumi.Input[str] | None
    ) -> pulumi.ResourceOptions:
        """Resource options of the parts: the docker provider passed to this component, or its own.

        Its own uses the same daemon as the rest of this project. The plugin reads DOCKER_HOST by
        itself, but neither the Docker context in use nor a stored login.
        """
        if self.get_provider("docker:index/container:Container") is not None:
            return pulumi.ResourceOptions(parent=self)
        image = settings.image
        login = docker.ProviderRegistryAuthArgs(
            address=image.reference.registry, username=image.registry_user, password=password
        )
        provider = docker.Provider(
            f"{resource_name}-docker",
            # Given None, the SDK would take DOCKER_HOST and write this machine's address into the
            # state. A preview on another machine would then show a change.
            host=pulumi.Output.from_input(_host_of_context()),
            registry_auth=None if password is None else [login],
            opts=pulumi.ResourceOptions(parent=self),
        )
        return pulumi.ResourceOptions(parent=self, providers=[provider])


def _host_of_context() -> str | None:
    """The daemon of the Docker context in use; None if none is, or DOCKER_HOST is set.

    RunError if no daemon answers: the plugins name neither the socket nor a fix. A preview warns.
    """
    daemon = None
    try:
        daemon = resolve()
        if daemon.address != NO_DAEMON:
            connect()
    except DockerUnavailable as error:
        if not pulumi.runtime.is_dry_run():
            raise pulumi.RunError(str(error)) from None
        without = f"make preview STACK={pulumi.get_stack()}"
        pulumi.log.warn(f"{error}\n  to preview without Docker: {without}")
    return daemon.address if daemon is not None and daemon.context is not None else None


def _rolled_back(server: str) -> Settings | None:
    """The settings that a rollback uses instead of this server's; None if this is no rollback."""
    given = pulumi.Config(NAMESPACE).get_object(ROLLBACK) or {}
    return Settings.from_declared(given[server]) if server in given else None


def _environment(args: VllmServerArgs, settings: Settings) -> dict[str, pulumi.Input[str]]:
    """The container's variables that are not in its settings. RunError for one that is in both."""
    variables = dict(args.environment)
    if twice := sorted(variables.keys() & settings.container.environment.keys()):
        raise pulumi.RunError(
            f"{', '.join(twice)}: set in container.environment, and as a secret too\n"
            "  fix: remove one of the two"
        )
    if args.api_key is not None:
        variables["VLLM_API_KEY"] = _key_of_right_form(args.api_key)
    if args.hugging_face_token is not None:
        variables |= dict.fromkeys(TOKEN_VARIABLES, args.hugging_face_token)
    return variables


def _key_of_right_form(key: pulumi.Input[str]) -> pulumi.Output[str]:
    """The key. RunError if it would leave the server open, or if no client can send it."""

    def check(text: str) -> str:
        if (problem := secret_problem(text)) is not None:
            raise pulumi.RunError(f"the API key {problem}\n  fix: give one line of text")
        return text

    return pulumi.Output.from_input(key).apply(check)


def curl_line(url: str, model: str, *, with_key: bool) -> str:
    """A curl command that sends a request. It refers to the API key by variable, never by value."""
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if with_key else ""
    request = {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}
    return (
        f"curl {url}/chat/completions -H 'Content-Type: application/json'{key} "
        f"-d '{json.dumps(request)}'"
    )
