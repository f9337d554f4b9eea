"""Faults of a start, through the real Pulumi engine and the real Docker engine."""

from __future__ import annotations

import pytest

from tests.e2e.project import Project

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]


def test_a_server_that_answers_comes_up(project: Project) -> None:
    project.configure_fake({})
    up = project.up()
    assert up.code == 0, up.output
