"""The report in a run's artifact, which a pull request may have made: read, and never unpacked.

Whoever opens a pull request decides what its job uploads. So nothing of the archive reaches the
disk but the bytes of one entry, of limited size, and these are read as a report.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
import zlib
from pathlib import Path

from vllm_spark.changes.report import MOST_BYTES, Report, read_report
from vllm_spark.errors import ChangesError
from vllm_spark.github.api import Repository

NAME = "report"
"""Of the artifact that `preview.yml` uploads."""

ENTRY = "report.json"
"""Of the file in it."""


def report_of_run(repository: Repository, run: int) -> Report | None:
    """The newest report of this run; None if it has none. ChangesError if it is not a report."""
    found = repository.listed(f"actions/runs/{run}/artifacts", key="artifacts", name=NAME)
    artifacts = [one for one in found if one["name"] == NAME and not one["expired"]]
    if not artifacts:
        return None
    newest = max(artifacts, key=lambda one: int(one["id"]))
    return read_archive(
        repository.download(f"actions/artifacts/{int(newest['id'])}/zip", MOST_BYTES)
    )


def read_archive(archive: bytes) -> Report:
    """The report in a zip archive. ChangesError if there is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened, opened.open(ENTRY) as entry:
            content = entry.read(MOST_BYTES + 1)
    except (
        EOFError,
        KeyError,
        NotImplementedError,  # a compression that Python does not know
        RuntimeError,  # a password
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        raise ChangesError(f"the artifact {NAME} has no {ENTRY} that can be read") from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ENTRY
        file.write_bytes(content)
        return read_report(file)
