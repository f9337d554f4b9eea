"""The failure catalogue and the verdict: from real logs, other versions' forms, and mutations."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli import vllm_spark
from vllm_spark.diagnosis.failures import CATALOGUE, EXIT_CODES, Rank
from vllm_spark.diagnosis.verdict import Diagnosis, LogDiagnosis, diagnose

DATA = Path(__file__).parent.parent / "data"
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


# --- the catalogue ---


@pytest.mark.parametrize(("name", "rule"), FAILED.items())
def test_a_real_failed_start_is_explained_by_its_rule(name: str, rule: str) -> None:
    found = diagnose(lines_of(name))
    assert (found.verdict, found.rule) == ("failed", rule)
    assert found.cause and found.fix and found.evidence
    if rule != "process_killed":  # there the line that points elsewhere holds the signal
        assert "See root cause above" not in " ".join(found.evidence)


@pytest.mark.parametrize(("name", "rule"), FAILED.items())
def test_a_saved_log_needs_neither_its_header_nor_its_footer(name: str, rule: str) -> None:
    lines = [line for line in lines_of(name) if not line.startswith("# ")]
    assert diagnose(lines).rule == rule


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{text['rule']}: {text['from']}")
def test_a_known_text_is_explained_by_its_rule(text: dict[str, Any]) -> None:
    found = diagnose(text["log"].splitlines())
    assert (found.verdict, found.rule) == ("failed", text["rule"])
    assert text.get("cause", "") in found.cause
    assert text.get("fix", "") in found.fix


def test_every_rule_has_a_text_in_which_it_was_seen() -> None:
    files = ("failure_texts.yaml", "cases/logs.yaml", "cases/public.yaml")
    seen = [text["rule"] for name in files for text in yaml.safe_load((DATA / name).read_text())]
    assert {rule.id for rule in CATALOGUE} == set(filter(None, seen))


def test_every_rule_names_its_source_and_what_to_do() -> None:
    for rule in CATALOGUE:
        assert rule.cause and rule.fix and rule.source, rule.id


@pytest.mark.parametrize(
    ("name", "cause", "fix"),
    [
        ("length_beyond_positions", "500000 is beyond the model's 262144", "at most 262144"),
        ("gpu_memory_taken", "68.68 of 139.8 GiB are free", "at most 0.49"),
        ("kv_cache_none", "3.32 GiB short after 29.13 GiB of weights", "above 0.20"),
        ("gpu_out_of_memory", "2.71 GiB more, 317.12 MiB free", "kv-cache-memory-bytes (130G)"),
        ("address_space_limit", "594.00 MiB while 125.57 GiB", "ulimit -v"),
        ("port_taken", "port 8099", "endpoint.port"),
        ("flag_unknown_misspelt", "--max-model-length2", "write max-model-len"),
        ("flag_unknown_removed", "--swap-space 4", "vLLM 0.18.0 removed it"),
        ("flag_unknown_removed", "--disable-log-requests", "disable-log-requests: "),
        ("flag_value", "EOF while parsing an object", "--compilation-config"),
        ("model_path_missing", "/models/does-not-exist does not exist", "mount"),
        ("quantization_config_missing", "w2_weight_scale_inv", "config.json"),
        ("architecture_unsupported", "vLLM 0.26.0 cannot run the architecture 'Foo", "newer image"),
        ("hub_unreachable", "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8 is not in the cache", "network"),
        ("world_size_above_gpus", "ask for 2 GPUs, this node has 1", "tensor-parallel-size"),
    ],
)
def test_cause_and_fix_name_the_values_of_the_log(name: str, cause: str, fix: str) -> None:
    found = diagnose(lines_of(name))
    assert cause in found.cause
    assert fix in found.fix


@given(free=st.floats(1, 100), total=st.floats(110, 140), util=st.floats(0.85, 0.99))
def test_the_suggested_utilization_always_fits(free: float, total: float, util: float) -> None:
    found = diagnose(
        engine_dies_of(
            f"ValueError: Free memory on device cuda:0 ({free:.2f}/{total:.2f} GiB) on startup is"
            f" less than desired GPU memory utilization ({util:.2f}, {util * total:.2f} GiB)."
        )
    )
    suggested = float(found.fix.rpartition(" ")[2])
    assert suggested * float(f"{total:.2f}") <= float(f"{free:.2f}") + 1e-9


@given(asked=st.integers(64, 10**6), need=st.floats(1.1, 400), share=st.floats(0.01, 0.99))
def test_the_suggested_length_is_shorter_than_the_refused_one(
    asked: int, need: float, share: float
) -> None:
    found = diagnose(
        engine_dies_of(
            f"ValueError: To serve at least one request with the model's max seq len ({asked}),"
            f" ({need:.2f} GiB KV cache is needed, which is larger than the available KV cache"
            f" memory ({need * share:.2f} GiB)."
        )
    )
    suggested = int(re.findall(r"at most (\d+)", found.fix)[0])
    assert suggested < asked
    assert suggested % 16 == 0


@given(tried=st.floats(0.1, 60), free=st.floats(0.05, 120))
def test_out_of_memory_with_much_free_is_a_limit_on_the_process(tried: float, free: float) -> None:
    found = diagnose(
        engine_dies_of(
            f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {tried:.2f} GiB. GPU 0"
            f" has a total capacity of 121.69 GiB of which {free:.2f} GiB is free."
        )
    )
    tried, free = round(tried, 2), round(free, 2)
    limited = free > 4 * tried and free > tried + 1
    assert found.rule == ("address_space_limit" if limited else "gpu_out_of_memory")


# --- the verdict ---


@pytest.mark.parametrize("name", HEALTHY)
def test_a_server_that_served_is_healthy(name: str) -> None:
    found = diagnose(lines_of(name))
    assert (found.verdict, found.fix) == ("healthy", "")


@pytest.mark.parametrize("name", ["healthy_stopped", "cpu_healthy_stopped"])
def test_a_healthy_server_that_was_stopped_says_so(name: str) -> None:
    found = diagnose(lines_of(name))
    assert "until it was stopped" in found.cause
    assert "shutdown triggered" in found.evidence[0]


def test_a_server_killed_because_its_stop_took_too_long_says_so() -> None:
    found = diagnose(lines_of("healthy_stopped"), exit_code=137)
    assert found.verdict == "healthy"
    assert "stop timeout" in found.cause


def test_a_start_that_is_under_way_is_unknown_and_names_its_phase() -> None:
    found = diagnose(lines_of("unfinished_compiling"))
    assert found.verdict == "unknown"
    assert "compiling" in found.cause


def test_a_dead_engine_with_exit_code_0_is_a_failure() -> None:
    lines = lines_of("engine_killed_while_serving")
    assert lines[-1].startswith("# exit 0")
    found = diagnose(lines)
    assert found.verdict == "failed"
    assert found.cause.startswith("it served, then died")


def test_exit_code_0_during_the_start_is_a_failure() -> None:
    found = diagnose(lines_of("unfinished_compiling"), exit_code=0)
    assert found.verdict == "failed"
    assert "exit code 0" in found.cause and "compiling" in found.cause


def test_exit_code_0_after_serving_without_a_word_is_unknown() -> None:
    assert diagnose([BANNER, READY], exit_code=0).verdict == "unknown"


@pytest.mark.parametrize("code", [137, -9])
def test_a_kill_without_a_line_is_taken_for_want_of_memory(code: int) -> None:
    lines = [*lines_of("unfinished_compiling")[:-1], f"# exit {code} after 50 s"]
    found = diagnose(lines)
    assert found.verdict == "failed"
    assert "memory" in found.cause and "compiling" in found.cause


def test_oom_killed_is_told_with_certainty() -> None:
    found = diagnose(lines_of("unfinished_compiling"), exit_code=137, oom_killed=True)
    assert found.cause.startswith("killed for memory")


def test_a_cause_in_the_log_is_not_hidden_by_the_kill_that_followed() -> None:
    found = diagnose(lines_of("kv_cache_none"), exit_code=137)
    assert found.rule == "kv_cache_none"


@pytest.mark.parametrize("code", EXIT_CODES)
def test_every_known_exit_code_is_explained(code: int) -> None:
    found = diagnose([BANNER], exit_code=code)
    assert (found.verdict, found.rule) == ("failed", "")
    assert found.cause.startswith(EXIT_CODES[code][0])


def test_a_start_that_somebody_stopped_is_no_failure_of_vllm() -> None:
    found = diagnose(lines_of("cpu_stopped_while_starting"))
    assert found.verdict == "failed"
    assert found.cause.startswith("the start was stopped from outside")


def test_a_failure_without_a_rule_is_quoted_and_called_unknown() -> None:
    found = diagnose(
        [*engine_dies_of("FrobnicationError: no frobs in the flux"), "# exit 1 after 20.0 s"]
    )
    assert (found.verdict, found.rule) == ("failed", "")
    assert "not in the catalogue" in found.cause
    assert "FrobnicationError: no frobs in the flux" in found.cause
    assert "FrobnicationError" in found.evidence[0]


def test_an_end_that_is_announced_without_a_reason_is_a_failure() -> None:
    found = diagnose([BANNER, *ENGINE_DIES])
    assert (found.verdict, found.rule) == ("failed", "engine_died")


def test_an_error_that_may_not_have_been_the_end_is_unknown() -> None:
    found = diagnose(
        [
            BANNER,
            "(APIServer pid=1) ERROR 11-01 10:00:01 [a.py:1] Traceback (most recent call last):",
            '(APIServer pid=1) ERROR 11-01 10:00:01 [a.py:1]   File "a.py", line 1, in probe',
            "(APIServer pid=1) ERROR 11-01 10:00:01 [a.py:1] FrobnicationError: no frobs",
        ]
    )
    assert found.verdict == "unknown"
    assert "FrobnicationError" in found.cause


def test_an_exit_without_any_word_shows_the_last_lines() -> None:
    found = diagnose([BANNER, "(APIServer pid=1) INFO 11-01 10:00:01 [a.py:1] hello"], exit_code=1)
    assert "unknown failure: it ended with exit code 1" in found.cause
    assert "hello" in found.evidence[-1]


@pytest.mark.parametrize(
    "log",
    [
        [],
        ["", "  "],
        ["Dear diary,", "today nothing failed."],
        [
            "Traceback (most recent call last):",
            '  File "/app/manage.py", line 22, in <module>',
            "    main()",
            "ImproperlyConfigured: The SECRET_KEY setting must not be empty.",
        ],
    ],
)
def test_what_is_no_log_of_vllm_is_unknown(log: list[str]) -> None:
    assert diagnose(log).verdict == "unknown"


# --- what is no cause ---


@pytest.mark.parametrize(
    "line",
    [
        "# argv: vllm serve m --api-key x --note 'CUDA out of memory. Tried to allocate 1.00 GiB'",
        "(APIServer pid=1) INFO 11-01 10:00:00 [utils.py:1] non-default args: {'model': 'm', "
        "'note': 'No available memory for the cache blocks'}",
        "(APIServer pid=1) WARNING 11-01 10:00:00 [a.py:1] To avoid CUDA out of memory. Tried to "
        "allocate 1.00 GiB, lower max_num_seqs",
        "(APIServer pid=1) WARNING 11-01 10:00:00 [system_utils.py:299] fd limit errors like "
        "`OSError: [Errno 24] Too many open files`",
        "Found ulimit of 20000. This can cause fd limit errors like `OSError: [Errno 24] Too many "
        "open files`",
        "(APIServer pid=1) '(ReadTimeoutError(\"HTTPSConnectionPool(host='huggingface.co', "
        "port=443): Read timed out.\"), '(Request ID: 7)')' thrown while requesting HEAD "
        "https://huggingface.co/Qwen/Qwen3-8B/resolve/main/config.json",
        "(APIServer pid=1) '[Errno -3] Temporary failure in name resolution' thrown while "
        "requesting HEAD https://huggingface.co/Qwen/Qwen3-8B/resolve/main/config.json",
        "[rank0]:[W1123 21:01:55 ProcessGroupNCCL.cpp:1575] Warning: WARNING: "
        "destroy_process_group() was not called before program exit",
        "(EngineCore pid=9) ERROR 11-01 10:00:00 [fa_utils.py:57] Cannot use FA version 2",
    ],
)
def test_arguments_advice_and_retries_are_no_cause(line: str) -> None:
    assert diagnose([BANNER, line, *lines_of("healthy_serving")]).verdict == "healthy"
    assert diagnose([BANNER, line]).verdict == "unknown"
    explained = diagnose([BANNER, line, *lines_of("kv_cache_none")])
    assert explained.rule == "kv_cache_none"


def test_an_error_that_the_start_survived_is_no_cause() -> None:
    log = LogDiagnosis()
    log.feed(BANNER)
    log.feed("(EngineCore pid=9) ERROR 11-01 10:00:00 [a.py:1] RuntimeError: Error Internal")
    assert log.diagnosis().rule == "cutlass_failed"
    log.feed("(EngineCore pid=9) INFO 11-01 10:00:09 [a.py:1] Available KV cache memory: 9.1 GiB")
    assert log.diagnosis().verdict == "unknown"
    assert log.diagnosis(exit_code=1).rule == ""


@pytest.mark.parametrize(
    "request_error",
    [
        ['(APIServer pid=1) INFO:     10.0.0.1:1 - "POST /v1/models HTTP/1.1" 400 Bad Request'],
        [
            "(APIServer pid=1) ERROR 11-01 10:00:00 [serving.py:228] Error with model "
            "error=ErrorInfo(message='The model `nope` does not exist.', code=404)"
        ],
        [
            "ERROR:    Exception in ASGI application",
            "Traceback (most recent call last):",
            '  File "/uvicorn/protocols/http/h11_impl.py", line 403, in run_asgi',
            "    result = await app(",
            "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='images.example')",
        ],
        [
            "(APIServer pid=1) ERROR 11-01 10:00:00 [serving.py:1] Error in preprocessing prompt",
            "(APIServer pid=1) ERROR 11-01 10:00:00 [a.py:1] Traceback (most recent call last):",
            '(APIServer pid=1) ERROR 11-01 10:00:00 [a.py:1]   File "a.py", line 1, in f',
            "(APIServer pid=1) ERROR 11-01 10:00:00 [a.py:1] ValueError: This model's maximum"
            " context length is 32768 tokens.",
        ],
    ],
)
def test_a_clients_error_is_no_failure_of_the_server(request_error: list[str]) -> None:
    log = LogDiagnosis()
    for line in [BANNER, READY, *request_error]:
        log.feed(line)
    assert not log.final
    assert log.diagnosis().verdict == "healthy"
    assert log.diagnosis(exit_code=137).rule == ""


def test_a_task_that_failed_in_a_worker_is_forgiven_when_the_server_answers_again() -> None:
    head = "(Worker_TP0 pid=9) ERROR 11-01 10:00:00 [multiproc_executor.py:800] "
    worker_fails = [
        head + "WorkerProc hit an exception.",
        head + "Traceback (most recent call last):",
        head + '  File "/vllm/lora/models.py", line 1, in add_lora',
        head + "ValueError: LoRA rank 64 is greater than max_lora_rank 16.",
    ]
    log = LogDiagnosis()
    for line in [BANNER, READY, *worker_fails]:
        log.feed(line)
    assert log.final
    log.feed('(APIServer pid=1) INFO:     10.0.0.1:1 - "POST /v1/completions HTTP/1.1" 200 OK')
    assert not log.final
    assert log.diagnosis().verdict == "healthy"
    assert log.diagnosis(exit_code=137).rule == ""


def test_a_requests_error_does_not_explain_a_later_kill() -> None:
    full = "(APIServer pid=1) ERROR 11-01 10:00:00 [serving.py:1] OSError: No space left on device"
    assert diagnose([BANNER, READY, full], exit_code=137).rule == ""


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (engine_dies_of("FrobnicationError: no frobs"), "FrobnicationError"),
        (["# exit 137 after 40.0 s"], "killed (SIGKILL)"),
        ([], "the start is not finished"),
    ],
)
def test_what_a_thread_died_of_does_not_explain_what_came_later(end: list[str], cause: str) -> None:
    usage_report = [
        "Exception in thread Thread-5 (_report_usage_worker):",
        "Traceback (most recent call last):",
        '  File "/usr/lib/python3.12/threading.py", line 1075, in _bootstrap_inner',
        "    self.run()",
        "OSError: [Errno 28] No space left on device: '/root/.config/vllm'",
    ]
    loading = "(EngineCore pid=9) INFO 11-01 10:00:09 [a.py:1] Starting to load model m..."
    found = diagnose([BANNER, *usage_report, loading, *end])
    assert cause in found.cause
    assert found.rule == ""


def test_a_v0_engine_that_logs_its_end_has_died() -> None:
    head = "ERROR 04-22 00:13:32 [engine.py:160] "
    found = diagnose(
        [
            BANNER,
            READY,
            head + "RuntimeError('CUDA error: an illegal memory access was encountered')",
            head + "Traceback (most recent call last):",
            head + '  File "/vllm/engine/multiprocessing/engine.py", line 158, in start',
            head + "    self.run_engine_loop()",
            head + "RuntimeError: CUDA error: an illegal memory access was encountered",
            "CRITICAL 04-22 00:13:36 [launcher.py:116] MQLLMEngine is already dead, terminating",
            "INFO:     Shutting down",
        ],
        exit_code=0,
    )
    assert (found.verdict, found.rule) == ("failed", "gpu_faulted")


def test_a_server_whose_uvicorn_is_silent_serves_when_it_counts_tokens() -> None:
    head = "(APIServer pid=1) INFO 11-01 10:01:00 [loggers.py:127] Engine 000: "
    started = "(APIServer pid=1) INFO 11-01 10:00:30 [a.py:1] Starting vLLM API server 0"
    assert diagnose([BANNER, started, head + "vllm cache_config_info"]).verdict == "unknown"
    found = diagnose([BANNER, started, head + "Avg prompt throughput: 0.9 tokens/s, Running: 1"])
    assert found.verdict == "healthy"


ANSWER = '(APIServer pid=1) INFO:     10.0.0.1:1 - "GET /metrics HTTP/1.1" 200 OK'
STOPPED = "(APIServer pid=1) INFO 11-01 10:00:00 [launcher.py:100] [shutdown] shutdown triggered"


def test_a_log_without_its_beginning_is_healthy_if_the_server_answered() -> None:
    assert diagnose([ANSWER]).verdict == "healthy"
    assert "until it was stopped" in diagnose([ANSWER, STOPPED]).cause
    died = diagnose(
        [*engine_dies_of("RuntimeError: CUDA error: unspecified launch failure"), ANSWER]
    )
    assert (died.verdict, died.rule) == ("failed", "gpu_faulted")


def test_a_log_that_begins_with_the_stop_is_unknown() -> None:
    found = diagnose([STOPPED, "(APIServer pid=1) INFO:     Shutting down"])
    assert found.verdict == "unknown"
    assert "stopped from outside" in found.cause
    assert "shutdown triggered" in found.evidence[0]


def test_a_server_that_comes_up_has_survived_all_before_it() -> None:
    assert diagnose([*engine_dies_of("ValueError: Unknown load_format: x"), READY]).rule == ""


def test_what_a_death_says_wins_over_what_was_said_elsewhere() -> None:
    full = "(EngineCore pid=9) ERROR 11-01 10:00:00 [cache.py:1] OSError: No space left on device"
    found = diagnose([BANNER, full, *engine_dies_of("ValueError: Unknown load_format: x")])
    assert found.rule == "load_format_unknown"


def test_what_the_kernel_says_wins_over_a_death_that_only_points_elsewhere() -> None:
    found = diagnose(
        [
            BANNER,
            "Bus error (core dumped)",
            "Traceback (most recent call last):",
            '  File "/usr/local/bin/vllm", line 10, in <module>',
            "    sys.exit(main())",
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ]
    )
    assert found.rule == "shm_too_small"


def test_noise_of_a_shutdown_is_no_death() -> None:
    found = diagnose(
        [
            BANNER,
            READY,
            "(APIServer pid=1) INFO:     Shutting down",
            "(EngineCore_0 pid=9) ERROR 11-01 10:00:00 [core_client.py:562] Engine core proc "
            "EngineCore_0 died unexpectedly, shutting down client.",
        ],
        exit_code=0,
    )
    assert found.verdict == "healthy"


def test_a_dead_engine_is_told_by_the_one_line_that_is_left_of_the_log() -> None:
    lines = lines_of("engine_killed_while_serving")
    (line,) = [line for line in lines if "engine core exited unexpectedly" in line]
    found = diagnose([ANSWER, line])
    assert (found.verdict, found.rule) == ("failed", "engine_died")
    assert "engine core exited unexpectedly" in found.evidence[0]


def test_the_root_comes_before_what_only_says_that_something_failed() -> None:
    found = diagnose(lines_of("weights_missing"))
    assert "Cannot find any model weights" in found.evidence[0]
    assert "EngineCore" in found.evidence[0]


def test_of_several_runs_in_one_log_the_last_counts() -> None:
    failed, healthy = lines_of("kv_cache_none"), lines_of("healthy_serving")
    assert diagnose([*failed, *healthy]).verdict == "healthy"
    assert diagnose([*healthy, *failed]).rule == "kv_cache_none"
    assert diagnose([*healthy, *lines_of("flag_unknown_misspelt")]).rule == "flag_unknown"
    assert diagnose([*failed, *lines_of("flag_unknown_misspelt")]).rule == "flag_unknown"
    early = lines_of("tool_choice_without_parser")[1:]  # dies before its banner
    assert diagnose([*failed, *early]).rule == "tool_choice_without_parser"
    assert (
        diagnose([*lines_of("flag_unknown_misspelt"), *early]).rule == "tool_choice_without_parser"
    )
    killed = [BANNER, "vllm-1 exited with code 137"]
    assert diagnose([*killed, *healthy]).verdict == "healthy"
    assert diagnose([*killed, *failed[:-1]]).rule == "kv_cache_none"


# --- following a log live ---


@pytest.mark.parametrize("name", FAILED)
def test_a_lost_start_is_known_while_the_process_may_still_live(name: str) -> None:
    log = LogDiagnosis()
    for line in lines_of(name):
        if not line.startswith("# exit"):
            log.feed(line)
    assert log.final


@pytest.mark.parametrize("name", ["kv_cache_none", "shard_truncated", "gpu_memory_taken"])
def test_the_loss_is_known_at_the_engines_exception_before_the_api_server_notices(
    name: str,
) -> None:
    log = LogDiagnosis()
    for line in lines_of(name):
        log.feed(line)
        if log.final:
            break
    assert line.startswith("(EngineCore ") and "Error: " in line
    assert log.diagnosis().rule == FAILED[name]


def test_a_dead_engine_is_known_at_the_first_line_that_says_so() -> None:
    log = LogDiagnosis()
    for line in lines_of("engine_killed_while_serving"):
        log.feed(line)
        if log.final:
            break
    assert "engine core exited unexpectedly" in line


@pytest.mark.parametrize("name", [*HEALTHY, "unfinished_compiling"])
def test_a_good_start_is_never_called_lost(name: str) -> None:
    log = LogDiagnosis()
    for line in lines_of(name):
        log.feed(line)
        assert not log.final


def test_memory_stays_bounded_while_a_dead_engine_fills_the_log() -> None:
    log = LogDiagnosis()
    lines = lines_of("engine_killed_while_serving")
    sizes: list[int] = []
    tracemalloc.start()
    for _ in range(4):
        for _ in range(20):
            for line in lines:
                log.feed(line.replace("pid=9", f"pid={len(sizes)}"))
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] - sizes[1] < 200_000


# --- robustness ---

_PIDS = re.compile(r"pid=\d+")
_CLOCK = re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d")
_ORIGIN_LINE = re.compile(r"(\.py:)\d+\]")
_FRAME_LINE = re.compile(r"line \d+")
SAVED_WITH = {
    "compose": "vllm-qwen3-1  | ",
    "compose with clock": "vllm-1  | 2026-11-23T20:42:24.123456789Z ",
    "swarm": "vllm_llm.1.x7k2j@spark    | ",
    "docker clock": "2026-11-23T20:42:24.123456789Z ",
    "kubernetes": "2026-11-23T20:42:24.123456789Z stderr F ",
    "kubectl": "[pod/vllm-7d9f-abcde/vllm] ",
    "journal": "Nov 23 20:42:24 spark vllm[8727]: ",
    "journal, iso": "2026-11-23T20:42:24.123456+0200 spark docker[8727]: ",
    "clock": "2026-11-23 20:42:24.123 ",
}
_TAG = re.compile(r"^\(EngineCore pid=(\d+)\) ?")


def _in_form(lines: list[str], form: str, number: int, model: str) -> list[str]:
    """The same log as another version, process or tool would have written it."""
    changed = []
    for line in lines:
        line = _PIDS.sub(f"pid={number}", line)
        line = _CLOCK.sub("01-31 23:59:58", line)
        line = _ORIGIN_LINE.sub(rf"\g<1>{number}]", line)
        line = _FRAME_LINE.sub(f"line {number}", line)
        line = line.replace("Qwen3-30B-A3B-Instruct-2507-FP8", model).replace("tiny", model)
        if form == "engine_0":
            line = _TAG.sub(rf"(EngineCore_0 pid={number}) ", line)
        elif form == "data parallel":
            line = _TAG.sub(rf"(EngineCore_DP3 pid={number}) ", line)
        elif form == "no process":
            line = re.sub(r"^\(\w+ pid=\d+\) ?", "", line)
        elif form in SAVED_WITH:
            line = SAVED_WITH[form] + line
        elif form == "colour":
            line = re.sub(r"^(\(\w+ pid=\d+\))", "\x1b[1;36m\\1\x1b[0;0m", line)
        elif form == "carriage return":
            line += "\r"
        changed.append(line)
    return changed


@settings(max_examples=150)
@given(
    name=st.sampled_from(sorted(FAILED)),
    form=st.sampled_from(
        ["", "engine_0", "data parallel", "no process", "colour", "carriage return", *SAVED_WITH]
    ),
    number=st.integers(1, 4_000_000),
    model=st.from_regex(r"[A-Za-z][A-Za-z0-9.-]{0,30}", fullmatch=True),
)  # fmt: skip
def test_the_rule_holds_for_other_values_and_other_forms(
    name: str, form: str, number: int, model: str
) -> None:
    found = diagnose(_in_form(lines_of(name), form, number, model))
    assert found.rule == FAILED[name]


@pytest.mark.parametrize("before", [*SAVED_WITH.values(), "> ", "    "])
def test_whatever_saved_the_log_a_server_that_serves_is_healthy(before: str) -> None:
    found = diagnose(before + line for line in lines_of("healthy_serving"))
    assert found.verdict == "healthy"


@pytest.mark.parametrize(
    "before", ["{n:6d}\t", "{n}:", "[llm]   | ", "vllm-7d9f vllm ", "Nov {n} 06:13:29 ", "\t", "> "]
)
@pytest.mark.parametrize(
    "name", ["config_not_json", "tool_choice_without_parser", "shard_truncated"]
)
def test_a_prefix_that_nobody_has_heard_of_is_learnt_from_the_log(name: str, before: str) -> None:
    lines = lines_of(name)
    found = diagnose(before.format(n=n) + line for n, line in enumerate(lines, 1))
    assert found.rule == FAILED[name]
    assert found.cause == diagnose(lines).cause


def test_an_indented_traceback_in_a_log_that_is_not_indented_is_no_margin() -> None:
    quoted = [
        "    Traceback (most recent call last):",
        '      File "/app/remote.py", line 3, in call',
        "    KeyError: 'quoted'",
    ]
    died = diagnose([BANNER, *quoted, *lines_of("tool_choice_without_parser")])
    assert died.rule == "tool_choice_without_parser"


def test_what_the_terminal_echoed_is_no_part_of_the_line() -> None:
    found = diagnose(
        [
            BANNER,
            "^C(APIServer pid=1) Traceback (most recent call last):",
            '(APIServer pid=1)   File "/usr/local/bin/vllm", line 10, in <module>',
            "(APIServer pid=1)     sys.exit(main())",
            "(APIServer pid=1) KeyboardInterrupt: terminated",
        ]
    )
    assert found.cause.startswith("the start was stopped from outside")


def test_a_paste_that_lost_its_indentation_is_understood() -> None:
    lines = [re.sub(r"(\] |\) )\s+", r"\1", line) for line in lines_of("weights_missing")]
    assert diagnose(lines).rule == "weights_missing"
    unknown = diagnose([line.replace("Cannot find any", "Can not find") for line in lines])
    assert "Can not find model weights" in unknown.cause


def test_a_tag_in_front_of_vllms_own_is_no_part_of_the_message() -> None:
    lines = [f"(pytest, pid=7) {line}" for line in lines_of("hub_offline")]
    assert diagnose(lines).rule == "hub_offline"
    died = [
        f"(pytest, pid=7) (APIServer pid=1) {line}"
        for line in (
            "Traceback (most recent call last):",
            '  File "/usr/local/bin/vllm", line 10, in <module>',
            "    sys.exit(main())",
            "FrobnicationError: no frobs",
        )
    ]
    assert diagnose(died).cause.endswith(": FrobnicationError: no frobs")


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(FAILED)), data=st.data())
def test_a_log_cut_off_anywhere_never_gets_another_cause_than_the_whole(
    name: str, data: st.DataObject
) -> None:
    lines = lines_of(name)
    part = diagnose(lines[: data.draw(st.integers(0, len(lines)))])
    assert part.rule not in ROOTS - {FAILED[name]}


@given(st.lists(st.text(max_size=300), max_size=20))
def test_garbage_never_raises_and_is_never_healthy(lines: list[str]) -> None:
    assert diagnose(lines).verdict != "healthy"


@settings(max_examples=30)
@given(name=st.sampled_from(sorted(FAILED)), seed=st.binary(max_size=400), at=st.integers(0, 60))
def test_garbage_in_the_middle_of_a_log_never_raises(name: str, seed: bytes, at: int) -> None:
    lines = lines_of(name)
    lines.insert(min(at, len(lines)), seed.decode("utf-8", errors="replace"))
    assert isinstance(diagnose(lines), Diagnosis)


@pytest.mark.parametrize("number", ["1.2.3", ".", "0", "0.0", "9" * 5000, "-1"])
def test_garbled_numbers_never_raise(number: str) -> None:
    for text in TEXTS:
        diagnose(re.sub(r"\d+(?:\.\d+)?", number, text["log"]).splitlines())
        diagnose(re.sub(r"\((\d+(?:\.\d+)?)", f"({number}", text["log"]).splitlines())


def test_a_line_of_ten_megabytes_is_survived() -> None:
    found = diagnose([BANNER, "x" * 10_000_000, *lines_of("kv_cache_none")])
    assert found.rule == "kv_cache_none"
    assert all(len(line) < 1000 for line in found.evidence)


# --- secrets ---

SECRET = "sw0rdfish-Secret-42"


@pytest.mark.parametrize(
    "line",
    [
        f"vllm: error: unrecognized arguments: --api-kez {SECRET}",
        f"vllm: error: unrecognized arguments: --max-len 4 --api-key {SECRET} more-{SECRET}",
        f"vllm: error: unrecognized arguments: --hf-token={SECRET}",
        f"vllm: error: argument --api-key: invalid choice: '{SECRET}'",
        f"ValueError: bad args: {{'port': 8000, 'api_key': ['{SECRET}', 'x'], 'model': 'm'}}",
        f"ValueError: Namespace(port=8000, api_key='{SECRET}', model='m')",
        f"ValueError: ['vllm', 'serve', '--api-key', '{SECRET}', '--port', '8000']",
        f"ValueError: environment VLLM_API_KEY={SECRET} HF_TOKEN=x",
        f"ValueError: HF_TOKEN: {SECRET}",
        f"ValueError: header Authorization: Bearer {SECRET}",
        "ValueError: token hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345 is bad",
    ],
)
def test_no_secret_is_ever_shown(line: str) -> None:
    found = diagnose(
        [
            BANNER,
            "Traceback (most recent call last):",
            '  File "/usr/local/bin/vllm", line 10, in <module>',
            "    sys.exit(main())",
            line,
        ]
    )
    shown = " ".join([found.cause, found.fix, *found.evidence])
    assert "***" in shown
    assert SECRET not in shown
    assert "hf_AbCd" not in shown


@pytest.mark.parametrize(
    "line",
    [
        "vllm: error: unrecognized arguments: --max-num-batched-token 8192",
        "vllm: error: argument --tokenizer-mode: invalid choice: 'quick'",
        "ValueError: 'hf_transfer' package is not available in your environment, hf_overrides",
        "ValueError: --api-server-count 4 cannot be used with --headless",
    ],
)
def test_what_only_looks_like_a_secret_stays_readable(line: str) -> None:
    found = diagnose([line] if line.startswith("vllm") else engine_dies_of(line))
    assert line in found.evidence[0]


def test_evidence_cannot_move_the_terminals_cursor() -> None:
    found = diagnose(engine_dies_of("FrobnicationError: \x07\x08\x1b]0;title\x07 end"))
    assert all(line.isprintable() for line in (found.cause, *found.evidence))


# --- the command ---


def test_the_command_prints_cause_fix_and_evidence() -> None:
    ran = vllm_spark("diagnose", str(LOGS / "port_taken.log"))
    assert ran.exit_code == 1
    printed = ran.stdout
    assert printed.startswith("failed: port 8099 is taken by another program\n")
    assert "\nfix: stop the other server" in printed
    assert "[Errno 98] Address already in use" in printed


def test_the_command_prints_one_json_object() -> None:
    ran = vllm_spark("diagnose", str(LOGS / "kv_cache_none.log"), "--json")
    assert ran.exit_code == 1
    found = json.loads(ran.stdout)
    assert list(found) == ["verdict", "cause", "fix", "evidence"]
    assert found["verdict"] == "failed"
    assert isinstance(found["evidence"], list)


@pytest.mark.parametrize(
    ("name", "code"), [("healthy_stopped", 0), ("port_taken", 1), ("unfinished_compiling", 3)]
)
def test_the_exit_code_is_the_verdict(name: str, code: int) -> None:
    ran = vllm_spark("diagnose", str(LOGS / f"{name}.log"))
    assert ran.exit_code == code
    assert ran.stdout


def test_a_missing_file_is_one_sentence_with_its_fix() -> None:
    ran = vllm_spark("diagnose", "/no/such/file.log")
    assert ran.exit_code == 2
    said = ran.stderr
    assert said.count("\n") == 2
    assert "/no/such/file.log" in said and "docker logs" in said


def test_a_reader_that_wants_the_first_line_only_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "vllm_spark", "diagnose", str(LOGS / "port_taken.log")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_log_that_powershell_saved_is_read(encoding: str, tmp_path: Path) -> None:
    saved = tmp_path / "vllm.log"
    saved.write_text("\r\n".join(lines_of("port_taken")), encoding=encoding)
    ran = vllm_spark("diagnose", str(saved))
    assert ran.exit_code == 1
    assert "port 8099 is taken" in ran.stdout


def test_a_log_can_be_piped_in_whatever_its_bytes() -> None:
    log = (LOGS / "weights_missing.log").read_bytes() + b"\xff\xfe\x00\n"
    done = subprocess.run(
        [sys.executable, "-m", "vllm_spark", "diagnose", "-", "--json"],
        input=log,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["verdict"] == "failed"
