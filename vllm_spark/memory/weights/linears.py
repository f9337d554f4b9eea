"""One weight matrix, and the bytes that vLLM allocates for it on one GPU.

Kernels for MXFP4 experts need sizes that are multiples of theirs, so which of them vLLM takes
decides about the bytes: gpt-oss-120b has 61 GiB of weights with one and 66 with another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllm_spark.memory.quantization import Quantization

ExpertSide = Literal["", "inputs", "outputs"]


@dataclass(frozen=True)
class ExpertPadding:
    """What the kernels of MXFP4 experts round sizes up to, in elements.

    Source: `mxfp4_round_up_hidden_size_and_intermediate_size` in vLLM's `oracle/mxfp4.py`.
    """

    backend: str
    hidden: int
    intermediate: int


MARLIN = ExpertPadding("Marlin", 256, 128)
"""vLLM's choice for GPUs of the family 12, such as a GB10."""
TRITON = ExpertPadding("Triton", 1, 64)
PADDINGS = {
    "marlin": MARLIN,
    "triton": TRITON,
    "flashinfer_cutlass": ExpertPadding("CUTLASS", 128, 128),
    "cutlass": ExpertPadding("CUTLASS", 128, 128),
    "flashinfer_trtllm": ExpertPadding("TensorRT-LLM", 256, 256),
    "deep_gemm": ExpertPadding("DeepGEMM", 128, 128),
}
"""By the value of `--moe-backend`."""


@dataclass(frozen=True)
class Linear:
    """`copies` equal weight matrices, `copies_read` of which one token passes through.

    `name` is the checkpoint's, since quantisation formats name the layers that they leave alone.
    """

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    copies: int = 1
    copies_read: int = 1
    quantizable: bool = True
    element_bytes: int | None = None
    """Bytes of an element that is never quantised; None is the model's format."""
    drafts: bool = False
    """Whether it belongs to a module of multi-token prediction, loaded only where MTP is on."""
    replicated: bool = False
    """Whether every GPU holds it whole."""
    expert_intermediate: ExpertSide = ""
    """Which side of an expert's matrix is the intermediate size."""

    @property
    def parameters(self) -> int:
        """Elements of all copies, biases included."""
        return self.copies * self.outputs * (self.inputs + self.bias)

    def gpu_bytes(
        self,
        quantization: Quantization | None,
        dtype_bytes: int,
        tensor_parallel: int,
        padding: ExpertPadding,
    ) -> float:
        """Bytes of one copy on one of `tensor_parallel` GPUs."""
        element = self.element_bytes or dtype_bytes
        tensor_parallel = 1 if self.replicated else tensor_parallel
        # Modules of multi-token prediction are in 16 bits in every checkpoint that was seen.
        quantized = self.quantizable and not self.drafts
        form = quantization.form_of(self.name) if quantization and quantized else None
        if form is None:
            return self.outputs * (self.inputs + self.bias) * element / tensor_parallel
        if form.mxfp4 and self.expert_intermediate:
            return self._padded_bytes(form, element, tensor_parallel, padding)
        biases = self.outputs * self.bias * element
        return (form.matrix_bytes(self.inputs, self.outputs) + biases) / tensor_parallel

    def _padded_bytes(
        self, form: Quantization, element: int, tensor_parallel: int, padding: ExpertPadding
    ) -> float:
        split_inputs = self.expert_intermediate == "inputs"
        inputs = self.inputs // (tensor_parallel if split_inputs else 1)
        outputs = self.outputs // (1 if split_inputs else tensor_parallel)
        inputs = _rounded(inputs, padding.intermediate if split_inputs else padding.hidden)
        outputs = _rounded(outputs, padding.hidden if split_inputs else padding.intermediate)
        return form.matrix_bytes(inputs, outputs) + outputs * self.bias * element


def _rounded(size: int, step: int) -> int:
    return -(-size // step) * step
