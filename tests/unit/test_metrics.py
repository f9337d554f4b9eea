"""The numbers of /metrics, under the names of each release."""

from __future__ import annotations

import pytest

from vllm_spark.gate.metrics import ServerMetrics, parse_metrics

NEW = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",kv_cache_size_tokens="956240",num_gpu_blocks="59765"} 1.0
"""
OLD = """\
vllm:num_requests_running{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0
"""


def test_requests_are_summed_over_engines_and_the_cache_is_told_in_tokens() -> None:
    assert parse_metrics(NEW) == ServerMetrics(3, 4, 0.25, 956240)


def test_an_old_releases_names_are_understood_and_its_blocks_counted() -> None:
    assert parse_metrics(OLD) == ServerMetrics(0, 0, 0.5, 1600)


def test_what_is_not_told_is_none() -> None:
    assert parse_metrics("") == ServerMetrics(None, None, None, None)


def test_a_page_that_is_no_metrics_is_refused() -> None:
    with pytest.raises(ValueError):
        parse_metrics("<html><body>not found</body></html>")
