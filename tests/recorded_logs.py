"""Recorded logs and texts of failures, and the lines that tests of the diagnosis write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vllm_spark.diagnosis.failures import CATALOGUE, Rank

DATA = Path(__file__).parent / "data"
LOGS = DATA / "logs"
TEXTS: list[dict[str, Any]] = yaml.safe_load((DATA / "failure_texts.yaml").read_text())

# Excerpts of starts of vLLM 0.26 on a GPU and 0.32 on a CPU, and the rule that explains each.
FAILED = {
    "address_space_limit": "address_space_limit",
    "architecture_unsupported": "architecture_unsupported",
    "config_not_json": "config_not_json",
    "cpu_engine_died": "engine_died",
    "cpu_engine_killed_while_serving": "engine_died",
    "cpu_flag_unknown": "flag_unknown",
    "cpu_hub_unreachable": "hub_unreachable",
    "cpu_kv_cache_too_large": "cpu_kv_cache_too_large",
    "cpu_kv_cache_too_small": "kv_cache_too_small",
    "cpu_process_killed": "process_killed",
    "cpu_shard_header_unreadable": "shard_header_unreadable",
    "cpu_tokenizer_missing": "tokenizer_missing",
    "cpu_weights_missing": "weights_missing",
    "engine_killed_while_serving": "engine_died",
    "flag_choice": "flag_choice",
    "flag_unknown_misspelt": "flag_unknown",
    "flag_unknown_removed": "flag_unknown",
    "flag_value": "flag_value",
    "gpu_memory_taken": "gpu_memory_taken",
    "gpu_not_visible_no_driver": "gpu_not_visible",
    "gpu_not_visible_none_selected": "gpu_not_visible",
    "gpu_out_of_memory": "gpu_out_of_memory",
    "hub_offline": "hub_offline",
    "hub_unreachable": "hub_unreachable",
    "kv_cache_none": "kv_cache_none",
    "length_beyond_positions": "length_beyond_positions",
    "load_format_unknown": "load_format_unknown",
    "model_path_missing": "model_path_missing",
    "model_without_config": "model_without_config",
    "port_taken": "port_taken",
    "quantization_config_missing": "quantization_config_missing",
    "quantization_mismatch": "quantization_mismatch",
    "reasoning_parser_unknown": "reasoning_parser_unknown",
    "shard_not_safetensors": "shard_not_safetensors",
    "shard_truncated": "shard_truncated",
    "tool_choice_without_parser": "tool_choice_without_parser",
    "tool_parser_unknown": "tool_parser_unknown",
    "weights_missing": "weights_missing",
    "world_size_above_gpus": "world_size_above_gpus",
}
HEALTHY = ["cpu_healthy_serving", "cpu_healthy_stopped", "healthy_serving", "healthy_stopped"]
ROOTS = {rule.id for rule in CATALOGUE if rule.rank is Rank.ROOT}
READY = "(APIServer pid=1) INFO:     Application startup complete."
BANNER = "(APIServer pid=1) INFO 11-01 10:00:00 [api_server.py:1] vLLM API server version 0.11.0"
ENGINE_DIES = [
    "(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700] EngineCore failed to start.",
    "(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700] Traceback (most recent call last):",
    '(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700]   File "/vllm/v1/core.py", line 1, in f',
    "(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700]     engine_core = EngineCoreProc()",
]


def engine_dies_of(exception: str) -> list[str]:
    head = "(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700] "
    return [*ENGINE_DIES, head + exception]


def lines_of(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text().splitlines()
