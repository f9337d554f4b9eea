"""Secrets are taken out of whatever is shown: logs, evidence, drift, differences of configs."""

from __future__ import annotations

import pytest

from vllm_spark.redaction import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "httpx.ProxyError: 407 from http://alice:hunter2@proxy:3128",
            "httpx.ProxyError: 407 from http://***@proxy:3128",
        ),
        ("proxy=socks5h://bob@host:1", "proxy=socks5h://***@host:1"),
        ("X-Api-Key: hunter2", "X-Api-Key: ***"),
        ('{"x-api-key": "hunter2", "n": 1}', '{"x-api-key": ***, "n": 1}'),
        ("x-auth-token=hunter2", "x-auth-token=***"),
        ("Authorization: hunter2", "Authorization: ***"),
        ("AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI/K7MDENG", "AWS_SECRET_ACCESS_KEY: ***"),
        ("MYSQL_PASSWORD=hunter2", "MYSQL_PASSWORD=***"),
        ("token glpat-hunter2hunter2", "token glpat-***"),
    ],
)
def test_a_secret_is_masked_in_the_form_in_which_programs_print_it(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "see user@host.example and http://host/path@v1",
        "max_tokens=5 token_count: 7, tokenizer='owner/name'",
        "GET http://127.0.0.1:8000/v1/models",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("part", ["-", "-a", "a.", "--a", "token", "secret", "://", "-eyJ", "'--"])
def test_a_line_of_any_length_is_read_once(part: str) -> None:
    """Repeated for each of its characters, this would not end before the test run is stopped."""
    line = part * 50_000
    assert redacted(line) == line
    assert redacted(f"{line} api_key=hunter2").endswith(" api_key=***")
