"""A shell that is told to use a proxy: nothing on this machine is asked through it."""

from __future__ import annotations

import pytest

from tests.e2e.project import Project

pytestmark = pytest.mark.e2e

NOBODY = "http://127.0.0.1:1"
"""A proxy at which every request fails."""


def test_pulumi_its_plugins_the_daemon_and_the_server_are_asked_without_a_proxy(
    project: Project, fake_image: str
) -> None:
    for scheme in ("http", "https", "all"):
        project.environment |= {f"{scheme}_proxy": NOBODY, f"{scheme.upper()}_PROXY": NOBODY}
    project.configure_fake({})
    up = project.up()
    assert up.code == 0, up.output
    assert project.answers()
