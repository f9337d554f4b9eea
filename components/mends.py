"""Mends for failures whose message comes from a plugin that is not ours."""

from __future__ import annotations

import pulumi


def with_mend(name: str, mend: str, resource: str) -> pulumi.ResourceHookBinding:
    """Hooks that say `mend` when the resource called `resource` cannot be created or changed."""

    def say(args: pulumi.ErrorHookArgs) -> bool:
        if args.failed_operation != "delete":
            pulumi.log.error(f"{resource}: mend: {mend}")
        return False

    return pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook(name, say)])
