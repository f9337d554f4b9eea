"""Which flags a vLLM release has, and what is said about one that it has not."""

from __future__ import annotations

from typing import get_args

import pytest

from vllm_spark.flags.history import CHOICES, KNOWN, NEWEST, Kind, check_existence
from vllm_spark.images import Version
from vllm_spark.problems import Problem

WHERE = "vllm-spark:engine.some-flag"


def errors(name: str, version: str) -> list[Problem]:
    return check_existence(name, WHERE, Version.parse(version))[0]


def warnings(name: str, version: str | None) -> list[Problem]:
    return check_existence(name, WHERE, Version.parse(version) if version else None)[1]


def test_every_entry_of_the_table_has_a_kind_and_dates_in_order() -> None:
    for name, flag in KNOWN.items():
        assert flag.kind in get_args(Kind), name
        assert flag.added is None or flag.added <= NEWEST, name
        assert flag.removed is None or flag.removed <= NEWEST, name
        assert flag.added is None or flag.removed is None or flag.added < flag.removed, name


def test_every_successor_is_a_flag_that_still_lives() -> None:
    for name, flag in KNOWN.items():
        if flag.successor is not None:
            assert KNOWN[flag.successor.split(".")[0]].removed is None, name


def test_the_guides_flags_live_in_every_release() -> None:
    for name in (
        "max-model-len",
        "gpu-memory-utilization",
        "max-num-batched-tokens",
        "max-num-seqs",
        "enable-prefix-caching",
        "trust-remote-code",
        "download-dir",
    ):
        assert (KNOWN[name].added, KNOWN[name].removed) == (None, None)


@pytest.mark.parametrize(
    ("name", "last", "first_without"),
    [
        ("max-seq-len-to-capture", "0.10.2", "0.11.0"),
        ("rope-scaling", "0.11.0", "0.11.1"),
        ("guided-decoding-backend", "0.11.2", "0.12.0"),
        ("task", "0.12.0", "0.13.0"),
        ("cuda-graph-sizes", "0.12.0", "0.13.0"),
        ("disable-log-requests", "0.16.0", "0.17.0"),
        ("swap-space", "0.17.1", "0.18.0"),
        ("calculate-kv-scales", "0.27.1", "0.28.0"),
    ],
)
def test_a_removed_flag_is_an_error_from_the_first_release_without_it(
    name: str, last: str, first_without: str
) -> None:
    assert errors(name, last) == []
    (problem,) = errors(name, first_without)
    assert f"removed this flag in {first_without}" in problem.what
    assert problem.where == WHERE


@pytest.mark.parametrize(
    ("name", "last_without", "first"),
    [
        ("kv-cache-memory-bytes", "0.10.1.1", "0.10.2"),
        ("structured-outputs-config", "0.10.2", "0.11.0"),
        ("nnodes", "0.11.0", "0.11.1"),
        ("kv-offloading-size", "0.11.0", "0.11.1"),
        ("optimization-level", "0.11.2", "0.12.0"),
        ("attention-backend", "0.12.0", "0.13.0"),
        ("moe-backend", "0.16.0", "0.17.0"),
        ("shutdown-timeout", "0.17.1", "0.18.0"),
    ],
)
def test_a_flag_from_a_later_release_is_an_error_that_names_the_release(
    name: str, last_without: str, first: str
) -> None:
    assert errors(name, first) == []
    (problem,) = errors(name, last_without)
    assert f"since {first}" in problem.what
    assert f"vLLM {first} or newer" in problem.fix


def test_a_removed_flag_is_fixed_with_its_successor() -> None:
    (problem,) = errors("guided-decoding-backend", "0.28.0")
    assert problem.fix == "write structured-outputs-config.backend instead"


def test_a_removed_flag_without_successor_is_fixed_by_removing_it_with_the_reason() -> None:
    (problem,) = errors("swap-space", "0.28.0")
    assert problem.fix.startswith("remove it; the V1 engine")


def test_a_successor_that_this_release_does_not_have_yet_is_not_recommended() -> None:
    (problem,) = errors("max-seq-len-to-capture", "0.11.0")
    assert problem.fix.startswith("remove it")


def test_a_new_flag_on_an_old_image_is_fixed_with_the_name_it_had_there() -> None:
    (problem,) = errors("cudagraph-capture-sizes", "0.10.1.1")
    assert problem.fix.startswith("write cuda-graph-sizes")


def test_a_part_of_a_json_flag_is_looked_up_by_the_flag() -> None:
    assert errors("structured-outputs-config.backend", "0.11.0") == []
    (problem,) = errors("structured-outputs-config.backend", "0.10.2")
    assert problem.fix.startswith("write guided-decoding-backend")


def test_an_unknown_flag_is_only_warned_of_with_the_nearest_name() -> None:
    assert errors("max-model-length", "0.28.0") == []
    (warning,) = warnings("max-model-length", "0.28.0")
    assert "image's own parser decides" in warning.what
    assert "max-model-len" in warning.fix


def test_the_nearest_name_is_one_that_the_release_has() -> None:
    (warning,) = warnings("swap-spaces", "0.28.0")
    assert "swap-space" not in warning.fix


def test_without_a_release_a_removed_flag_is_a_warning_and_a_new_one_is_nothing() -> None:
    (warning,) = warnings("swap-space", None)
    assert "0.18.0" in warning.what
    assert check_existence("moe-backend", WHERE, None) == ([], [])
    assert check_existence("swap-space", WHERE, None)[0] == []


def test_the_words_of_a_flag_are_no_newer_than_the_table() -> None:
    assert all(added <= NEWEST for words in CHOICES.values() for added in words.values())
    assert set(CHOICES) <= set(KNOWN)
