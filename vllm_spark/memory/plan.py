"""Will it fit, and what will it give? The answer before anything is downloaded or stopped.

The plan repeats on paper what vLLM does at start: it takes its share of the memory, sets aside
weights and run-time memory, and cuts the rest into blocks of KV cache. What cannot work is a
`Problem` with the flag to change and the value to change it to (engine/fit.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import Version
from vllm_spark.memory.limits import GIB, Limits, Machine, at_least, limits_of
from vllm_spark.memory.overhead import CPU_OVERHEAD, Overhead, overhead
from vllm_spark.memory.shape import ModelShape
from vllm_spark.problems import Unmodelled

PoolSource = Literal[
    "gpu-memory-utilization",
    "kv-cache-memory-bytes",
    "num-gpu-blocks-override",
    "VLLM_CPU_KVCACHE_SPACE",
]


@dataclass(frozen=True)
class MemoryPlan:
    """What one GPU (or the CPU) holds, unrounded. GiB are 2**30 bytes."""

    shape: ModelShape
    limits: Limits
    host: Machine
    version: Version | None
    overhead: Overhead
    weights_gib: float
    requested_gib: float
    """What the process takes by the time it is ready, KV cache included."""
    pool_gib: float
    """What of it is left for the KV cache; negative where not even the weights fit."""
    pool_source: PoolSource
    """The flag that sizes the KV cache."""

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token leaves in the cache."""
        return self.shape.kv_bytes_per_token(
            self.limits.kv_element_bytes, self.limits.tensor_parallel
        )

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of the cache, the unit that vLLM hands out."""
        return self.kv_bytes_per_token * self.limits.block_size

    @property
    def kv_blocks(self) -> int:
        """Whole blocks in the pool."""
        return max(0, int(self.pool_gib * GIB // self.block_bytes))

    @property
    def max_model_len(self) -> int:
        """Longest sequence in tokens; with vLLM's `auto` the longest that the pool can hold."""
        if self.limits.max_model_len is not None:
            return self.limits.max_model_len
        return max(1, min(self.shape.positions, self.kv_blocks * self.limits.block_size))

    @property
    def blocks_per_sequence(self) -> int:
        """Blocks that one sequence of the full length takes."""
        return math.ceil(self.max_model_len / self.limits.block_size)

    @property
    def full_length_sequences(self) -> float:
        """Sequences of the full length that the cache holds: vLLM's "Maximum concurrency"."""
        return self.kv_blocks / self.blocks_per_sequence

    @property
    def kv_tokens(self) -> int:
        """Tokens in the cache as vLLM logs them: since 0.20 in whole sequences' worth of blocks."""
        if at_least(self.version, "0.20"):
            return int(self.full_length_sequences * self.max_model_len)
        return self.kv_blocks * self.limits.block_size

    @property
    def headroom_gib(self) -> float:
        """What is left to the rest of the host once the server is under load."""
        return self.host.memory_gib - self.requested_gib - self.overhead.beyond_request_gib

    @property
    def gigabytes_read_per_token(self) -> float:
        """10**9 bytes of weights that the memory must deliver for one token of one sequence."""
        read = self.shape.bytes_read_per_token(
            self.limits.quantization, self.limits.dtype_bytes, self.limits.tensor_parallel
        )
        return read / 1e9

    @property
    def roofline_tokens_per_second(self) -> float:
        """Tokens a second of one sequence if nothing but reading the weights took time.

        Sparks reach 50 to 75 % of it. The KV cache is left out: it matters for long contexts only.
        """
        return self.host.bandwidth_gb_per_s / self.gigabytes_read_per_token

    def notes(self) -> list[str]:
        """What a reader of the numbers should know about them; without numbers that change."""
        notes = []
        if self.version is None:
            notes.append("vLLM's release is not known: planned as 0.26, which was measured")
        if self.pool_source != "VLLM_CPU_KVCACHE_SPACE":
            notes.append(f"the activation peak grows with {self.overhead.activation_grows_with}")
            if not self.overhead.graphs_counted:
                notes.append("this vLLM takes its CUDA graphs on top of gpu-memory-utilization")
            if self.host.is_unified:
                notes.append(
                    "on unified memory the KV cache loses what other processes take during the "
                    "start: up to 1.2 GiB were seen on Sparks"
                )
        if self.limits.tensor_parallel > 1:
            notes.append("NCCL's buffers are not counted: the measurements are of one GPU")
        if self.pool_source == "kv-cache-memory-bytes":
            notes.append("vLLM still refuses to start unless gpu-memory-utilization is free")
        if self.shape.vision_parameters is None:
            notes.append("the vision tower is not counted: its layers are not known here")
        if self.shape.vision_parameters != 0:
            notes.append("the image encoder's own activations are not counted")
        notes += [f"{what} is not counted" for what in self.limits.uncounted]
        return notes


def make_plan(
    shape: ModelShape | Unmodelled,
    flags: EngineFlags,
    host: Machine,
    version: Version | None = None,
    cpu_kv_cache_gib: int | None = None,
) -> MemoryPlan | Unmodelled:
    """Plan one server: `flags` are vLLM's own, `version` is None where it is not known.

    `cpu_kv_cache_gib` is VLLM_CPU_KVCACHE_SPACE and means the CPU engine. ConfigError lists flags
    whose values cannot be right; what the planner does not know comes back as `Unmodelled`.
    """
    if isinstance(shape, Unmodelled):
        return shape
    on_cpu = cpu_kv_cache_gib is not None
    limits = limits_of(flags, shape, host, version, on_cpu)
    if isinstance(limits, Unmodelled):
        return limits
    weights = shape.weight_bytes(limits.quantization, limits.dtype_bytes, limits.tensor_parallel)
    taken = CPU_OVERHEAD if on_cpu else overhead(shape, limits, host, version)
    fixed = weights / GIB + taken.subtracted_gib
    block_bytes = limits.block_size * shape.kv_bytes_per_token(
        limits.kv_element_bytes, limits.tensor_parallel
    )
    pool: float
    source: PoolSource
    if cpu_kv_cache_gib is not None:
        pool, source = cpu_kv_cache_gib, "VLLM_CPU_KVCACHE_SPACE"
    elif limits.kv_blocks is not None:
        pool, source = limits.kv_blocks * block_bytes / GIB, "num-gpu-blocks-override"
    elif limits.kv_pool_bytes is not None:
        pool, source = limits.kv_pool_bytes / GIB, "kv-cache-memory-bytes"
    else:
        pool = limits.utilization * host.memory_gib - fixed
        source = "gpu-memory-utilization"
    return MemoryPlan(
        shape=shape,
        limits=limits,
        host=host,
        version=version,
        overhead=taken,
        weights_gib=weights / GIB,
        requested_gib=fixed + pool,
        pool_gib=pool,
        pool_source=source,
    )
