"""The start as the log tells it: phases, progress, facts; by the forms of vLLM 0.8 to 0.33."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_spark.diagnosis.log_lines import log_lines
from vllm_spark.diagnosis.start_log import Phase, StartLog

LOGS = Path(__file__).parent.parent / "data" / "logs"


def read(*lines: str) -> StartLog:
    start = StartLog()
    for line in lines:
        start.feed(line)
    return start


def phases(lines: list[str]) -> list[Phase]:
    start = StartLog()
    return [phase for line in lines if (phase := start.feed(line))]


def test_a_real_start_passes_through_its_phases_in_order() -> None:
    lines = (LOGS / "engine_killed_while_serving.log").read_text().splitlines()
    assert phases(lines) == [
        Phase.RESOLVING,
        Phase.ENGINE,
        Phase.LOADING,
        Phase.PROFILING,
        Phase.COMPILING,
        Phase.PROFILING,
        Phase.KV_CACHE,
        Phase.WARMING_UP,
        Phase.CAPTURING,
        Phase.SERVER,
        Phase.READY,
    ]


def test_a_real_start_tells_its_facts() -> None:
    facts = read(*(LOGS / "healthy_stopped.log").read_text().splitlines()).facts
    assert facts.version == "0.26.0"
    assert facts.weights_gib == 29.13
    assert facts.load_seconds == 3.660518
    assert facts.compile_seconds == 9.66
    assert facts.peak_activation_gib == 1.7
    assert facts.available_kv_gib == 87.55
    assert facts.kv_tokens == 956240
    assert facts.max_model_len == 32768
    assert facts.max_concurrency == 29.18
    assert facts.engine_init_seconds == 35.05


def test_both_runners_weights_lines_are_read() -> None:
    v1 = "(EngineCore pid=9) INFO 11-23 20:42:24 [gpu_model_runner.py:5347] "
    assert read(v1 + "Model loading took 29.13 GiB memory and 8.034311 seconds").facts == (
        read(v1 + "Model loading took 29.13 GiB and 8.034311 seconds").facts
    )


def test_the_kv_size_is_read_in_two_lines_in_one_line_and_without_separators() -> None:
    head = "(EngineCore pid=9) INFO 11-23 20:43:35 [kv_cache_utils.py:2177] "
    one = "GPU KV cache size: 956,240 tokens, Maximum concurrency for 32,768 tokens per request: "
    for start in (
        read(
            head + "GPU KV cache size: 956,240 tokens",
            head + "Maximum concurrency for 32,768 tokens per request: 29.18x",
        ),
        read(head + one + "29.18x"),
        read(
            "INFO 05-07 02:14:20 [kv_cache_utils.py:634] GPU KV cache size: 956240 tokens",
            "INFO 05-07 02:14:20 [kv_cache_utils.py:637] Maximum concurrency for 32768 tokens"
            " per request: 29.18x",
        ),
    ):
        assert (start.facts.kv_tokens, start.facts.max_concurrency) == (956240, 29.18)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("INFO 05-07 02:13:30 [api_server.py:1043] vLLM API server version 0.8.5", "0.8.5"),
        (
            "(APIServer pid=1) INFO 09-08 10:00:00 [api_server.py:1805] vLLM API server version"
            " 0.10.1.1+381074ae.nv25.09",
            "0.10.1.1+381074ae.nv25.09",
        ),
        (
            "INFO 07-17 00:07:07 [core.py:69] Initializing a V1 LLM engine (v0.9.2) with config: m",
            "0.9.2",
        ),
        ("INFO 11-23 20:48:42 [cuda.py:1] Found nccl version 2.27.3", None),
    ],
)
def test_vllms_own_version_is_told_from_others(line: str, version: str | None) -> None:
    assert read(line).facts.version == version


def test_loading_is_told_in_shards_with_rate_and_time_left() -> None:
    start = read(
        "Loading safetensors checkpoint shards:  43% Completed | 3/7 [00:02<00:03,  1.20it/s]"
    )
    assert start.phase is Phase.LOADING
    assert start.sentence() == "loading weights 3 of 7 shards, 1.20 shards/s, about 3 s left"


def test_slow_shards_are_told_in_seconds_each() -> None:
    start = read(
        "(Worker_PP0_TP0_EP0 pid=2168) \r\nLoading safetensors checkpoint shards:"
        "   2% Completed | 2/85 [01:47<1:03:27, 45.87s/it]\r\n"
    )
    assert start.sentence() == "loading weights 2 of 85 shards, 45.87 s each, about 63 min left"


def test_a_download_is_told_with_percent_speed_and_time_left() -> None:
    start = read(
        "Fetching 7 files:  14%|█▍        | 1/7 [00:10<01:00, 10.2s/it]",
        "model-00002-of-00007.safetensors:  42%|████▏     | 2.10G/5.00G [00:30<00:40, 72.5MB/s]",
    )
    assert start.phase is Phase.DOWNLOADING
    assert start.progress is not None
    assert (start.progress.percent, start.progress.seconds_left) == (42, 40)
    assert start.sentence() == (
        "downloading weights 1 of 7 files, model-00002-of-00007.safetensors 42 % of 5.00 GB,"
        " 72.5 MB/s, about 40 s left"
    )


def test_a_download_by_xet_has_no_clock_but_a_speed() -> None:
    start = read("Processing Files (1 / 3)      :  45%|████▌     | 1.2GB /  2.7GB,  100MB/s  ")
    assert start.sentence() == (
        "downloading weights: Processing Files (1 / 3) 45 % of 2.7 GB, 100 MB/s"
    )


def test_bars_that_arrive_in_one_chunk_are_read_to_the_last() -> None:
    start = read(
        "\rCapturing CUDA graphs (decode, FULL):   9%|▉    | 1/11 [00:00<00:01,  5.18it/s]"
        "\rCapturing CUDA graphs (decode, FULL):  82%|████▏| 9/11 [00:01<00:00,  5.34it/s]"
    )
    assert start.sentence() == "capturing graphs 9 of 11 graphs, 5.34 graphs/s"


def test_a_compiler_with_its_own_bar_is_warming_up() -> None:
    start = read("DeepGEMM warmup:  52%|█████▏    | 418/797 [00:57<00:16, 22.37it/s]")
    assert start.sentence() == (
        "warming up kernels 418 of 797 kernels, 22.37 kernels/s, about 16 s left"
    )


def test_a_new_phase_forgets_the_old_bar() -> None:
    start = read(
        "DeepGEMM warmup:  52%|█████▏    | 418/797 [00:57<00:16, 22.37it/s]",
        "(EngineCore pid=9) INFO 11-23 20:46:10 [gpu_model_runner.py:1] Graph capturing finished",
    )
    assert start.sentence() == "starting the server"


def test_an_estimate_of_a_bar_that_has_just_begun_is_none() -> None:
    start = read("Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]")
    assert start.sentence() == "loading weights 0 of 4 shards"


def test_a_bar_of_something_else_is_no_phase() -> None:
    assert (
        read("Rendering conversations:  50%|█████     | 1/2 [00:00<00:00,  3it/s]").progress is None
    )


@pytest.mark.parametrize(
    "line",
    [
        "INFO 05-07 02:14:20 [a.py:1] Starting to load model Qwen/Qwen3-8B...",
        "(EngineCore pid=9) INFO 05-07 02:14:20 [a.py:1] Starting to load model m...",
        "(EngineCore_0 pid=9) INFO 05-07 02:14:20 [a.py:1] Starting to load model m",
        "(VllmWorker rank=1 pid=9) INFO 05-07 02:14:20 [a.py:1] Starting to load model",
        "2026-11-23T20:42:24.123456789Z (EngineCore pid=9) INFO 05-07 02:14:20 [a.py:1] "
        "Starting to load model m",
        "(EngineCore pid=9) INFO [a.py:1] Starting to load model m",
        "(pytest, pid=7) (EngineCore pid=9) INFO 05-07 02:14:20 [a.py:1] Starting to load model m",
        "vllm-1  | (EngineCore pid=9) INFO 05-07 02:14:20 [a.py:1] Starting to load model m",
        "\x1b[1;36m(EngineCore_0 pid=9)\x1b[0;0m INFO 05-07 02:14:20 [a:1] Starting to load model",
        "\x1b[0;36m(EngineCore pid=9)\x1b[0;0m \x1b[32mINFO\x1b[0m \x1b[90m05-07 02:14:20\x1b[0m"
        " \x1b[90m[a.py:1]\x1b[0m Starting to load model m",
        '{"log":"INFO 05-07 02:14:20 [a.py:1] Starting to load model m\\n","stream":"stderr"}',
        '{"asctime": "2026", "levelname": "INFO", "name": "vllm", "processName": "EngineCore",'
        ' "process": 9, "message": "Starting to load model m"}',
        "(EngineCore pid=9) INFO 05-07 02:14:20 [a.py:1] Starting to load model m\r",
    ],
)
def test_every_way_of_writing_a_line_is_the_same_line(line: str) -> None:
    assert read(line).phase is Phase.LOADING


def test_a_failure_in_the_log_moves_no_phase() -> None:
    start = read(
        "(EngineCore pid=9) ERROR 05-07 02:14:20 [core.py:1] Application startup complete."
    )
    assert start.phase is Phase.STARTING


@given(st.text(max_size=400))
def test_no_line_breaks_the_reader(line: str) -> None:
    start = StartLog()
    start.feed(line)
    assert start.sentence()


@pytest.mark.parametrize("number", ["1.2.3", ".", "..", ",,", "9" * 5000, "-"])
def test_garbled_numbers_break_no_reader(number: str) -> None:
    head = "(EngineCore pid=9) INFO 11-23 20:42:24 [a.py:1] "
    start = read(
        head + f"Model loading took {number} GiB memory and {number} seconds",
        head + f"GPU KV cache size: {number} tokens, Maximum concurrency for 1 tokens per"
        f" request: {number}x",
        head + f"Available KV cache memory: {number} GiB",
        f"Loading safetensors checkpoint shards:  {number}% Completed | {number}/{number}"
        f" [{number}<{number},  {number}it/s]",
    )
    assert start.phase is not Phase.STARTING


def test_a_very_long_line_keeps_its_two_ends() -> None:
    (line,) = log_lines("INFO 05-07 02:14:20 [a.py:1] begin " + "x" * 100_000 + " end")
    assert line.level == "INFO"
    assert line.text.startswith("begin ")
    assert line.text.endswith(" end")
    assert len(line.raw) < 10_000


def test_memory_does_not_grow_with_the_log() -> None:
    start, dice = StartLog(), random.Random(1)
    sizes = []
    tracemalloc.start()
    for _ in range(4):
        for _ in range(2000):
            start.feed(
                f"model-{dice.random()}.safetensors:  42%|████▏     | 2.10G/5.00G"
                " [00:30<00:40, 72.5MB/s]"
            )
        # Only what this reader keeps: threads of other tests allocate too.
        ours = tracemalloc.Filter(True, "*/vllm_spark/diagnosis/*")
        kept = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
        sizes.append(sum(one.size for one in kept))
    tracemalloc.stop()
    assert all(after - before < 20_000 for before, after in pairwise(sizes[1:]))
