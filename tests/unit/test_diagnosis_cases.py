"""Failures that people reported in public, and what becomes of them in other people's pastes."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vllm_spark.diagnosis.failures import CATALOGUE, candidates
from vllm_spark.diagnosis.failures.needles import needles
from vllm_spark.diagnosis.failures.remedies import VARIABLES, can_follow, for_release
from vllm_spark.diagnosis.verdict import LogDiagnosis, diagnose
from vllm_spark.flags.history import KNOWN
from vllm_spark.images import Version

DATA = Path(__file__).parent.parent / "data"
CASES = DATA / "cases"
WHOLE: list[dict[str, Any]] = yaml.safe_load((CASES / "logs.yaml").read_text())
PUBLIC: list[dict[str, Any]] = yaml.safe_load((CASES / "public.yaml").read_text())
TEXTS: list[dict[str, Any]] = yaml.safe_load((DATA / "failure_texts.yaml").read_text())
HEALTHY = ["cpu_healthy_serving", "cpu_healthy_stopped", "healthy_serving", "healthy_stopped"]
BANNER = "(APIServer pid=1) INFO 11-01 10:00:00 [api_server.py:1] vLLM API server version 0.26.0"
READY = "(APIServer pid=1) INFO:     Application startup complete."


def lines_of(case: dict[str, Any]) -> list[str]:
    return (CASES / f"{case['log']}.log").read_text().splitlines()


# --- right answers ---


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case["log"])
def test_a_reported_log_gets_the_answer_that_its_thread_found(case: dict[str, Any]) -> None:
    found = diagnose(lines_of(case))
    assert (found.verdict, found.rule) == (case.get("verdict", "failed"), case["rule"])
    assert re.search(case["says"], f"{found.cause} {found.fix}")


@pytest.mark.parametrize("case", PUBLIC, ids=lambda case: case["source"])
def test_a_reported_error_gets_the_answer_that_its_thread_found(case: dict[str, Any]) -> None:
    found = diagnose(case["log"].splitlines())
    assert (found.verdict, found.rule) == ("failed", case["rule"])
    assert re.search(case["says"], f"{found.cause} {found.fix}")


# --- the same logs as people paste them ---


def _cut(width: int) -> Callable[[list[str]], list[str]]:
    return lambda lines: [
        line[at : at + width] for line in lines for at in (range(0, len(line), width) or [0])
    ]


def _mail(lines: list[str]) -> list[str]:
    return [part for line in lines for part in (textwrap.wrap(line, 100) or [""])]


PASTES: dict[str, Callable[[list[str]], list[str]]] = {
    "newest line first": lambda lines: lines[::-1],
    "one line with the characters backslash and n": lambda lines: ["\\n".join(lines)],
    "a field of JSON": lambda lines: [json.dumps({"message": "\n".join(lines)})],
    "cut at 80 columns": _cut(80),
    "cut at 132 columns": _cut(132),
    "colours without ESC": lambda lines: [
        re.sub(r"^(\(\w+ pid=\d+\))", r"[1;36m\1[0;0m", line) for line in lines
    ],
    "colours with ^[": lambda lines: [f"^[[36m{line}^[[0m" for line in lines],
    "from compose": lambda lines: [f"vllm-1  | {line}" for line in lines],
    "from the journal": lambda lines: [f"Nov 23 20:42:24 a vllm[87]: {line}" for line in lines],
    "from Loki": lambda lines: [f"2026-11-23T20:42:24.123Z {line}" for line in lines],
    "quoted": lambda lines: [f"> {line}" for line in lines],
    "numbered": lambda lines: [f"{number:5d}  {line}" for number, line in enumerate(lines, 1)],
    "without indentation": lambda lines: [re.sub(r"(\] |\) |^)\s+", r"\1", line) for line in lines],
    "with carriage returns": lambda lines: [f"{line}\r" for line in lines],
}
ANOTHER_ANSWER = {
    ("a field of JSON", "030b-compose-nvidia-driver"),  # two lines: no sign of what happened
    ("cut at 80 columns", "096-compat-mount-error"),
    ("cut at 132 columns", "100-worker-failed-quoted-cublas"),
}
"""Pastes in which the words that decide are cut in two; the answer is less exact, not wrong."""


@pytest.mark.parametrize("how", PASTES)
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case["log"])
def test_a_paste_gets_the_answer_of_the_log(case: dict[str, Any], how: str) -> None:
    if (how, case["log"]) in ANOTHER_ANSWER:
        pytest.skip("the deciding words are cut in two")
    found = diagnose(PASTES[how](lines_of(case)))
    assert (found.verdict, found.rule) == (case.get("verdict", "failed"), case["rule"])


def test_most_logs_are_understood_when_a_mail_has_wrapped_them_at_spaces() -> None:
    right = [case for case in WHOLE if diagnose(_mail(lines_of(case))).rule == case["rule"]]
    assert len(right) >= len(WHOLE) * 9 // 10


@pytest.mark.parametrize("space", [r" ", r"(?<=\w) (?=\w)"], ids=["all", "between words"])
def test_most_logs_are_understood_when_a_screenshot_has_lost_their_spaces(space: str) -> None:
    squeezed = [[re.sub(space, "", line) for line in lines_of(case)] for case in WHOLE]
    right = [
        case
        for case, lines in zip(WHOLE, squeezed, strict=True)
        if diagnose(lines).rule == case["rule"]
    ]
    assert len(right) >= len(WHOLE) * 4 // 5


@pytest.mark.parametrize("how", [*PASTES, "mail"])
@pytest.mark.parametrize("name", HEALTHY)
def test_no_form_of_a_healthy_servers_log_is_a_failure(name: str, how: str) -> None:
    lines = (DATA / "logs" / f"{name}.log").read_text().splitlines()
    assert diagnose(PASTES.get(how, _mail)(lines)).verdict != "failed"


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case["log"])
def test_the_last_30_lines_give_the_same_answer_or_say_what_is_missing(
    case: dict[str, Any],
) -> None:
    found = diagnose(lines_of(case)[-30:])
    if found.rule != case["rule"]:
        assert found.rule == "engine_reason_missing"
        assert "above this line" in found.cause


@pytest.mark.parametrize(
    "exception",
    [
        "RuntimeError: Worker failed with error 'No available memory for the cache blocks.', please"
        " check the stack trace above for the root cause",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.",
    ],
)
def test_an_exception_alone_is_enough(exception: str) -> None:
    assert diagnose([exception]).verdict == "failed"
    assert diagnose([exception]).rule


def test_an_unknown_exception_alone_is_never_called_no_log() -> None:
    found = diagnose(["FrobnicationError: no frobs in the flux"])
    assert found.verdict == "unknown"
    assert "no frobs in the flux" in found.cause
    assert "traceback" in found.fix


# --- what decides between faults that share their words ---


def _dies(*message: str, frames: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> list[str]:
    head = "(EngineCore pid=9) ERROR 11-01 10:00:00 [core.py:700] "
    return [
        BANNER,
        *before,
        head + "EngineCore failed to start.",
        head + "Traceback (most recent call last):",
        *(f'{head}  File "/site-packages/{frame}", line 1, in f' for frame in frames),
        *(head + line for line in message),
    ]


def test_the_lines_after_the_first_belong_to_the_message() -> None:
    found = diagnose(
        _dies(
            "RuntimeError:",
            "        An attempt has been made to start a new process before the",
            "        current process has finished its bootstrapping phase.",
            frames=("x.py",),
        )
    )
    assert found.rule == "script_without_main_guard"


def test_an_unknown_error_is_quoted_with_all_its_lines() -> None:
    found = diagnose(_dies("FluxError:", "no frobs", "in the flux", frames=("a.py",)))
    assert found.cause.endswith("FluxError: no frobs in the flux")


@pytest.mark.parametrize(
    ("frame", "rule"),
    [
        ("vllm/model_executor/layers/fp8.py", "fp8_kernel_failed"),
        ("flashinfer/fp4_gemm.py", "fp4_kernel_failed"),
        ("vllm/_custom_ops.py", "cutlass_failed"),
    ],
)
def test_the_frames_show_which_format_a_cutlass_kernel_computed(frame: str, rule: str) -> None:
    assert diagnose(_dies("RuntimeError: Error Internal", frames=(frame,))).rule == rule


@pytest.mark.parametrize(
    ("frame", "fix"),
    [
        ('torch/cuda/memory.py", line 9, in mem_get_info\n', "does not help here"),
        ('vllm/linear.py", line 9, in create_weights\n', "smaller or more strongly quantized"),
        ('vllm/gpu_worker.py", line 9, in capture_model\n', "capture fewer graphs"),
        ('vllm/gpu_worker.py", line 9, in profile_run\n', "max-num-batched-tokens"),
    ],
)
def test_what_helps_against_a_full_gpu_depends_on_what_was_done(frame: str, fix: str) -> None:
    found = diagnose(_dies("RuntimeError: CUDA error: out of memory", frames=(frame.strip(),)))
    assert found.rule == "gpu_out_of_memory"
    assert fix in found.fix


def test_an_error_of_the_models_own_code_is_told_from_a_broken_image() -> None:
    broken = "ImportError: cannot import name 'x' from 'transformers.utils'"
    own = "transformers_modules/a/modeling_a.py"
    assert diagnose(_dies(broken, frames=("vllm/a.py",))).rule == "library_missing"
    assert diagnose(_dies(broken, frames=(own,))).rule == "models_own_code"


@pytest.mark.parametrize(
    ("module", "rule"),
    [("einops", "module_missing"), ("compressed_tensors.x.y", "package_does_not_fit")],
)
def test_a_part_that_a_package_lacks_is_told_from_a_missing_package(module: str, rule: str) -> None:
    error = f"ModuleNotFoundError: No module named '{module}'"
    assert diagnose(_dies(error, frames=("vllm/a.py",))).rule == rule


def test_what_registry_logged_is_the_root_of_a_failed_inspection() -> None:
    head = "(APIServer pid=1) ERROR 06-04 12:47:11 [registry.py:950] "
    found = diagnose(
        [
            BANNER,
            head + "Error in inspecting model architecture 'A'",
            head + "Traceback (most recent call last):",
            head + '  File "/vllm/a.py", line 1, in <module>',
            head + "FluxError: no frobs",
            "(APIServer pid=1) Traceback (most recent call last):",
            '(APIServer pid=1)   File "/usr/local/bin/vllm", line 10, in <module>',
            "(APIServer pid=1) pydantic_core.ValidationError: 1 validation error for ModelConfig",
            "(APIServer pid=1)   Value error, Model architectures ['A'] failed to be inspected.",
        ]
    )
    assert found.cause.endswith("FluxError: no frobs")


def test_a_kill_of_the_engine_is_told_from_a_log_without_its_reason() -> None:
    failed = (
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. Failed core proc(s): "
    )
    assert "SIGKILL" in diagnose([BANNER, failed + "{'EngineCore': -9}"]).cause
    assert "SIGKILL" in diagnose([BANNER, failed + "{'EngineCore_DP0': 1, 'B': -9}"]).cause
    cut = diagnose([BANNER, failed + "{}"])
    assert cut.rule == "engine_reason_missing"
    assert "memory" not in f"{cut.cause} {cut.fix}"


@pytest.mark.parametrize("frame", ["v1/spec_decode/eagle.py", "a.py"])
def test_an_error_that_was_only_logged_is_no_refused_combination(frame: str) -> None:
    head = "(EngineCore pid=9) ERROR 11-01 10:00:00 [a.py:1] "
    logged = [
        BANNER,
        head + "Traceback (most recent call last):",
        head + f'  File "/site-packages/vllm/{frame}", line 1, in probe',
        head + "ValueError: speculative decoding is not supported with this backend",
    ]
    assert diagnose(logged).verdict == "unknown"


def test_a_host_that_froze_is_no_healthy_server() -> None:
    boot = "-- Boot 3f1c2b0a9d7e4f55a1f0c1d2e3f40516 --"
    assert diagnose([BANNER, READY, boot]).rule == "host_rebooted"
    assert diagnose([boot, BANNER, READY]).verdict == "healthy"


def test_a_process_that_waits_for_another_is_not_told_to_wait() -> None:
    wait = (
        "(EngineCore pid=9) INFO 11-01 10:0{n}:00 [shm_broadcast.py:681] No available shared memory"
        " broadcast block found in 60 seconds."
    )
    found = diagnose([BANNER, *(wait.format(n=n) for n in range(3))])
    assert found.verdict == "unknown"
    assert "waits for another" in found.cause
    assert "every other node" in found.fix


def test_docker_and_systemd_tell_of_a_kill_for_memory() -> None:
    for line in ('        "OOMKilled": true,', "vllm.service: Failed with result 'oom-kill'."):
        assert diagnose([BANNER, line]).cause.startswith("killed for memory")


# --- fixes that the release can follow ---


@pytest.mark.parametrize("version", ["0.10.1", "0.11.0", "0.16.0", "0.22.0", "0.26.0", "0.33.0"])
def test_no_fix_names_a_flag_or_variable_that_the_release_lacks(version: str) -> None:
    release = Version.parse(version)
    for rule in CATALOGUE:
        options = (rule.fix,) if isinstance(rule.fix, str) else rule.fix
        assert can_follow(for_release(options, version), release), rule.id


@pytest.mark.parametrize(
    ("version", "fix"),
    [
        ("0.20.0", "VLLM_NVFP4_GEMM_BACKEND=marlin"),
        ("0.26.0", "linear-backend: marlin"),
        ("0.12.0", "VLLM_NVFP4_GEMM_BACKEND=marlin"),
    ],
)
def test_the_same_kernel_failure_is_avoided_as_each_release_can(version: str, fix: str) -> None:
    error = (
        "RuntimeError: [FP4 gemm Runner] Failed to run cutlass FP4 gemm on sm121. Error Internal"
    )
    found = diagnose(_dies(error, frames=("a.py",)), version=version)
    assert fix in found.fix


def test_variables_are_dated_only_if_some_release_lacks_them() -> None:
    assert all(first or gone for first, gone in VARIABLES.values())


def test_the_advice_on_a_flag_is_the_previews_for_the_same_release() -> None:
    refused = "vllm serve: error: unrecognized arguments: --max-seq-len-to-capture 8192"
    assert "remove it" in diagnose([refused], version="0.11.0").fix
    assert KNOWN["max-seq-len-to-capture"].successor
    assert KNOWN["max-seq-len-to-capture"].successor in diagnose([refused], version="0.12.0").fix


# --- the issue text ---


def test_an_unknown_failure_comes_with_the_text_of_an_issue() -> None:
    arguments = (
        "(APIServer pid=1) INFO 11-01 10:00:00 [utils.py:1] non-default args: {'model': 'org/m',"
        " 'api_key': ['sw0rdfish'], 'max_num_seqs': 4, 'kv_cache_dtype': 'fp8'}"
    )
    found = diagnose(_dies("FluxError: no frobs", frames=("a.py",), before=(arguments,)))
    assert "vLLM: 0.26.0" in found.issue
    assert "--kv-cache-dtype fp8" in found.issue and "--max-num-seqs 4" in found.issue
    assert "FluxError: no frobs" in found.issue
    assert "sw0rdfish" not in found.issue


def test_a_known_failure_needs_no_issue() -> None:
    assert diagnose(_dies("ValueError: Unknown load_format: x")).issue == ""


# --- the catalogue ---


def test_every_pattern_is_found_by_a_word_that_it_needs() -> None:
    for rule in CATALOGUE:
        for pattern in rule.patterns:
            assert needles(pattern), (rule.id, pattern)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{text['rule']}: {text['from']}")
def test_the_words_of_a_text_lead_to_its_rule(text: dict[str, Any]) -> None:
    assert text["rule"] in {rule.id for rule in candidates(text["log"])}


def test_the_gate_knows_a_loss_before_the_last_line_of_its_message() -> None:
    log = LogDiagnosis()
    *before, first, _ = _dies("FluxError: no frobs", "in the flux", frames=("a.py",))
    for line in [*before, first]:
        log.feed(line)
    assert log.final
