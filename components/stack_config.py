"""The stack's config, handed from Pulumi to the parser that tools without Pulumi use as well."""

from __future__ import annotations

import pulumi
from pulumi.runtime.config import CONFIG

from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import ROLLBACK, SECRETS, Settings
from vllm_spark.deployment.review import read
from vllm_spark.errors import ConfigError


def read_stack() -> Settings:
    """The settings of the selected stack.

    RunError, which Pulumi prints without a traceback, lists every mistake in them.
    """
    config = pulumi.Config(NAMESPACE)
    prefix = f"{NAMESPACE}:"
    # `pulumi.Config` can look a key up but not list the keys, and an unknown key must be refused.
    given = [key.removeprefix(prefix) for key in CONFIG.get() if key.startswith(prefix)]
    encrypted = frozenset(
        key for key in SECRETS if key in given and pulumi.runtime.is_config_secret(prefix + key)
    )
    # The settings only need to know that a secret is there; its value stays a Pulumi output.
    values = {
        key: "(encrypted)" if key in encrypted else config.get(key)
        for key in given
        if key != ROLLBACK
    }
    try:
        return read(values, encrypted)
    except ConfigError as error:
        stack = pulumi.get_stack()
        raise pulumi.RunError(f"the config of stack {stack} cannot be deployed:\n{error}") from None


def rolled_back(server: str) -> Settings | None:
    """The settings that a rollback gives this server in place of its own; None outside of one."""
    given = pulumi.Config(NAMESPACE).get_object(ROLLBACK) or {}
    return Settings.from_declared(given[server]) if server in given else None


def secret(key: str) -> pulumi.Output[str] | None:
    """A secret config value, as an output that Pulumi keeps encrypted; None if it is not set."""
    return pulumi.Config(NAMESPACE).get_secret(key)
