"""Passes the stack's config from Pulumi to the parser that commands without Pulumi use as well.

Pulumi decrypts the config before this program sees it, and reports for each key only whether it
contained a secret. So secrets have separate keys, whose values stay outputs. Any other key that
contains a secret is refused, because its value would be in the state in plain text.
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG

from components.vllm_server import VllmServerArgs
from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import ROLLBACK, SECRETS
from vllm_spark.config.values import secret_problem, variable_name
from vllm_spark.deployment.review import read
from vllm_spark.errors import ConfigError
from vllm_spark.problems import Problem

_PREFIX = f"{NAMESPACE}:"


def stack_args() -> VllmServerArgs:
    """The server that the selected stack describes.

    RunError, which Pulumi prints without a traceback, lists every mistake in the config.
    """
    # `pulumi.Config` can look a key up but not list the keys, and an unknown key must be refused.
    config = CONFIG.get()
    given = [key.removeprefix(_PREFIX) for key in config if key.startswith(_PREFIX)]
    secret = frozenset(key for key in given if pulumi.runtime.is_config_secret(_PREFIX + key))
    # The settings only need to know that a secret is set; its value stays a Pulumi output.
    values: dict[str, object] = {
        key: "(encrypted)" if key in secret else config[_PREFIX + key]
        for key in given
        if key != ROLLBACK
    }
    problems = _secret_problems(secret)
    try:
        settings = read(values, secret)
    except ConfigError as error:
        problems += error.problems
    if problems:
        stack, text = pulumi.get_stack(), ConfigError(problems)
        raise pulumi.RunError(f"the config of stack {stack} cannot be deployed:\n{text}")
    return VllmServerArgs(
        settings=settings,
        api_key=_secret("apiKey"),
        hugging_face_token=_secret("huggingFaceToken"),
        registry_password=_secret("registryPassword"),
        environment={
            name: pulumi.Output.secret(value) for name, value in _secret_environment().items()
        },
    )


def _secret_problems(secret: frozenset[str]) -> list[Problem]:
    """Errors in the form of secrets. No error shows a value."""
    found = {}
    for key in SECRETS[:3]:
        if key in secret:
            found[f"{_PREFIX}{key}"] = secret_problem(str(pulumi.Config(NAMESPACE).get(key) or ""))
    if "secretEnvironment" in secret:
        try:
            variables = _secret_environment()
        except (TypeError, ValueError):
            found[f"{_PREFIX}secretEnvironment"] = "is not an object of variables and their values"
            variables = {}
        for name, value in variables.items():
            where = f"{_PREFIX}secretEnvironment.{name}"
            try:
                variable_name(name)
            except (ValueError, ConfigError):
                found[where] = "is not the name of a variable that may be set here"
            if not isinstance(value, str):
                found[where] = "is not a text"
    return [
        Problem(where, what, "set it again: pulumi config set --secret, and type the value")
        for where, what in found.items()
        if what is not None
    ]


def _secret_environment() -> dict[str, Any]:
    """The decrypted values. TypeError or ValueError if they are not an object."""
    return dict(pulumi.Config(NAMESPACE).get_object("secretEnvironment") or {})


def _secret(key: str) -> pulumi.Output[str] | None:
    """A secret config value, as an output that Pulumi keeps encrypted; None if it is not set."""
    return pulumi.Config(NAMESPACE).get_secret(key)
