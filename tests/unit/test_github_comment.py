"""The comment on a pull request, against GitHub's API on loopback."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.fake_github import TOKEN, FakeGitHub, archive, serving
from vllm_spark.changes.report import ConfigChange, Report, StackChange
from vllm_spark.cli.main import main
from vllm_spark.errors import ChangesError
from vllm_spark.github.pull_request import MARKER

HEAD, OTHER = "a" * 40, "b" * 40
RUN = 4711
FORK = "somebody/models"


def report(*stacks: str, key: str = "engine.max-num-seqs") -> Report:
    changed = [ConfigChange(key=key, old="64", new="128")]
    return Report(
        base="main",
        head="working tree",
        stacks=[StackChange(name=name, status="changed", changes=changed) for name in stacks],
    )


def zipped(told: Report) -> bytes:
    return archive({"report.json": told.json_text()})


@pytest.fixture
def hub() -> Iterator[FakeGitHub]:
    """A repository with pull request 7 from a fork, whose run has reported a change."""
    hub = FakeGitHub()
    hub.add_run(RUN, head=HEAD, branch="more-requests", source=FORK)
    hub.add_pull(7, head=HEAD, branch="more-requests", source=FORK)
    hub.add_artifact(RUN, zipped(report("spark")))
    with serving(hub):
        yield hub


def run(hub: FakeGitHub, **environment: str | None) -> Result:
    """What the workflow runs."""
    command = ["github", "comment", f"--run={RUN}"]
    return CliRunner().invoke(main, command, env={**hub.environment, **environment})


def ours(hub: FakeGitHub, number: int = 7) -> str:
    """Our comment on a pull request."""
    (body,) = (
        one["body"] for one in hub.comments[number] if one["body"].startswith(MARKER + "\n###")
    )
    return str(body)


def test_a_pull_request_from_a_fork_gets_the_report_as_a_comment(hub: FakeGitHub) -> None:
    done = run(hub)
    assert done.exit_code == 0, done.output
    told = ours(hub)
    assert "`engine.max-num-seqs`" in told and "`128`" in told
    assert HEAD in told and f"https://github.com/team/models/actions/runs/{RUN}" in told


def test_the_comment_is_edited_by_the_next_run_and_left_alone_if_it_says_the_same(
    hub: FakeGitHub,
) -> None:
    run(hub)
    hub.add_artifact(RUN, zipped(report("spark", "local")))
    assert "is edited" in run(hub).output
    assert len(hub.comments[7]) == 1 and "`local`" in ours(hub)
    assert "is up to date" in run(hub).output
    assert hub.written == ["POST 7", "PATCH 700"]


@pytest.mark.parametrize("author", ["somebody", None, "github-actions"])
def test_a_comment_of_somebody_else_with_our_marker_is_not_touched(
    hub: FakeGitHub, author: str | None
) -> None:
    hub.add_comment(7, f"{MARKER}\nApproved!", author)
    run(hub)
    assert hub.comments[7][0]["body"] == f"{MARKER}\nApproved!"
    assert "`128`" in ours(hub)


def test_a_comment_of_another_workflow_is_not_ours(hub: FakeGitHub) -> None:
    hub.add_comment(7, f"Coverage: 85 %. It quotes {MARKER}")
    run(hub)
    assert len(hub.comments[7]) == 2


def test_every_page_is_read_until_ours_is_found(hub: FakeGitHub) -> None:
    hub.page_size = 2
    for number in range(100, 105):
        hub.add_pull(number, head=OTHER, branch="more-requests", source=FORK)
    hub.pulls.append(hub.pulls.pop(0))
    for at in range(5):
        hub.add_comment(7, f"comment {at}", "somebody")
    hub.add_comment(7, f"{MARKER}\n### old")
    done = run(hub)
    assert "pull request 7: the comment is edited" in done.output
    assert hub.asked.count("GET pulls") == 3 and hub.asked.count("GET issues/7/comments") == 3


@pytest.mark.parametrize(
    "pull",
    [
        {"head": OTHER, "branch": "more-requests", "source": FORK},
        {"head": HEAD, "branch": "more-requests", "source": FORK, "state": "closed"},
        {"head": HEAD, "branch": "other", "source": FORK},
        {"head": HEAD, "branch": "more-requests", "source": "stranger/models"},
        {"head": HEAD, "branch": "more-requests", "source": "somebody/copy-of-models"},
        {"head": HEAD, "branch": "more-requests", "source": None},
    ],
    ids=["moved on", "closed", "another branch", "another fork", "the owner's copy", "gone"],
)
def test_only_the_open_pull_request_with_this_head_is_written_to(
    hub: FakeGitHub, pull: dict[str, str]
) -> None:
    hub.pulls.clear()
    hub.add_pull(7, **pull)
    done = run(hub)
    assert done.exit_code == 0, done.output
    assert "no pull request" in done.output
    assert hub.written == []


def test_a_run_whose_fork_is_gone_is_nobodys(hub: FakeGitHub) -> None:
    hub.runs[RUN]["head_repository"] = None
    assert "no pull request" in run(hub).output
    assert hub.written == []


def test_of_two_pull_requests_with_one_head_each_run_writes_to_its_own(hub: FakeGitHub) -> None:
    hub.add_pull(8, head=HEAD, branch="same-commit", source="team/models")
    run(hub)
    assert "`128`" in ours(hub) and hub.comments[8] == []


def test_two_pull_requests_of_one_branch_are_not_told_apart_so_none_is_written_to(
    hub: FakeGitHub,
) -> None:
    hub.add_pull(8, head=HEAD, branch="more-requests", source=FORK)
    assert "more than one" in run(hub).output
    assert hub.written == []


def test_a_hostile_branch_is_data(hub: FakeGitHub) -> None:
    branch = "$(touch${IFS}ran)&state=all&head=team:main#`id`"
    hub.runs[RUN]["head_branch"] = branch
    hub.pulls.clear()
    hub.add_pull(7, head=HEAD, branch=branch, source=FORK)
    run(hub)
    assert "`128`" in ours(hub)


def test_without_changes_nothing_is_said_unless_an_older_comment_became_wrong(
    hub: FakeGitHub,
) -> None:
    first = hub.archives.copy()
    hub.add_artifact(RUN, zipped(report()))
    assert "nothing to say" in run(hub).output
    assert hub.comments[7] == []
    hub.artifacts[RUN].pop()
    assert first and "is written" in run(hub).output
    hub.add_artifact(RUN, zipped(report()))
    assert "is edited" in run(hub).output
    assert "No stack changes" in hub.comments[7][0]["body"]


def test_a_run_without_a_report_makes_an_older_comment_say_so(hub: FakeGitHub) -> None:
    run(hub)
    hub.artifacts[RUN][0]["expired"] = True
    hub.add_artifact(RUN, zipped(report("local")), name="report-of-another-job")
    assert run(hub).exit_code == 0
    assert "the job that makes it has failed" in hub.comments[7][0]["body"]


def test_a_report_larger_than_a_comment_is_cut_by_stack(hub: FakeGitHub) -> None:
    many = [f"stack-{at}-{'x' * 150}" for at in range(150)]
    hub.add_artifact(RUN, zipped(report(*many, key="k" * 200)))
    run(hub)
    told = ours(hub)
    assert 50_000 < len(told.encode()) < 61_000
    assert "stacks left out here" in told and all(f"| `{name}` |" in told for name in many)
    assert HEAD in told


def encrypted(content: str) -> bytes:
    """An archive that says of its entry that it needs a password."""
    made = bytearray(archive({"report.json": content}))
    made[6] |= 1
    made[made.index(b"PK\x01\x02") + 8] |= 1
    return bytes(made)


def bomb() -> bytes:
    """100 MB of spaces in 100 kB."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("report.json", b" " * 100_000_000)
    return made.getvalue()


