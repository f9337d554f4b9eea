"""What vLLM takes besides weights and KV cache, and which flags decide it.

vLLM profiles itself at start: it runs one widest batch, measures, and gives what is left of its
share to the KV cache. The constants below repeat that measurement on paper. Each is fitted to the
logs of vLLM 0.26.0 on one NVIDIA H200 (139.80 GiB) for Qwen3-30B-A3B FP8 and Llama-3.3-70B FP8, or
to what was seen on DGX Sparks, and says so; what differs between releases was read in the source
of vLLM 0.10.1 to 0.33.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm_spark.images import Version
from vllm_spark.memory.limits import GIB, Limits, Machine, at_least
from vllm_spark.memory.shape import ModelShape

SAMPLER_BYTES_PER_LOGIT = 18
"""The profiled batch ends in the sampler, which holds one row of the vocabulary for each sequence:
the logits in bf16 (2 B) and fp32 (4 B), sorted (4 B) with their indices (8 B). 1024 sequences:
2.64 GiB for the 30B (measured 2.68), 2.33 for the 70B (measured 2.27)."""

FORWARD_ALLOWANCE = 1.21
"""Measured peak over the widest tensors of a layer: 30B, 16,384 tokens, 64 sequences: 1.70 GiB.
For dense models only a bound was measured (70B, 8192 tokens: at most 2.27 GiB; this gives 1.89)."""

NON_TORCH_GIB = 0.24
"""CUDA context and libraries: 0.22 to 0.25 GiB in all measured runs."""

GRAPH_GIB_PER_LAYER = {1: 0.00015, 2: 0.000235}
"""One CUDA graph of one layer, by model runner. Runner 1, 30B: estimated 0.21 GiB for 30 graphs at
64 sequences and 0.74 for 102 at 1024; runner 2, 70B: 1.92 GiB for 102."""

GROWTH_GIB = {1: 1.5, 2: 3.0}
"""Taken beyond the request under load, by model runner, CUDA graphs apart: 30B 120.28 GiB where
118.83 was requested; 70B 130.71 where 125.82 was, 1.92 of it graphs."""

UNIFIED_HOST_GIB = 3.35
"""On unified memory vLLM takes all that the host loses during the start for its own, its processes
included (4.0 GiB resident on the H200's host). This brings the guide's flags to the 5.5 GiB that
Sparks show besides weights and KV cache; 5.4 to 6.7 were seen."""

UNIFIED_HOST_AT_BEST_GIB = 0.25
"""The same where the host gives page cache back meanwhile, which counts in vLLM's favour: of 24
published runs on GB10 the least kept besides weights and KV cache was -2.1 GiB, then -0.75, 1.42
and 1.76, with 0.9 GiB of it activations and CUDA."""

VISION_ACTIVATION_GIB = 3.5
VISION_ACTIVATION_FAMILIES = ("qwen3_5", "gemma4")
"""What the profiling of the vision encoder adds where published runs show it: 8.0 to 8.4 GiB kept
in all for Qwen3.8-27B and Gemma 4 with their towers, 4.2 to 4.9 for text models."""

CPU_PROCESS_GIB = 2.3
"""Resident besides weights and KV cache on the CPU: 3.5 GiB with 0.25 of weights, 1 of cache."""


@dataclass(frozen=True)
class Overhead:
    """GiB on one GPU besides weights and KV cache."""

    activation_gib: float
    activation_grows_with: str
    """The flag that decides the activation peak."""
    non_torch_gib: float
    graphs_gib: float
    graphs_counted: bool
    """Whether vLLM subtracts its CUDA graphs before it sizes the KV cache."""
    host_gib: float
    growth_gib: float
    vision_gib: float = 0.0
    """Activations of the vision encoder, where published runs show them."""
    adapter_gib: float = 0.0
    """Reserve for LoRA adapters."""

    @property
    def subtracted_gib(self) -> float:
        """What vLLM sets aside before it sizes the KV cache."""
        graphs = self.graphs_gib if self.graphs_counted else 0
        encoder = self.vision_gib + self.adapter_gib
        return self.activation_gib + self.non_torch_gib + graphs + self.host_gib + encoder

    @property
    def beyond_request_gib(self) -> float:
        """What the process takes above its share once it serves under load."""
        return self.growth_gib + (0 if self.graphs_counted else self.graphs_gib)


def overhead(
    shape: ModelShape,
    limits: Limits,
    host: Machine,
    version: Version | None,
    *,
    at_best: bool = False,
) -> Overhead:
    """Predict the profiling run of vLLM on a GPU. `at_best` gives the optimistic bound."""
    # Dense models moved to the second runner from 0.24 (Llama, Mistral, Qwen3) and 0.25 (all), MoE
    # models in 0.29. CUDA graphs are subtracted since 0.20, by the second runner since 0.29.
    runner = 2 if at_least(version, "0.29" if shape.experts_per_token else "0.24") else 1
    activation, grows_with = _activation(shape, limits)
    graphs = _captured_graphs(limits) * shape.layers * GRAPH_GIB_PER_LAYER[runner]
    host_gib = UNIFIED_HOST_AT_BEST_GIB if at_best else UNIFIED_HOST_GIB
    encodes = shape.vision_parameters != 0 and limits.loaded.vision
    shown = encodes and shape.family in VISION_ACTIVATION_FAMILIES
    return Overhead(
        activation_gib=activation,
        activation_grows_with=grows_with,
        non_torch_gib=NON_TORCH_GIB,
        graphs_gib=graphs,
        graphs_counted=at_least(version, "0.20" if runner == 1 else "0.29"),
        host_gib=host_gib if host.is_unified else 0,
        growth_gib=0.0 if at_best else GROWTH_GIB[runner],
        vision_gib=VISION_ACTIVATION_GIB if shown and not at_best else 0.0,
        adapter_gib=limits.adapter_gib,
    )


def _activation(shape: ModelShape, limits: Limits) -> tuple[float, str]:
    """GiB at the widest moment of the profiled batch: inside a layer, or in the sampler."""
    attention = 2 * (shape.query_size + shape.kv_heads * shape.head_dim)
    if shape.experts_per_token:
        # The two workspaces of the fused-MoE kernels stay allocated beside the attention.
        gate_up = max(2 * shape.ffn_size, shape.hidden_size)
        down = max(shape.ffn_size, shape.hidden_size)
        widest = attention + shape.experts_per_token * (gate_up + down)
    else:
        widest = max(attention, 3 * shape.ffn_size)  # gate and up, and their product
    batch_bytes = limits.max_num_batched_tokens * limits.dtype_bytes
    residual = 2 * shape.hidden_size
    layer = batch_bytes * (residual + widest / limits.tensor_parallel) * FORWARD_ALLOWANCE
    logits = limits.max_num_seqs * shape.vocabulary
    sampler = batch_bytes * shape.hidden_size + logits * SAMPLER_BYTES_PER_LOGIT
    if layer > sampler:
        return layer / GIB, "max-num-batched-tokens"
    return sampler / GIB, "max-num-seqs"


def _captured_graphs(limits: Limits) -> int:
    """vLLM captures batch sizes 1, 2, 4, then steps of 8 to 256, then of 16 to 512.

    Twice: piecewise to double the number of sequences, and whole to that number.
    """
    if not limits.cuda_graphs:
        return 0
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    widest = min(2 * limits.max_num_seqs, limits.max_num_batched_tokens)
    piecewise = [size for size in sizes if size <= widest]
    whole = [size for size in piecewise if size <= limits.max_num_seqs]
    return len(piecewise) + len(whole)


CPU_OVERHEAD = Overhead(
    activation_gib=0,
    activation_grows_with="",
    non_torch_gib=0,
    graphs_gib=0,
    graphs_counted=True,
    host_gib=CPU_PROCESS_GIB,
    growth_gib=0,
)
"""vLLM on a CPU profiles nothing: VLLM_CPU_KVCACHE_SPACE sizes its KV cache."""
