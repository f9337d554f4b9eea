"""Which error of a log is the cause, and what is none: advice, retries, what was survived."""

from __future__ import annotations

import pytest

from tests.recorded_logs import (
    BANNER,
    READY,
    engine_dies_of,
    lines_of,
)
from vllm_spark.diagnosis.verdict import LogDiagnosis, diagnose


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
