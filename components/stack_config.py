"""The stack's config, handed from Pulumi to the parser that tools without Pulumi use as well."""

from __future__ import annotations

import pulumi
from pulumi.runtime.config import CONFIG

from engine.plan_report import table
from engine.problems import ConfigError
from engine.review import Review, review
from engine.sections import NAMESPACE
from engine.settings import SECRETS, Settings


def read_stack() -> tuple[Settings, Review]:
    """The settings of the selected stack and their plan, with the doubts about it in the log.

    RunError, which Pulumi prints without a traceback, if it cannot be deployed.
    """
    config = pulumi.Config(NAMESPACE)
    prefix = f"{NAMESPACE}:"
    # `pulumi.Config` can look a key up but not list the keys, and an unknown key must be refused.
    given = [key.removeprefix(prefix) for key in CONFIG.get() if key.startswith(prefix)]
    encrypted = frozenset(
        key for key in SECRETS if key in given and pulumi.runtime.is_config_secret(prefix + key)
    )
    # The settings only need to know that a secret is there; its value stays a Pulumi output.
    values = {key: "(encrypted)" if key in encrypted else config.get(key) for key in given}
    try:
        settings = Settings.parse(values, encrypted)
        reviewed = review(settings)
    except ConfigError as error:
        stack = pulumi.get_stack()
        raise pulumi.RunError(f"the config of stack {stack} cannot be deployed:\n{error}") from None
    for doubt in reviewed.warnings:
        pulumi.log.warn(str(doubt))
    pulumi.log.info(table(reviewed.plan, settings.model.id))
    return settings, reviewed


def secret(key: str) -> pulumi.Output[str] | None:
    """A secret config value, as an output that Pulumi keeps encrypted; None if it is not set."""
    return pulumi.Config(NAMESPACE).get_secret(key)
