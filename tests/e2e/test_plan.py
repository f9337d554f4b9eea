"""`vllm-spark plan --base REF` in a clone: the real engine at both versions, without a daemon.

A machine that reviews pull requests has no Docker, no state, and must not show its own secrets.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.e2e.clone import CANARY, Clone
from tests.e2e.recorded_reports import CHANGES, REPORTS, report_of
from vllm_spark.changes.report import Report

pytestmark = pytest.mark.e2e

PLAN = ".venv/bin/python -m vllm_spark plan"
"""`make` has exit codes of its own."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("plan"))


@pytest.fixture
def clone(kept: Clone) -> Clone:
    """The clone without the changes of another test."""
    kept.git("git reset -q --hard $(git rev-list --max-parents=0 HEAD) && git clean -fdq")
    return kept


def test_no_change_is_one_line_and_exit_code_0(clone: Clone) -> None:
    ran = clone.plan()
    assert ran.code == 0, ran.output
    assert ran.output.startswith("No stack changes from `HEAD (")
    assert len(ran.output.splitlines()) == 1


def test_a_changed_flag_is_told_with_its_downtime_and_numbers(clone: Clone) -> None:
    file = clone.directory / "Pulumi.spark.yaml"
    file.write_text(file.read_text().replace("max-num-seqs: 64", "max-num-seqs: 128"))
    before = file.read_text()
    ran = clone.run(f"{PLAN} --base HEAD || echo exit $?")
    assert "exit 2" in ran.output
    assert "| `engine.max-num-seqs` | `64` | `128` | `requests computed" in ran.output
    assert "replaced; how long it does not answer is not known" in ran.output
    assert "left to the host, GiB" in ran.output
    assert file.read_text() == before, "no line of a throw-away passphrase is left in it"


def test_a_file_with_the_salt_of_its_secrets_is_compared_without_their_passphrase(
    clone: Clone,
) -> None:
    file = clone.directory / "Pulumi.spark.yaml"
    salt = "v1:ZJMeakgMe3I=:v1:qgPPRLU3IblAxAxr:XEvZC5XYIsqS5yJXANqsOk+RTLgd8w=="
    key = "  vllm-spark:apiKey: {secure: 'v1:qgPPRLU3IblAxAxr:XEvZC5XYIsqS5yJXANqsOk+RTLgd8w=='}"
    file.write_text(f"{file.read_text()}{key}\nencryptionsalt: {salt}\n")
    clone.commit()
    file.write_text(file.read_text().replace("max-num-seqs: 64", "max-num-seqs: 128"))
    found = clone.report()
    assert found["spark"]["downtime"]["container"] == "replaced", found["spark"]["unknowns"]


def test_what_needs_no_new_container_is_updated_in_place(clone: Clone) -> None:
    clone.change("local", health={"timeoutSeconds": 60})
    clone.change("spark", container={"ulimits": {"memlock": -1, "stack": 67108864}})
    config = yaml.safe_load((clone.directory / "Pulumi.spark.yaml").read_text())["config"]
    clone.change("qwen3-32b", container={"restart": "no", **config["vllm-spark:container"]})
    found = clone.report()
    assert found["local"]["downtime"]["container"] == "unchanged"
    assert found["qwen3-32b"]["downtime"]["container"] == "updated"
    assert found["spark"]["downtime"]["container"] == "unchanged", "the defaults are the same"


@pytest.mark.parametrize("name", CHANGES)
def test_the_reports_of_the_documents_are_what_the_program_says_now(
    clone: Clone, name: str
) -> None:
    recorded = Report.model_validate_json((REPORTS / f"{name}.json").read_text())
    assert report_of(clone, name) == recorded, (
        "record them anew: .venv/bin/python -m tests.e2e.recorded_reports"
    )


def everything_that_is_kept(clone: Clone) -> str:
    """What a reviewing machine keeps: what it printed, and every file that the run has left."""
    before = {file for file in clone.directory.rglob("*") if ".git" not in file.parts}
    told = [clone.plan(), clone.plan("JSON=1")]
    left = [
        file.read_text(errors="replace")
        for file in clone.directory.rglob("*")
        if file.is_file() and ".git" not in file.parts and file not in before
    ]
    return "\n".join([*(ran.output for ran in told), *left])


