"""Runs the shell of a workflow's steps here, as a runner of GitHub Actions does on Linux.

Steps that use an action are left out: a test does what they would do. A step gets what its `env`
names and nothing else, so a token that a step was not given fails the test.

Source: docs.github.com/en/actions, "Workflow syntax": `jobs.<job_id>.steps[*].shell`, and
"Contexts reference".
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")


def read_workflow(text: str) -> dict[str, Any]:
    """A workflow; YAML reads its key `on` as True."""
    workflow: dict[Any, Any] = yaml.safe_load(text)
    return {"on" if key is True else key: value for key, value in workflow.items()}


def documented_workflows(page: Path) -> dict[str, str]:
    """The workflows that a page of the documents shows, by their names."""
    found = re.findall(r"```yaml\n(name: (\w+)\n.*?)```", page.read_text(), re.S)
    return {name: text for text, name in found}


def run_steps(
    job: Mapping[str, Any],
    *,
    folder: Path,
    contexts: Mapping[str, str],
    environment: Mapping[str, str],
    script: Path,
) -> subprocess.CompletedProcess[str]:
    """Run the shell steps in `folder`, up to the first that fails; returns the last one's end.

    `contexts` has the value of each expression in an `env`, `environment` what the runner gives to
    every step, and `script` is where a step's shell is written. AssertionError for an expression
    inside of the shell, where the value of a stranger would be code.
    """
    inherited = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    ended = None
    for step in job["steps"]:
        if "run" not in step:
            continue
        assert not _EXPRESSION.search(step["run"]), f"an expression is in the shell: {step['run']}"
        given = {
            name: _EXPRESSION.sub(lambda found: contexts[found[1]], text)
            for name, text in step.get("env", {}).items()
        }
        script.write_text(step["run"])
        ended = subprocess.run(
            ["bash", "-e", script],
            cwd=folder,
            env=inherited | dict(environment) | given,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            break
    assert ended is not None, "the job has no shell"
    return ended
