"""What a preview says of a stack before anything is deployed: the plan, and what cannot work."""

from __future__ import annotations

from pathlib import Path

import pulumi
import pytest

from tests.stack.conftest import ROOT, Deploy
from vllm_spark.problems import Unmodelled

SPARK = {"max-model-len": 32768, "gpu-memory-utilization": 0.85, "max-num-seqs": 64}


@pytest.mark.parametrize(
    "stack", [path.name.split(".")[1] for path in sorted(Path(ROOT).glob("Pulumi.*.yaml"))]
)
def test_every_stack_of_the_repository_fits_its_host(deploy: Deploy, stack: str) -> None:
    plan = deploy(stack).outputs["server"].review.plan
    assert isinstance(plan, Unmodelled) or plan.kv_tokens > 0


def test_a_stack_whose_model_cannot_be_planned_previews_and_says_why(deploy: Deploy) -> None:
    plan = deploy("spark", model={"id": "nobody/knows-it"}).outputs["server"].review.plan
    assert isinstance(plan, Unmodelled)
    assert "vllm-spark model nobody/knows-it" in plan.reason


def test_a_model_too_large_for_the_host_is_refused_with_a_flag_to_change(deploy: Deploy) -> None:
    with pytest.raises(pulumi.RunError, match=r"vllm-spark:engine\.gpu-memory-utilization"):
        deploy("spark", engine={**SPARK, "gpu-memory-utilization": 0.2})


def test_a_misfit_that_is_allowed_is_a_warning(deploy: Deploy) -> None:
    spark = deploy(
        "spark",
        engine={**SPARK, "gpu-memory-utilization": 0.2},
        host={"allowMisfit": True},
    )
    assert spark.outputs["server"].review.warnings


def test_a_flag_that_the_images_vllm_does_not_have_any_more_names_its_successor(
    deploy: Deploy,
) -> None:
    with pytest.raises(pulumi.RunError, match=r"disable-log-requests"):
        deploy(
            "spark",
            image={"name": "nvcr.io/nvidia/vllm:26.08-py3"},
            engine={**SPARK, "disable-log-requests": True},
        )


def test_a_flag_that_nobody_knows_is_let_through_with_a_warning(deploy: Deploy) -> None:
    spark = deploy("spark", engine={**SPARK, "max-num-seqz": 3})
    (warning,) = spark.outputs["server"].review.warnings
    assert "max-num-seqs" in warning.fix


def test_flags_and_other_keys_are_wrong_in_one_message(deploy: Deploy) -> None:
    with pytest.raises(pulumi.RunError) as failed:
        deploy("spark", engine={"gpu-memory-utilization": 1.5, "api-key": "x"}, stat="running")
    text = str(failed.value)
    assert "gpu-memory-utilization" in text
    assert "vllm-spark:apiKey" in text
    assert "vllm-spark:stat" in text


def test_a_length_beyond_the_models_positions_is_refused(deploy: Deploy) -> None:
    with pytest.raises(pulumi.RunError, match=r"262,?144"):
        deploy("spark", engine={**SPARK, "max-model-len": 500000})


def test_another_quantisation_than_the_checkpoints_is_refused(deploy: Deploy) -> None:
    with pytest.raises(pulumi.RunError, match="quantised with fp8"):
        deploy("spark", engine={**SPARK, "quantization": "awq"})


def test_a_length_beyond_them_is_let_through_where_the_environment_allows_it(
    deploy: Deploy,
) -> None:
    allowed = {"environment": {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}}
    spark = deploy("spark", engine={**SPARK, "max-model-len": 300000}, container=allowed)
    assert spark.outputs["server"].review.plan.max_model_len == 300000


def test_a_length_beyond_them_is_let_through_where_a_flag_stretches_them(deploy: Deploy) -> None:
    rope = {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}
    spark = deploy("spark", engine={**SPARK, "max-model-len": 300000, "hf-overrides": rope})
    assert spark.outputs["server"].review.plan.max_model_len == 300000


def test_the_plan_reads_flags_in_any_spelling(deploy: Deploy) -> None:
    spelled = {"max_model_len": "32k", "gpu-memory-utilization": "0.85", "max-num-seqs": "64"}
    spark = deploy("spark", engine=spelled)
    plan = spark.outputs["server"].review.plan
    assert plan.max_model_len == 32000
    assert plan.limits.utilization == 0.85


def test_a_cpu_engine_that_sizes_its_own_cache_is_not_guessed_at(deploy: Deploy) -> None:
    local = deploy("local", container={"gpus": "none"})
    assert "VLLM_CPU_KVCACHE_SPACE" in local.outputs["server"].review.plan.reason
