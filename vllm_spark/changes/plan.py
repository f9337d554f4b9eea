"""Makes the report: two versions of the project, every stack that differs, one run for each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vllm_spark.changes.comparison import compare, findings
from vllm_spark.changes.conflicts import new_conflicts
from vllm_spark.changes.downtime import Records, downtime
from vllm_spark.changes.report import MOST_ENTRIES, MOST_STACKS, Downtime, Report, StackChange
from vllm_spark.changes.revisions import copy_commit, copy_working_tree
from vllm_spark.changes.stack_version import StackVersion, is_stack_file, stacks_in
from vllm_spark.changes.trial_run import ProgramError, TrialState, trial_state
from vllm_spark.errors import ChangesError
from vllm_spark.problems import Problem
from vllm_spark.project import ROOT

WORKING_TREE = "working tree"

_RUNS_AT_A_TIME = 2


def report_of(
    ref: str, commit: str, *, run_base_code: bool, records: Callable[[], Records]
) -> Report:
    """What differs between `commit`, which `ref` names, and the working tree.

    The code of the base runs only with `run_base_code`; else its stack files and `models/` are
    evaluated with the code of the working tree. ChangesError if they cannot be compared.
    """
    with tempfile.TemporaryDirectory(prefix="vllm-spark-plan-") as temporary:
        folders = [Path(temporary) / name for name in ("base", "head", "state")]
        base, head, state = folders
        for folder in folders:
            folder.mkdir()
        links = copy_working_tree(head, lambda _path: True)
        if run_base_code:
            base_links = copy_commit(commit, base, lambda _path: True)
        else:
            copy_working_tree(base, lambda path: not _is_data(path))
            base_links = copy_commit(commit, base, _is_data)
        for folder in (base, head):
            if (ROOT / ".venv").is_dir() and not (folder / ".venv").exists():
                (folder / ".venv").symlink_to(ROOT / ".venv")
        before, after = stacks_in(base, base_links), stacks_in(head, links)
        if len(before.keys() | after.keys()) > MOST_STACKS:
            raise ChangesError(f"there are more than {MOST_STACKS} stacks, which no report holds")
        same_world = not run_base_code and _contents(base) == _contents(head)
        with trial_state(state) as trial:
            comparison = _Comparison(before, after, base, head, trial, cache(records), same_world)
            stacks = comparison.changes()
    return Report(
        base=f"{ref} ({commit[:12]})",
        head=WORKING_TREE,
        base_code="base" if run_base_code else "head",
        stacks=stacks,
    )


def _is_data(path: str) -> bool:
    """Whether a file says what a stack is, without being code."""
    return is_stack_file(path) or path.startswith("models/")


def _contents(folder: Path) -> dict[str, bytes]:
    """What all stacks have in common: the shapes of models."""
    files = (file for file in (folder / "models").rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@dataclass(frozen=True)
class _Comparison:
    """Both versions of all stacks, and the folders they are in."""

    before: Mapping[str, StackVersion]
    after: Mapping[str, StackVersion]
    base: Path
    head: Path
    trial: TrialState
    records: Callable[[], Records]
    only_stack_files: bool
    """Whether a stack can differ only by its own file."""

    def changes(self) -> list[StackChange]:
        """The stacks that differ, in the order of their names."""
        renamed = self._renamed()
        names = sorted((self.before.keys() | self.after.keys()) - set(renamed.values()))
        with ThreadPoolExecutor(max_workers=_RUNS_AT_A_TIME) as pool:
            found = [*pool.map(lambda name: self._change(name, renamed.get(name)), names)]
        return [change for change in found if change is not None]

    def _renamed(self) -> dict[str, str]:
        """The old name of each new stack whose file is as that of a stack that is gone."""
        gone = {name: self.before[name] for name in self.before.keys() - self.after.keys()}
        old_names = {}
        for name in sorted(self.after.keys() - self.before.keys()):
            was = next((old for old in gone if gone[old].content == self.after[name].content), None)
            if was is not None and self.after[name].content:
                old_names[name] = was
                del gone[was]
        return old_names

    def _change(self, name: str, was: str | None) -> StackChange | None:
        """None if nothing differs."""
        before, after = self.before.get(was or name), self.after.get(name)
        if self.only_stack_files and was is None and _same(before, after):
            return None
        change = compare(before, after)
        if was is not None:
            change = change.model_copy(update={"was": was, "status": "renamed"})
            before = None
        if after is None:
            return _added(change, warnings=[_left_behind(name)])
        warnings = new_conflicts(after, self.before, self.after)
        if was is not None:
            warnings.append(_left_behind(was))
        change = _added(change, warnings=warnings)
        if after.refusals:
            return change
        can_run = before is not None and not (self.base / f"Pulumi.{name}.yaml").is_symlink()
        base = self.base if can_run and before is not None and before.content else None
        try:
            steps = self.trial.steps(name, base, self.head)
        except ProgramError as error:
            unknown = f"The program could not be run: {error}"
            return change.model_copy(
                update={
                    "status": "unknown",
                    "downtime": Downtime(container="unknown"),
                    "unknowns": [*change.unknowns, unknown],
                }
            )
        done = [step for step in steps if step.operation != "same"]
        if not done and not change.changes and not change.new_warnings and was is None:
            return None
        return change.model_copy(
            update={
                "steps": done[:MOST_ENTRIES],
                "downtime": downtime(steps, before, after, self.records),
            }
        )


def _same(before: StackVersion | None, after: StackVersion | None) -> bool:
    return before is not None and after is not None and before == after


def _added(change: StackChange, *, warnings: list[Problem]) -> StackChange:
    all_of_them = [*findings(warnings), *change.new_warnings][:MOST_ENTRIES]
    return change.model_copy(update={"new_warnings": all_of_them})


def _left_behind(stack: str) -> Problem:
    return Problem(
        f"Pulumi.{stack}.yaml",
        f"if stack {stack} is up, its server goes on, and no file describes it any more",
        f"make down STACK={stack} before the merge",
    )
