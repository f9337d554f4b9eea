"""How the benchmarks tell what they measured. The measuring itself is not timed by tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.__main__ import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_its_place_in_the_document(name: str) -> None:
    document = report.DOCUMENT.read_text()
    assert f"<!-- {name} -->\n" in document
    assert f"<!-- end of {name} -->" in document


def test_a_recorded_result_takes_the_place_of_the_last_one_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("before\n<!-- swap -->\nold\n<!-- end of swap -->\nafter\n")
    monkeypatch.setattr(report, "DOCUMENT", document)
    report.record("swap", "new")
    assert document.read_text() == "before\n<!-- swap -->\nnew\n<!-- end of swap -->\nafter\n"


def test_a_spread_is_the_median_with_the_least_and_the_most() -> None:
    assert report.spread([0.3, 0.1, 0.14]) == "0.14 (0.10 to 0.30)"
    assert report.spread([1234.5], 0) == "1,234"


def test_words_of_a_program_stay_within_their_cell() -> None:
    assert report.quoted("exited (1) | twice\nover", 15) == "`exited (1) \\| …`"
