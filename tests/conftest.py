"""One Hypothesis profile for all tests: no verdict of theirs depends on how busy the machine is."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("vllm-spark", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vllm-spark")
