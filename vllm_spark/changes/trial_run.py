"""Runs the program at two versions through Pulumi's engine, and lists what would be done.

Both runs are previews on a throw-away state with `trial_provider`. The first preview becomes the
state, against which the second one runs. Of its steps only operation, URN and type are used: the
engine's own diffs mask every variable of a container as soon as one is secret, and have shown old
secret values.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vllm_spark.changes.report import Step
from vllm_spark.changes.text import harmless
from vllm_spark.changes.trial_provider import TrialProvider, id_of, outputs_of, served, type_of
from vllm_spark.config.sections import NAMESPACE
from vllm_spark.errors import ChangesError

LIMIT_SECONDS = 300
"""For one preview, which takes 3 s on two cores."""

_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""The variables that the program gets; the caller's may hold secrets."""


class ProgramError(ChangesError):
    """The program failed, or took too long. The text is its last message."""


@dataclass(frozen=True)
class TrialState:
    """A throw-away state for any number of stacks, in `folder`."""

    folder: Path
    provider: TrialProvider
    attach: str
    passphrase: str = field(default_factory=secrets.token_hex, repr=False)

    def steps(self, stack: str, before: Path | None, after: Path) -> list[Step]:
        """What the engine would do with the stack's resources to get from one folder to another.

        Without `before`, everything is new. The folders hold the program and its stack files.
        ProgramError if the program fails.
        """
        self._init(before or after, stack)
        if before is not None:
            planned = self._preview(before, stack)
            state = self.folder / f"{stack}.json"
            state.write_text(json.dumps(self._deployment(planned)))
            self._pulumi(before, "stack", "import", "--stack", stack, "--file", str(state))
        return [step_of(step) for step in self._preview(after, stack)]

    def _init(self, folder: Path, stack: str) -> None:
        # Out of Pulumi's way: it refuses a file that holds the salt of another passphrase.
        file = folder / f"Pulumi.{stack}.yaml"
        written = file.read_text()
        file.unlink()
        self._pulumi(folder, "stack", "init", "--no-select", "--stack", stack)
        file.write_text(written)

    def _preview(self, folder: Path, stack: str) -> list[dict[str, Any]]:
        self._write_config(folder, stack)
        printed = self._pulumi(folder, "preview", "--json", "--stack", stack)
        steps: list[dict[str, Any]] = json.loads(printed)["steps"]
        return steps

    def _write_config(self, folder: Path, stack: str) -> None:
        """Replace the stack file by one whose secrets this state can decrypt."""
        file = folder / f"Pulumi.{stack}.yaml"
        config = yaml.safe_load(file.read_text())["config"]
        sealed = [
            f"{path}={value}" for key in config for path, value in _placeholders(key, config[key])
        ]
        file.write_text(yaml.safe_dump({"config": _readable(config)}))
        if sealed:
            options = [part for one in sealed for part in ("--secret", one)]
            self._pulumi(folder, "config", "set-all", "--stack", stack, "--path", *options)

    def _deployment(self, steps: list[dict[str, Any]]) -> dict[str, Any]:
        """A deployment of what a first preview would create."""
        defaults: dict[str, dict[str, Any]] = {}
        resources = []
        for step in steps:
            resource = dict(step["newState"])
            urn = resource["urn"]
            if reference := resource.get("provider"):
                provider = reference.rpartition("::")[0]
                resource["provider"] = f"{provider}::{id_of(provider)}"
                if provider.rpartition("::")[2].startswith("default"):
                    defaults[provider] = {
                        "urn": provider,
                        "type": type_of(provider),
                        "custom": True,
                        "id": id_of(provider),
                    }
            if resource["custom"]:
                resource["id"] = id_of(urn)
            if urn in self.provider.seen:
                # The engine's JSON masks secrets; the provider has seen the placeholders.
                resource["inputs"] = self.provider.seen[urn]
                resource["outputs"] = outputs_of(urn, resource["inputs"])
            resources.append(resource)
        return {
            "version": 3,
            "deployment": {
                "manifest": {"time": "2000-01-01T00:00:00Z", "magic": "", "version": ""},
                # The first one is the stack.
                "resources": [*resources[:1], *defaults.values(), *resources[1:]],
            },
        }

    def _pulumi(self, folder: Path, *arguments: str) -> str:
        environment = {
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            "HOME": str(self.folder),
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_BACKEND_URL": self.folder.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": self.passphrase,
            "PULUMI_DEBUG_PROVIDERS": self.attach,
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        try:
            ended = subprocess.run(
                ["pulumi", *arguments, "--non-interactive", "--color", "never"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProgramError(f"pulumi takes longer than {LIMIT_SECONDS} s") from None
        if ended.returncode != 0:
            raise ProgramError(_last_error(ended.stdout, ended.stderr))
        return ended.stdout


def step_of(told: Mapping[str, Any]) -> Step:
    """One step, from what the engine tells of it: operation, type and name, and nothing else."""
    urn = told["urn"]
    return Step(operation=told["op"], type=type_of(urn), name=urn.split("::", 3)[3])


@contextmanager
def trial_state(folder: Path) -> Iterator[TrialState]:
    """A throw-away state in an empty folder."""
    with served() as (provider, attach):
        yield TrialState(folder, provider, attach)


def _placeholders(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """A placeholder for each encrypted value, by its path in the config.

    It differs where the ciphertext differs, since the secret may differ.
    """
    if isinstance(value, Mapping) and "secure" in value:
        mark = hashlib.sha256(str(value["secure"]).encode()).hexdigest()[:12]
        whole = path == f"{NAMESPACE}:secretEnvironment"
        yield path, "{}" if whole else f"placeholder-{mark}"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _placeholders(f"{path}[{json.dumps(str(key))}]", inner)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _placeholders(f"{path}[{at}]", inner)


def _readable(value: Any) -> Any:
    """The value without what is encrypted."""
    if isinstance(value, Mapping):
        return {
            key: _readable(inner)
            for key, inner in value.items()
            if not (isinstance(inner, Mapping) and "secure" in inner)
        }
    return [_readable(inner) for inner in value] if isinstance(value, list) else value


def _last_error(printed: str, said: str) -> str:
    """The message of a failed run, without what Pulumi says around it."""
    try:
        found = json.loads(printed).get("diagnostics", [])
        errors = [one["message"] for one in found if one["severity"].startswith("error")]
    except (ValueError, AttributeError, KeyError):
        errors = []
    return harmless((errors[-1] if errors else said or printed).strip(), 900)
