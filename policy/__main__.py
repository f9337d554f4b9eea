"""The policy pack: gives the rules of `vllm_spark/policy` to Pulumi, and declares nothing else.

`pulumi preview --stack spark --policy-pack policy`. docs/review.md has the rules, their levels, and
how a stack is excepted from one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

# Pulumi starts this file with its own folder as the first of the path.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from vllm_spark.policy.declared import DeclaredContainer
from vllm_spark.policy.rules import RULES, Rule

CONTAINER = "docker:index/container:Container"
OURS = "spark:vllm:Container"
"""The component around a server's container. It is registered first, and tells of it what the
container's own inputs do not: which variables are secret, and the exceptions."""

_told: dict[str, Mapping[str, Any]] = {}
"""What each component told, by its URN."""


def known(value: Any) -> Any:
    """The value as plain data, with None for all that is not known yet."""
    if isinstance(value, Mapping):
        return {key: _at(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_at(value, index) for index in range(len(value))]
    return value


def _at(value: Any, key: Any) -> Any:
    try:
        return known(value[key])
    except UnknownValueError:
        return None


def check(name: str, rule: Rule, args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Hold one resource against one rule."""
    if args.resource_type == OURS:
        _told[args.urn] = known(args.props)
    if args.resource_type != CONTAINER:
        args.not_applicable("it is no container")
    told = _told.get(args.opts.parent or "")
    container = DeclaredContainer.of(
        known(args.props), None if told is None else told.get("variables", {})
    )
    found = rule.check(container, {**rule.options, **args.get_config()})
    for exception in (told or {}).get("exceptions", ()):
        if exception["rule"] == name and found:
            args.not_applicable(f"excepted: {exception['reason']}")
    for what in found:
        report(
            f"{what}\n  fix: {rule.fix}\n  or, where the stack needs it: vllm-spark:policy "
            f"{{exceptions: [{{rule: {name}, reason: ...}}]}}",
            args.urn,
        )


PolicyPack(
    "vllm-spark",
    [
        ResourceValidationPolicy(
            name,
            rule.demand,
            partial(check, name, rule),
            EnforcementLevel.MANDATORY if rule.mandatory else EnforcementLevel.ADVISORY,
            PolicyConfigSchema({option: {"type": "number"} for option in rule.options}),
        )
        for name, rule in RULES.items()
    ],
)
