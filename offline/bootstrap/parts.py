"""Prepares what stack `local` needs besides Pulumi and Docker."""

from __future__ import annotations

from offline.bootstrap.small_model import MODEL_ID, ensure_small_model
from offline.bootstrap.vllm_image import IMAGE, ensure_cpu_image
from vllm_spark.config.settings import Settings


def ensure_parts_of(settings: Settings) -> None:
    """Provide the CPU image and the small model, if these settings use them."""
    if settings.image.name == IMAGE:
        ensure_cpu_image()
        if settings.model.id == MODEL_ID:
            ensure_small_model(settings.cache.source)
