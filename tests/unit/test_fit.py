"""What a plan says: problems whose fixes work, an output that diffs well, `make fit`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli import vllm_spark
from vllm_spark.cli.fit import flags_of
from vllm_spark.errors import ConfigError
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import Version
from vllm_spark.memory.known_models import known_shapes
from vllm_spark.memory.limits import Machine, cpu_kv_cache_gib
from vllm_spark.memory.misfits import fits, problems_of, warnings_of
from vllm_spark.memory.model_config import shape_of
from vllm_spark.memory.plan import MemoryPlan, make_plan
from vllm_spark.memory.report import output_of, table
from vllm_spark.problems import Problem, Unmodelled

QWEN_30B = "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"
QWEN_32B = "Qwen/Qwen3-32B-FP8"
LLAMA_70B = "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
MODELS = Path(__file__).parents[2] / "models"
QWEN_30B_CONFIG = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
GUIDE = {
    "max-model-len": 32768,
    "gpu-memory-utilization": 0.85,
    "max-num-batched-tokens": 16384,
    "max-num-seqs": 64,
}


def planned(
    model: str, flags: dict[str, Any], host: Machine | None = None, cpu_gib: int | None = None
) -> MemoryPlan:
    release = Version.parse("0.26")
    flags_read = EngineFlags(flags)
    plan = make_plan(known_shapes()[model], flags_read, host or Machine(), release, cpu_gib)
    assert isinstance(plan, MemoryPlan), plan
    return plan


def only_problem(plan: MemoryPlan) -> Problem:
    (problem,) = problems_of(plan)
    return problem


def test_the_guides_flags_fit_a_spark() -> None:
    assert problems_of(planned(QWEN_30B, GUIDE)) == []


def test_weights_beyond_the_share_are_refused_with_the_share_that_holds_them() -> None:
    problem = only_problem(planned(LLAMA_70B, GUIDE | {"gpu-memory-utilization": 0.5}))
    assert problem.where == "vllm-spark:engine.gpu-memory-utilization"
    assert "67.72 GiB of weights" in problem.what
    assert problem.fix == "set gpu-memory-utilization to at least 0.7"


def test_one_sequence_beyond_the_pool_is_refused_with_the_length_that_fits() -> None:
    flags = GUIDE | {"gpu-memory-utilization": 0.30, "max-model-len": 262144}
    problem = only_problem(planned(QWEN_30B, flags, Machine(139.80)))
    assert problem.where == "vllm-spark:engine.max-model-len"
    longest = int(re.findall(r"at most (\d+)", problem.fix)[0])
    assert longest == pytest.approx(116_400, rel=0.03)  # vLLM's own estimate at these flags
    assert "gpu-memory-utilization to at least 0.4" in problem.fix


def test_a_cache_in_fp8_is_offered_where_it_is_enough() -> None:
    flags = {"gpu-memory-utilization": 0.80, "max-model-len": 131072}
    assert "kv-cache-dtype to fp8" in only_problem(planned(LLAMA_70B, flags)).fix
    problems = problems_of(planned(LLAMA_70B, flags | {"kv-cache-dtype": "fp8"}))
    assert problems == []


def test_a_plan_that_leaves_the_host_less_than_8_gib_is_a_risk_with_a_fix() -> None:
    plan = planned(QWEN_30B, GUIDE | {"gpu-memory-utilization": 0.95})
    assert plan.headroom_gib < 8
    assert problems_of(plan) == []
    (doubt,) = warnings_of(plan)
    assert doubt.where == "vllm-spark:engine.gpu-memory-utilization"
    assert doubt.fix == "lower gpu-memory-utilization to at most 0.92"
    assert fits(plan) == "yes"


def test_a_plan_that_leaves_the_host_next_to_nothing_is_refused() -> None:
    problem = only_problem(planned(QWEN_30B, GUIDE | {"gpu-memory-utilization": 0.99}))
    assert "at least 3" in problem.what
    assert problem.fix == "lower gpu-memory-utilization to at most 0.92"


@pytest.mark.parametrize("model", [QWEN_30B, QWEN_32B, LLAMA_70B])
def test_what_people_run_at_090_passes(model: str) -> None:
    plan = planned(model, {"gpu-memory-utilization": 0.90, "max-model-len": 16384})
    assert problems_of(plan) == []


def test_what_vllm_takes_beyond_its_request_counts_against_the_host() -> None:
    plan = planned(QWEN_32B, {"gpu-memory-utilization": 0.92, "max-model-len": 32768})
    (doubt,) = warnings_of(plan)
    assert f"{plan.overhead.beyond_request_gib:.2f} more" in doubt.what


def test_a_plan_between_its_bounds_may_fit_and_is_not_refused() -> None:
    """As ran: Qwen3-30B-A3B in 16 bits, 0.49 of a Spark, of which vLLM kept less than nothing."""
    shape = shape_of({**QWEN_30B_CONFIG, "max_position_embeddings": 40960})
    flags = {"max-model-len": 16384, "gpu-memory-utilization": 0.49, "enforce-eager": True}
    plan = make_plan(shape, EngineFlags(flags), Machine(), Version.parse("0.19"))
    assert isinstance(plan, MemoryPlan)
    assert problems_of(plan) == []
    assert fits(plan) == "maybe"
    (doubt,) = warnings_of(plan)
    assert "at best" in doubt.what or "at best" in table(plan, "m")
    assert table(plan, "m").startswith("Memory plan for m: MAY NOT FIT")


def test_a_gpu_with_memory_of_its_own_may_be_filled() -> None:
    assert (
        problems_of(planned(LLAMA_70B, GUIDE | {"gpu-memory-utilization": 0.95}, Machine(139.8)))
        == []
    )


def test_bytes_beyond_the_memory_are_refused_as_vllm_runs_out_of_it() -> None:
    plan = planned(QWEN_30B, GUIDE | {"kv-cache-memory-bytes": "130G"}, Machine(139.80))
    problem = only_problem(plan)
    assert problem.where == "vllm-spark:engine.kv-cache-memory-bytes"
    most = int(problem.fix.removeprefix("lower kv-cache-memory-bytes to at most "))
    assert most == pytest.approx(115_774_877_696, rel=0.03)  # as vLLM's log advises


def test_a_model_beyond_the_host_needs_another_model() -> None:
    shape = known_shapes()[LLAMA_70B]
    plan = make_plan(shape, EngineFlags(), Machine(memory_gib=60))
    assert isinstance(plan, MemoryPlan)
    assert all("smaller" in problem.fix for problem in problems_of(plan))


def test_a_cpu_cache_too_small_for_one_sequence_names_the_space_to_set() -> None:
    problem = only_problem(planned(QWEN_32B, {"max-model-len": 32768}, cpu_gib=4))
    assert (
        problem.fix == "set max-model-len to at most 16384, or VLLM_CPU_KVCACHE_SPACE to at least 8"
    )


def test_a_cpu_may_leave_less_than_8_gib_to_a_laptop() -> None:
    assert problems_of(planned(SMOLLM2, {"max-model-len": 2048}, Machine(8), cpu_gib=1)) == []


@pytest.mark.parametrize("space", ["1.5", "0", "all"])
def test_a_cpu_cache_that_is_no_whole_number_is_refused(space: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(space))):
        cpu_kv_cache_gib({"VLLM_CPU_KVCACHE_SPACE": space})


@given(
    st.sampled_from([QWEN_30B, QWEN_32B, LLAMA_70B]),
    st.fixed_dictionaries(
        {
            "gpu-memory-utilization": st.floats(0.05, 1),
            "max-model-len": st.integers(1, 40960),
            "max-num-seqs": st.integers(1, 1024),
        },
        optional={
            "kv-cache-memory-bytes": st.integers(1, 2**37),
            "num-gpu-blocks-override": st.integers(1, 2**17),
        },
    ),
    st.floats(16, 250),
)
def test_following_a_fix_solves_its_problem(
    model: str, flags: dict[str, Any], memory_gib: float
) -> None:
    host = Machine(memory_gib)
    for problem in problems_of(planned(model, flags, host)):
        changes = re.findall(r"([a-z-]+) to (?:at \w+ )?([\d.]+|fp8)", problem.fix)
        alternatives = [changes] if " and " in problem.fix else [[change] for change in changes]
        for alternative in alternatives:
            fixed = flags | {
                flag: value if value == "fp8" else float(value) for flag, value in alternative
            }
            left = problems_of(planned(model, fixed, host))
            assert problem.what not in {other.what for other in left}
            assert problem.where not in {other.where for other in left}, alternative


def test_the_output_has_what_a_preview_and_a_program_need() -> None:
    output = output_of(planned(QWEN_30B, GUIDE))
    assert output["weightsGiB"] == 29.1
    assert output["kvBytesPerToken"] == 98_304
    assert output["kvTokens"] == pytest.approx(753_000, rel=0.03)
    assert output["fits"] == "yes"
    assert output["kvGiBPerFullSequence"] == 3.0
    at_best = output["atBest"]
    assert isinstance(at_best, dict)
    assert at_best["kvTokens"] > output["kvTokens"]
    assert json.loads(json.dumps(output)) == output


def test_a_changed_flag_changes_the_output() -> None:
    before, after = (
        output_of(planned(QWEN_30B, GUIDE | {"max-num-batched-tokens": tokens}))
        for tokens in (16384, 8192)
    )
    changed = {key for key in before if before[key] != after[key]}
    assert {"activationGiB", "kvTokens", "kvPoolGiB"} <= changed
    assert "weightsGiB" not in changed


def test_a_model_that_is_not_modelled_has_a_reason_and_no_numbers() -> None:
    output = output_of(Unmodelled("sliding windows"))
    assert output["notModelled"] == "sliding windows"
    assert output["kvTokens"] is None
    assert output["fits"] is None
    assert output.keys() >= output_of(planned(QWEN_30B, GUIDE)).keys()


def test_the_table_says_first_whether_it_fits() -> None:
    fitting = table(planned(QWEN_30B, GUIDE), "m").splitlines()
    misfit = table(planned(QWEN_30B, GUIDE | {"gpu-memory-utilization": 0.2}), "m").splitlines()
    assert fitting[0] == "Memory plan for m: fits"
    assert misfit[0] == "Memory plan for m: DOES NOT FIT"
    assert misfit[-1].strip().startswith("fix:")
    assert max(map(len, fitting)) <= 110


def test_make_fit_plans_any_config_json(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "model_type": "qwen3",
                "hidden_size": 4096,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "num_hidden_layers": 36,
                "vocab_size": 151936,
                "max_position_embeddings": 40960,
                "intermediate_size": 12288,
                "tie_word_embeddings": False,
            }
        )
    )
    engine = "--engine=--max-model-len 32768 --gpu-memory-utilization=0.5 --enforce-eager"
    ran = vllm_spark("fit", "--model", str(path), engine, "--memory-gib", "139.8", "--json")
    assert ran.exit_code == 0
    output = json.loads(ran.stdout)
    assert output["weightsGiB"] == pytest.approx(15.27, rel=0.01)
    assert output["kvBytesPerToken"] == 147_456
    assert output["requestedGiB"] == 69.9
    assert output["problems"] == []


def test_make_fit_exits_1_and_prints_the_fix_of_a_misfit() -> None:
    model = str(MODELS / "llama-3.3-70b-instruct-fp8-dynamic.yaml")
    ran = vllm_spark("fit", "--model", model, "--engine=--gpu-memory-utilization 0.5")
    assert ran.exit_code == 1
    assert "DOES NOT FIT" in ran.stdout
    assert "gpu-memory-utilization to" in ran.stdout


def fitted(*arguments: str) -> dict[str, Any]:
    output: dict[str, Any] = json.loads(vllm_spark("fit", *arguments, "--json").stdout)
    return output


def test_make_fit_tries_flags_and_memory_on_a_stack_and_keeps_its_others() -> None:
    as_it_is = fitted("--stack", "spark")
    other_length = fitted("--stack", "spark", "--engine=--max_model_len 16K")
    more_memory = fitted("--stack", "spark", "--memory-gib", "139.8")
    assert (as_it_is["maxModelLen"], other_length["maxModelLen"]) == (32768, 16384)
    assert other_length["kvTokens"] == as_it_is["kvTokens"], "the share of the memory is the same"
    assert more_memory["kvTokens"] > as_it_is["kvTokens"]


def test_make_fit_names_a_flag_that_nobody_knows_and_plans_without_it() -> None:
    model = str(MODELS / "qwen3-32b-fp8.yaml")
    engine = "--engine=--max-modle-len 8192 --gpu-memory-utilization 0.8"
    printed = vllm_spark("fit", "--model", model, engine)
    assert "write max-model-len" in printed.stderr
    assert printed.stdout.startswith(f"Memory plan for {model}: fits")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--stack", "sprak"], "choose one of"),
        (["--stack", "spark", "--engine=--max-model-len 1M"], "262,144 positions"),
        (["--stack", "spark", "--engine=--kv-cache-memory-bytes 20G"], "since 0.10.2"),
        (["--model", "/nowhere/config.json"], "/nowhere/config.json"),
        (["--model", __file__], "is not valid"),
        (
            ["--model", str(MODELS / "qwen3-32b-fp8.yaml"), "--engine=--max-num-seqs '4"],
            "quotation",
        ),
        (
            ["--model", str(MODELS / "qwen3-32b-fp8.yaml"), "--engine=--max-num-seqs 0"],
            "vllm-spark:engine.max-num-seqs",
        ),
    ],
)
def test_make_fit_answers_wrong_input_with_a_sentence_and_exit_code_2(
    arguments: list[str], said: str
) -> None:
    printed = vllm_spark("fit", *arguments)
    assert printed.exit_code == 2
    assert printed.stdout == ""
    assert said in printed.stderr
    assert "fix:" in printed.stderr


@pytest.mark.parametrize(
    "option", [["--vllm", "newest"], ["--host", "toaster"], ["--memory-gib", "0"]]
)
def test_make_fit_refuses_a_release_a_host_and_a_memory_that_are_none(option: list[str]) -> None:
    model = str(MODELS / "qwen3-32b-fp8.yaml")
    assert vllm_spark("fit", "--model", model, *option).exit_code == 2


@pytest.mark.parametrize("memory", ["0", "-1", "nan", "much"])
def test_make_fit_refuses_a_memory_that_is_none(memory: str) -> None:
    model = str(MODELS / "qwen3-32b-fp8.yaml")
    assert vllm_spark("fit", "--model", model, f"--memory-gib={memory}").exit_code == 2


@pytest.mark.parametrize(
    "line",
    [
        """--hf-overrides {"a": {"b": "c d"}} --max-num-seqs 8""",
        """--hf-overrides={"a": {"b": "c d"}} --max-num-seqs=8""",
        """--hf-overrides '{"a": {"b": "c d"}}' --max-num-seqs '8'""",
        """--hf-overrides "{\\"a\\": {\\"b\\": \\"c d\\"}}"\n--max-num-seqs "8\"""",
    ],
)
def test_a_json_value_needs_no_quotation_marks_of_its_own(line: str) -> None:
    assert dict(flags_of(line)) == {"hf-overrides": {"a": {"b": "c d"}}, "max-num-seqs": 8}


@pytest.mark.parametrize(
    "line", ["--x {a", "--x '{\"a\": 1} b' --y", '--x {"a":1}b', "--x a\\ b #c"]
)
def test_any_other_line_is_read_as_a_shell_reads_it(line: str) -> None:
    assert dict(flags_of(line)) == dict(EngineFlags.from_argv(shlex.split(line)))
