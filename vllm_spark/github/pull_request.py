"""The comment on a pull request: which one, whose comment, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm_spark.changes.markdown import markdown
from vllm_spark.changes.report import Report
from vllm_spark.github.api import BOT, Repository

MARKER = "<!-- vllm-spark: preview -->"
"""The first line of the comment, by which the next run finds it."""


@dataclass(frozen=True)
class Run:
    """A run of `preview.yml`, as GitHub itself describes it."""

    id: int
    head: str
    """The commit at the head of the pull request."""
    branch: str
    repository: str | None
    """The one that has the branch, which may be a fork; None if it is gone."""

    @classmethod
    def of(cls, told: dict[str, Any]) -> Run:
        """Read what the API tells."""
        source = told["head_repository"]
        name = source["full_name"] if source else None
        return cls(int(told["id"]), told["head_sha"], told["head_branch"], name)


def pull_request_of(repository: Repository, run: Run) -> int | None:
    """The number of the one open pull request whose head is the commit of this run; else None.

    None also for two that have the same branch: the run does not tell which of them it belongs to.
    """
    if run.repository is None:
        return None
    owner = run.repository.partition("/")[0]
    found = {
        int(one["number"])
        for one in repository.listed("pulls", state="open", head=f"{owner}:{run.branch}")
        if one["head"]["sha"] == run.head
        and one["head"]["repo"] is not None
        and one["head"]["repo"]["full_name"] == run.repository
    }
    return found.pop() if len(found) == 1 else None


def body_of(content: Report | str, run: Run, page: str) -> str:
    """The comment's text. `content` is the report, or a sentence of ours that says why none.

    `page` is the repository's, on the web.
    """
    told = content if isinstance(content, str) else markdown(content)
    log = f"{page}/actions/runs/{run.id}"
    return f"{MARKER}\n{told}\nOf commit {run.head}, by [this run]({log}).\n"


def comment(repository: Repository, pull_request: int, body: str, *, new: bool) -> str:
    """Edit our comment, or write one if there is none and `new`; returns what was done."""
    for one in repository.listed(f"issues/{pull_request}/comments"):
        if one["user"] and one["user"]["login"] == BOT and one["body"].startswith(MARKER):
            if one["body"].strip() == body.strip():
                return "the comment is up to date"
            repository.send("PATCH", f"issues/comments/{int(one['id'])}", {"body": body})
            return "the comment is edited"
    if not new:
        return "nothing to say"
    repository.send("POST", f"issues/{pull_request}/comments", {"body": body})
    return "a comment is written"
