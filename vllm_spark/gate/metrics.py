"""Reads a running server's /metrics, under all the names that vLLM has used."""

from __future__ import annotations

from dataclasses import dataclass

import requests
from prometheus_client.parser import text_string_to_metric_families

from vllm_spark.gate.http import direct, within

PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class ServerMetrics:
    """Requests, share of the KV cache in use (0 to 1), its size in tokens. None: not reported."""

    running: float | None
    waiting: float | None
    kv_used: float | None
    kv_tokens: int | None


def read_metrics(base_url: str) -> ServerMetrics | None:
    """Read the metrics of the server at `base_url` (ending in /v1); None if it does not answer."""

    def ask() -> ServerMetrics | None:
        try:
            url = base_url.removesuffix("/v1") + "/metrics"
            return parse_metrics(direct().get(url, timeout=PATIENCE_SECONDS).text)
        except (requests.RequestException, ValueError):
            return None

    return within(2 * PATIENCE_SECONDS, ask)


def parse_metrics(text: str) -> ServerMetrics:
    """Read Prometheus' text format, summed over engines. ValueError if it is something else."""
    sums: dict[str, float] = {}
    cache: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("vllm:")
            sums[name] = sums.get(name, 0) + sample.value
            if name == "cache_config_info":
                cache = sample.labels
    return ServerMetrics(
        running=sums.get("num_requests_running"),
        waiting=sums.get("num_requests_waiting"),
        # The second name is that before 0.12.
        kv_used=sums.get("kv_cache_usage_perc", sums.get("gpu_cache_usage_perc")),
        kv_tokens=_kv_tokens(cache),
    )


def _kv_tokens(cache: dict[str, str]) -> int | None:
    """Newer releases report the tokens (seen in 0.26), all report blocks and their size."""
    try:
        if "kv_cache_size_tokens" in cache:
            return int(cache["kv_cache_size_tokens"])
        return int(cache["num_gpu_blocks"]) * int(cache["block_size"])
    except (KeyError, ValueError):
        return None