def damaged() -> bytes:
    made = bytearray(zipped(report("spark")))
    made[60:80] = bytes(20)
    return bytes(made)


HOSTILE = {
    "no archive": b"GIF89a",
    "empty": b"",
    "another file": archive({"other.json": "{}"}),
    "a path out of the folder": archive({"../../report.json": "{}", "/report.json": "{}"}),
    "not JSON": archive({"report.json": "#!/bin/sh"}),
    "a list": archive({"report.json": "[]"}),
    "the number of another pull request": archive(
        {"report.json": report("spark").json_text().replace('"base"', '"pullRequest": 8, "base"')}
    ),
    "a number of stacks": archive(
        {"report.json": '{"schema": 1, "base": "a", "head": "b", "stacks": 3}'}
    ),
    "a password": encrypted("{}"),
    "a bomb": bomb(),
    "a damaged entry": damaged(),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_artifact_changes_nothing_but_our_comments_sentence(
    hub: FakeGitHub, content: bytes
) -> None:
    hub.add_pull(8, head=OTHER, branch="victim", source="team/models")
    run(hub)
    hub.add_artifact(RUN, content)
    failed = run(hub)
    assert failed.exit_code == 1
    assert "Traceback" not in failed.output and not isinstance(failed.exception, ValueError)
    assert "it is not what `vllm-spark plan --json` prints" in hub.comments[7][0]["body"]
    assert hub.comments[8] == []
    assert len(failed.output) < 1000


def test_an_artifact_beyond_the_limit_is_not_read_to_its_end(
    hub: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm_spark.github.artifact.MOST_BYTES", 100)
    failed = run(hub)
    assert failed.exit_code == 2
    assert "is larger than 100 bytes" in failed.output


def test_of_a_bomb_only_as_much_is_read_as_a_report_may_have(
    hub: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def refuse(file: Path) -> Report:
        sizes.append(file.stat().st_size)
        raise ChangesError("too large")

    monkeypatch.setattr("vllm_spark.github.artifact.read_report", refuse)
    hub.add_artifact(RUN, bomb())
    assert run(hub).exit_code == 1
    assert sizes == [20_000_001]


def test_mentions_links_and_html_of_a_report_are_code_in_the_comment(hub: FakeGitHub) -> None:
    hostile = "@team/admins [x](https://e.example) <img src=x> #1 `ls` -->"
    hub.add_artifact(RUN, zipped(report(hostile, key=hostile)))
    run(hub)
    for line in ours(hub).splitlines():
        outside = "".join(line.split("`")[::2])
        assert "@team" not in outside and "<img" not in outside and "e.example" not in outside


def test_the_token_stays_with_github_and_out_of_every_output(hub: FakeGitHub) -> None:
    done = run(hub)
    assert hub.download_headers and "Authorization" not in hub.download_headers
    assert TOKEN not in done.output and TOKEN not in ours(hub)


def test_a_server_error_is_asked_again_and_a_new_comment_is_not_written_twice(
    hub: FakeGitHub,
) -> None:
    hub.failures = [("GET", 502, {}), ("GET", 429, {"retry-after": "0"})]
    assert run(hub).exit_code == 0
    hub.comments[7].clear()
    hub.failures = [("POST", 500, {})]
    failed = run(hub)
    assert failed.exit_code == 2
    assert "500" in failed.output and "fix: run this job again" in failed.output
    assert hub.comments[7] == []


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000000"}, "at 22:13 UTC"),
        (403, {"retry-after": "60"}, "later"),
        (403, {}, "`permissions`"),
        (404, {}, "`permissions`"),
        (520, {}, "run this job again"),
    ],
)
def test_a_refusal_says_what_to_do(
    hub: FakeGitHub, status: int, headers: dict[str, str], words: str
) -> None:
    hub.failures = [("GET", status, headers)]
    failed = run(hub)
    assert failed.exit_code == 2
    assert words in failed.output and TOKEN not in failed.output


def test_an_answer_that_is_not_json_or_ends_early_is_no_answer(hub: FakeGitHub) -> None:
    hub.broken = "GET pulls"
    failed = run(hub)
    assert failed.exit_code == 2, failed.output
    assert "did not answer, or not in full" in failed.output
    hub.broken = "download"
    failed = run(hub)
    assert failed.exit_code == 2, failed.output
    assert "did not answer, or not in full" in failed.output
    assert hub.written == []


def test_github_that_does_not_answer_is_no_answer(hub: FakeGitHub) -> None:
    failed = run(hub, GITHUB_API_URL="http://127.0.0.1:9")
    assert failed.exit_code == 2
    assert "did not answer" in failed.output and "Traceback" not in failed.output


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "GITHUB_REPOSITORY"])
def test_outside_of_a_workflow_the_missing_variable_is_named(hub: FakeGitHub, name: str) -> None:
    failed = run(hub, **{name: None})
    assert failed.exit_code == 2
    assert f"{name} is not set" in failed.output
