"""The parts in their order, for those who need all of them."""

from __future__ import annotations

import os

from bootstrap.docker_engine import ensure_docker
from bootstrap.engine_image import IMAGE, ensure_engine_image
from bootstrap.environment import exports
from bootstrap.plugins import ensure_plugins
from bootstrap.pulumi_cli import ensure_cli
from bootstrap.small_model import MODEL_ID, ensure_small_model
from bootstrap.steps import ROOT
from engine.settings import Settings, load_stack


def ensure_pulumi() -> None:
    """CLI and plugins, and this process's environment set so that both are found."""
    ensure_cli()
    os.environ.update(exports())
    ensure_plugins()
    os.environ.update(exports())


def ensure_parts_of(settings: Settings) -> None:
    """A Docker engine, and what of `settings` can be made where it cannot be downloaded."""
    ensure_docker()
    if settings.image.name == IMAGE:
        ensure_engine_image()
        if settings.model.id == MODEL_ID:
            ensure_small_model(settings.cache.source)


def ensure_everything() -> None:
    """All that stack `local` needs."""
    ensure_pulumi()
    ensure_parts_of(load_stack(ROOT / "Pulumi.local.yaml"))
