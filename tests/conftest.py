"""The Hypothesis profile of all tests: no result depends on the machine's load."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("vllm-spark", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vllm-spark")
