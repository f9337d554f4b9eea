"""The issue form asks for what a problem can be understood from, and GitHub can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

FORMS = Path(__file__).resolve().parents[2] / ".github" / "ISSUE_TEMPLATE"


@pytest.fixture
def form() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FORMS / "problem.yml").read_text())
    return found


@pytest.fixture
def fields(form: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part["id"]: part for part in form["body"] if "id" in part}


def test_it_has_the_parts_that_github_wants(form: dict[str, Any]) -> None:
    assert form["name"] and form["description"]
    for part in form["body"]:
        assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"].get("value" if part["type"] == "markdown" else "label")


def test_it_asks_for_the_diagnosis_versions_and_the_host(
    fields: dict[str, dict[str, Any]],
) -> None:
    for name, command in {
        "diagnosis": "vllm-spark diagnose --json",
        "versions": "vllm-spark --version",
        "host": "nvidia-smi",
    }.items():
        assert command in fields[name]["attributes"]["description"]
        assert fields[name]["validations"]["required"] is True


def test_it_asks_to_keep_secrets_back(form: dict[str, Any]) -> None:
    first = form["body"][0]["attributes"]["value"]
    assert "tokens, keys and" in first
    assert "SECURITY.md" in first
    assert (FORMS.parents[1] / "SECURITY.md").is_file()


def test_the_chooser_leads_faults_of_vllm_to_vllm() -> None:
    links = yaml.safe_load((FORMS / "config.yml").read_text())["contact_links"]
    assert all(link.keys() == {"name", "url", "about"} for link in links)
    assert links[0]["url"] == "https://github.com/vllm-project/vllm/issues"
