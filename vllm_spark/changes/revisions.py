"""Copies two versions of the project into folders of their own: a commit, and the working tree.

Objects are read with git's plumbing. `git worktree` and `git archive` would also run hooks and
filters, and obey the attributes of the commit. Only plain files are copied, because a symbolic link
in a pull request may point at any file of the machine.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from vllm_spark.changes.text import harmless
from vllm_spark.errors import ChangesError
from vllm_spark.project import ROOT

_LINK = "120000"
"""Git's mode of a symbolic link."""


def resolve(ref: str) -> str:
    """The commit that `ref` names. ChangesError if there is none."""
    _git("rev-parse", "--git-dir")
    # Without --end-of-options, `ref` could be an option of git.
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    found = _ended(asked)
    if found.returncode == 0:
        return found.stdout.decode().strip()
    shown = harmless(ref, 100)
    if _git("rev-parse", "--is-shallow-repository").strip() == b"true":
        raise ChangesError(
            f"this clone has no commit {shown}, and it is shallow\n"
            "  fix: git fetch --depth=1 origin BRANCH, then --base FETCH_HEAD; in a workflow, "
            "`fetch-depth: 0` of actions/checkout"
        )
    raise ChangesError(
        f"this repository has no commit {shown}\n  fix: see `git branch --all`, or fetch it"
    )


def copy_commit(commit: str, folder: Path, wanted: Callable[[str], bool]) -> set[str]:
    """Copy the project's wanted files at a commit; returns its symbolic links, which stay out."""
    links, blobs = set(), {}
    for entry in filter(None, _git("ls-tree", "-r", "-z", commit).split(b"\0")):
        about, _, name = entry.partition(b"\t")
        mode, kind, blob = about.decode().split()
        path = name.decode(errors="surrogateescape")
        if mode == _LINK:
            links.add(path)
        elif kind == "blob" and wanted(path):
            blobs[path] = blob
    contents = io.BytesIO(_git("cat-file", "--batch", given="\n".join(blobs.values())))
    for path in blobs:
        size = int(contents.readline().split()[-1])
        _write(folder, path, contents.read(size))
        contents.read(1)
    return {link for link in links if wanted(link)}


def copy_working_tree(folder: Path, wanted: Callable[[str], bool]) -> set[str]:
    """The same for what git tracks, and for new files that it does not ignore."""
    links = set()
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in dict.fromkeys(filter(None, listed.split(b"\0"))):
        path = name.decode(errors="surrogateescape")
        file = ROOT / path
        if file.resolve() != ROOT.resolve() / path:  # it, or a folder above it, is a link
            links.add(path)
        elif wanted(path) and file.is_file():
            _write(folder, path, file.read_bytes())
    return {link for link in links if wanted(link)}


def _write(folder: Path, path: str, content: bytes) -> None:
    """Write one file below `folder`. Git refuses such names, but a crafted commit may have them."""
    if PurePosixPath(path).is_absolute() or {"..", ".git"} & set(PurePosixPath(path).parts):
        raise ChangesError(f"a file cannot be named {harmless(path, 100)}\n  fix: rename it")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _git(*arguments: str, given: str = "") -> bytes:
    """What git prints. ChangesError with its reason if it fails."""
    ended = _ended(arguments, given)
    if ended.returncode != 0:
        said = harmless(ended.stderr.decode(errors="replace").strip(), 300)
        raise ChangesError(
            f"git cannot read this project: {said}\n"
            "  fix: run this in a clone of the project's repository"
        )
    return ended.stdout


def _ended(arguments: Sequence[str], given: str = "") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, input=given.encode(), capture_output=True, check=False
        )
    except FileNotFoundError:
        raise ChangesError("there is no `git` here\n  fix: install git") from None