def test_no_secret_of_any_place_is_shown_or_left(clone: Clone) -> None:
    clone.change("local", apiKey={"secure": f"v1:{CANARY}a"})
    clone.commit()
    clone.change(
        "local",
        apiKey={"secure": f"v1:{CANARY}b"},
        huggingFaceToken={"secure": f"v1:{CANARY}c"},
        secretEnvironment={"AWS_SECRET_ACCESS_KEY": {"secure": f"v1:{CANARY}d"}},
        container={
            "gpus": "none",
            "environment": {
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "WANDB_API_KEY": CANARY,
                "HTTPS_PROXY": f"http://user:{CANARY}@proxy:80",
            },
        },
    )
    kept = everything_that_is_kept(clone)
    assert "| `apiKey` | `(secret, encrypted as " in kept
    assert "replaced" in kept, "another ciphertext may be another secret"
    assert CANARY not in kept


HOSTILE = (
    "a\n## Approved\n`` ` @octocat <img src=x> ![x](https://example.com) $(touch owned) \x1b[2J"
)


def test_hostile_strings_stay_data(clone: Clone) -> None:
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "A": HOSTILE, "B": "x" * 1_000_000}
    clone.change("local", container={"gpus": "none", "environment": environment})
    clone.change("spark", model={"id": HOSTILE}, image=HOSTILE, engine={HOSTILE: HOSTILE})
    ran = clone.run(f"{PLAN} --base HEAD || echo exit $?")
    assert "exit 3" in ran.output
    assert "\n## Approved" not in ran.output
    assert "\x1b" not in ran.output
    assert len(ran.output) < 60_000
    assert not (clone.directory / "owned").exists()
    lines = [line for line in ran.output.splitlines() if "octocat" in line]
    assert lines
    for line in lines:
        assert "octocat" not in "".join(line.split("`")[::2]), "only in code"


def test_wrong_files_of_the_head_are_refused_and_those_of_the_base_are_told(clone: Clone) -> None:
    spark = clone.directory / "Pulumi.spark.yaml"
    good = spark.read_text()
    spark.write_text("config: {")
    clone.commit()
    spark.write_text(good)
    clone.git("ln -s /etc/passwd Pulumi.link.yaml")
    clone.git("git mv Pulumi.qwen3-32b.yaml Pulumi.dense.yaml && git rm -q Pulumi.llama33-70b.yaml")
    found = clone.report()
    assert found["link"]["status"] == "refused"
    assert "symbolic link" in found["link"]["newRefusals"][0]["what"]
    assert "root:" not in json.dumps(found)
    assert found["spark"]["status"] == "changed"
    assert "refused by this release" in found["spark"]["unknowns"][0]
    assert (found["dense"]["status"], found["dense"]["was"]) == ("renamed", "qwen3-32b")
    assert found["llama33-70b"]["status"] == "gone"


def test_two_stacks_that_claim_the_same_container_are_told(clone: Clone) -> None:
    clone.change("qwen3-32b", container={"name": "vllm-spark"})
    found = clone.report()["qwen3-32b"]
    names = [one for one in found["newWarnings"] if one["where"] == "vllm-spark:container.name"]
    assert "spark; on one host" in names[0]["what"]


WRONG_BASES = ["no-such-branch", "--output=owned", "HEAD:Pulumi.yaml", "''", "$'a\\nb'"]


@pytest.mark.parametrize("base", WRONG_BASES)
def test_a_base_that_is_no_commit_is_a_sentence_and_exit_code_1(clone: Clone, base: str) -> None:
    ran = clone.run(f"{PLAN} --base={base} || echo exit $?")
    assert "this repository has no commit" in ran.output
    assert "exit 1" in ran.output
    assert "Traceback" not in ran.output
    assert not (clone.directory / "owned").exists()


def test_the_bases_code_runs_only_where_that_is_allowed(clone: Clone) -> None:
    program = clone.directory / "__main__.py"
    good = program.read_text()
    program.write_text(f"{good}\nraise SystemExit('the base ran')\n")
    clone.commit()
    program.write_text(good)
    clone.change("local", health={"timeoutSeconds": 60})
    assert clone.report()["local"]["status"] == "changed"
    ran = clone.run(f"{PLAN} --base HEAD --run-base-code || echo exit $?")
    assert "The program could not be run" in ran.output
    assert "exit 1" in ran.output


def test_a_shallow_clone_names_the_command_that_fetches_the_base(
    clone: Clone, tmp_path: Path
) -> None:
    clone.commit()
    clone.git(f"git clone -q --depth=1 file://$PWD {tmp_path}/shallow")
    ran = clone.run(f"here=$PWD; cd {tmp_path}/shallow; $here/{PLAN} --base HEAD~1 || echo exit $?")
    assert "shallow" in ran.output
    assert "git fetch --depth=1" in ran.output
    assert "exit 1" in ran.output
