"""One issue for each stack that runs otherwise than declared: opened, kept up to date, closed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from vllm_spark.changes.markdown import MOST_BYTES
from vllm_spark.changes.text import code, harmless
from vllm_spark.errors import GitHubError
from vllm_spark.github.api import BOT, Repository

_LONGEST_LINE = 500


class ServerDrift(BaseModel):
    """One server, as far as the issue tells of it."""

    server: str
    drift: list[str]


class StackDrift(BaseModel):
    """What `vllm-spark status --json` prints, as far as the issue tells of it."""

    stack: str
    servers: list[ServerDrift]

    @property
    def lines(self) -> list[str]:
        """A line of Markdown for each difference."""
        return [
            f"- {code(harmless(one.server, _LONGEST_LINE))}: {code(harmless(line, _LONGEST_LINE))}"
            for one in self.servers
            for line in one.drift
        ]


def read_drift(text: str) -> StackDrift:
    """The answer of `status --json`. GitHubError if it is none, which is not "no drift"."""
    try:
        return StackDrift.model_validate_json(text)
    except ValidationError:
        raise GitHubError(
            "the input is not what `vllm-spark status --json` prints, so the drift is not known\n"
            "  fix: see the message of that command"
        ) from None


def keep_issue(repository: Repository, found: StackDrift) -> str:
    """Open, edit or close the stack's issue; returns what was done."""
    name = harmless(found.stack, 100)
    marker = f"<!-- vllm-spark: drift of {name} -->"
    body = _body(marker, found)
    for issue in _ours(repository, marker):
        path = f"issues/{int(issue['number'])}"
        if not found.lines:
            repository.send("PATCH", path, {"state": "closed", "body": body})
            return f"no drift: issue {issue['number']} is closed"
        if issue["body"].strip() == body.strip():
            return f"issue {issue['number']} is up to date"
        repository.send("PATCH", path, {"body": body})
        return f"issue {issue['number']} is edited"
    if not found.lines:
        return "no drift"
    repository.send("POST", "issues", {"title": f"Stack {name} has drifted", "body": body})
    return "an issue is opened"


def _ours(repository: Repository, marker: str) -> list[dict[str, Any]]:
    issues = repository.listed("issues", state="open", creator=BOT)
    return [one for one in issues if "pull_request" not in one and _starts(one["body"], marker)]


def _starts(body: str | None, marker: str) -> bool:
    return (body or "").startswith(marker)


def _body(marker: str, found: StackDrift) -> str:
    stack = code(harmless(found.stack, 100))
    if not found.lines:
        return f"{marker}\nWhat runs is as stack {stack} declares.\n"
    lines = [marker, f"What runs differs from what stack {stack} declares:", ""]
    for line in found.lines:
        if sum(len(one.encode()) + 1 for one in (*lines, line)) > MOST_BYTES:
            lines.append("- and more: `vllm-spark status` shows all")
            break
        lines.append(line)
    return "\n".join([*lines, "", "`make up` puts it right.", ""])
