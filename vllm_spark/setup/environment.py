"""The environment in which plain `pulumi` finds its CLI, plugins, state and passphrase."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vllm_spark.project import ROOT, TOOLS
from vllm_spark.setup.pulumi_cli import OURS

STATE = ROOT / ".state"
"""The stacks' state and the passphrase of their secrets: worth a backup, not in git."""

PLUGIN_HOME = TOOLS / "pulumi-home"
"""PULUMI_HOME of a checkout that has ever taken the plugins of `offline/`."""


def exports(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables to add to the environment `given`, so that `pulumi` finds all it needs."""
    added: dict[str, str] = {
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # gRPC asks `https_proxy` even for the Pulumi engine and the plugins of this machine.
        "no_grpc_proxy": "127.0.0.1,localhost",
        # A stack file without a salt: Pulumi takes that of the state, and makes no new one.
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        **cli_on_path(given),
    }
    backend = given.get("PULUMI_BACKEND_URL") or _login()
    if backend is None:
        STATE.mkdir(mode=0o700, exist_ok=True)
        backend = STATE.as_uri()
    added["PULUMI_BACKEND_URL"] = backend
    if PLUGIN_HOME.exists():
        added["PULUMI_HOME"] = str(PLUGIN_HOME)
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & given.keys():
        added["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase())
    return added


def cli_on_path(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """PATH with the project's own CLI, if there is one."""
    ours = str(OURS / "bin")
    if (OURS / "bin" / "pulumi").exists() and ours not in given["PATH"].split(os.pathsep):
        return {"PATH": f"{ours}{os.pathsep}{given['PATH']}"}
    return {}


def has_backend() -> bool:
    """Whether a place for states was chosen, or made, before."""
    return "PULUMI_BACKEND_URL" in os.environ or _login() is not None or STATE.is_dir()


def _login() -> str | None:
    """The backend that `pulumi login` chose, if any."""
    home = Path(os.environ.get("PULUMI_HOME", "~/.pulumi")).expanduser()
    try:
        current = json.loads((home / "credentials.json").read_text()).get("current")
    except (OSError, ValueError):
        return None
    return current or None


def _passphrase() -> Path:
    """A file with a random passphrase, created once, readable only by its owner."""
    file = STATE / "passphrase"
    if not file.exists():
        STATE.mkdir(mode=0o700, exist_ok=True)
        # On a full disk a file is made and stays empty, and that would be an empty passphrase.
        whole = STATE / f"passphrase.{os.getpid()}"
        descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as output:
                output.write(secrets.token_urlsafe(32))
            with suppress(FileExistsError):  # another command was first
                file.hardlink_to(whole)
        finally:
            whole.unlink()
    return file
