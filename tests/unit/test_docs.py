"""The documents say what the program does: what it writes into them, and what they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cogapp import Cog
from pydantic import BaseModel

from vllm_spark.cli.main import main
from vllm_spark.config.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
DOCUMENTS = [*(ROOT / page for page in PAGES), *sorted((ROOT / "docs").glob("*.md"))]
STACKS = {path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml")}


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_what_the_program_writes_into_a_document_is_what_it_says_now(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = Cog().main(["cog", "--check", "--diff", "-I", str(ROOT), str(document)])
    assert code == 0, f"run `make docs`:\n{capsys.readouterr().out}"


def test_a_link_leads_to_a_file_or_a_heading(document: Path) -> None:
    text = document.read_text()
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_a_make_target_that_is_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`|\$ )make (?:-s )?([a-z]+)", document.read_text(), re.MULTILINE)
    assert set(named) <= targets


def test_a_subcommand_that_is_named_exists(document: Path) -> None:
    named = re.findall(r"(?:^|`|\$ )vllm-spark ([a-z]+)", document.read_text(), re.MULTILINE)
    assert set(named) <= main.commands.keys()


def test_a_config_key_that_is_named_exists(document: Path) -> None:
    for key in re.findall(r"vllm-spark:([\w.-]*\w)", document.read_text()):
        model: type[BaseModel] = Settings
        for part in key.split("."):
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            assert part in fields, f"vllm-spark:{key}"
            annotation = fields[part].annotation
            if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
                break
            model = annotation


def test_a_stack_that_is_named_exists(document: Path) -> None:
    named = re.findall(r"(?:STACK=|--stack |[Ss]tack `)([a-z][\w-]*)", document.read_text())
    assert set(named) <= STACKS


def test_every_config_key_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "config.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"| `vllm-spark:{field.alias or name}` |" in reference
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            for part, detail in section.model_fields.items():
                assert f"| `{detail.alias or part}` |" in reference
                assert detail.description, f"{name}.{part} says in its description what it means"
