"""Records the state that this version's program writes, so that later versions are tested with it.

    .venv/bin/python -m tests.e2e.recorded_state

writes tests/data/state/<version>.json (the state, as `pulumi stack export` gives it) and, beside
it, its config: stack `local` with its cache and both secrets, served by the fake server. The
secrets are encrypted with the passphrase "test", and are not real.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import docker

from tests.e2e.fake_image import build_fake_image
from tests.e2e.project import ROOT, Project
from vllm_spark import __version__

RECORDED = ROOT / "tests" / "data" / "state"
STACK = "recorded"
SECRETS = {"apiKey": "not-a-real-key", "huggingFaceToken": "hf_not-a-real-token"}


def record(project: Project) -> None:
    """Deploy, and keep state and config under the name of this version."""
    project.configure_fake({})
    for key, value in SECRETS.items():
        _succeed(project, "config", "set", "--secret", f"vllm-spark:{key}", value)
    _succeed(project, "up", "--yes")
    RECORDED.mkdir(exist_ok=True)
    state = json.loads(_succeed(project, "stack", "export"))
    for resource in state["deployment"]["resources"]:
        # Paths of this machine to the code of the program and of Pulumi.
        resource.pop("sourcePosition", None)
        resource.pop("stackTrace", None)
    (RECORDED / f"{__version__}.json").write_text(json.dumps(state, indent=1) + "\n")
    shutil.copy(project.directory / f"Pulumi.{STACK}.yaml", RECORDED / f"{__version__}.yaml")


def restore(project: Project, version: str) -> None:
    """Make the project's stack that of the version."""
    shutil.copy(RECORDED / f"{version}.yaml", project.directory / f"Pulumi.{project.stack}.yaml")
    _succeed(project, "stack", "import", "--file", str(RECORDED / f"{version}.json"))


def _succeed(project: Project, *arguments: str) -> str:
    ended = project.pulumi(*arguments)
    if ended.code != 0:
        sys.exit(ended.output)
    return ended.output


if __name__ == "__main__":
    build_fake_image(docker.from_env())
    with tempfile.TemporaryDirectory() as directory:
        recorder = Project(Path(directory), STACK)
        try:
            record(recorder)
        finally:
            recorder.pulumi("destroy", "--yes")
