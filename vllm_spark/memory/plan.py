"""Will it fit, and what will it give? The answer before anything is downloaded or stopped.

The plan repeats on paper what vLLM does at start: it takes its share of the memory, sets aside
weights and run-time memory, and cuts the rest into blocks of KV cache. What the run takes besides
weights and KV cache differs from start to start, so a plan has two bounds: it promises tokens by
the pessimistic one, and only what fails by the optimistic one too is refused (memory/misfits.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import Version
from vllm_spark.memory.kv.cached_layers import CachedLayers
from vllm_spark.memory.kv.deepseek_v4 import CompressedLatents
from vllm_spark.memory.kv.pool import CacheLayout
from vllm_spark.memory.kv.releases import cache_rules
from vllm_spark.memory.kv.specs import layout_of
from vllm_spark.memory.limits import GIB, MEASURED, Limits, Machine, limits_of
from vllm_spark.memory.overhead import CPU_OVERHEAD, Overhead, overhead
from vllm_spark.memory.shape import Loaded, ModelShape
from vllm_spark.memory.weights.linears import TRITON
from vllm_spark.problems import Unmodelled

PoolSource = Literal[
    "gpu-memory-utilization",
    "kv-cache-memory-bytes",
    "num-gpu-blocks-override",
    "VLLM_CPU_KVCACHE_SPACE",
]


@dataclass(frozen=True)
class MemoryPlan:
    """What one GPU (or the CPU) holds, unrounded, by the pessimistic bound. GiB are 2**30 bytes."""

    shape: ModelShape
    limits: Limits
    host: Machine
    version: Version | None
    layout: CacheLayout
    overhead: Overhead
    weights_gib: float
    requested_gib: float
    """What the process takes by the time it is ready, KV cache included."""
    pool_gib: float
    """What of it is left for the KV cache; negative where not even the weights fit."""
    pool_source: PoolSource
    """The flag that sizes the KV cache."""
    optimistic: MemoryPlan | None = None
    """The same server by the optimistic bound; None on a plan that is that bound."""
    draft_problem: str | None = None
    """Why the draft model is not counted."""

    @property
    def at_best(self) -> MemoryPlan:
        """The optimistic bound."""
        return self.optimistic or self

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one more token leaves in the layers that keep them all.

        With sliding windows or state layers it is no measure of a request: see `sequence_gib`.
        """
        return self.layout.bytes_per_token

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of the cache, the unit that vLLM hands out."""
        return self.layout.block_bytes

    @property
    def kv_blocks(self) -> int:
        """Whole blocks in the pool."""
        return self.layout.blocks(self.pool_gib * GIB)

    @property
    def max_model_len(self) -> int:
        """Longest sequence in tokens; with vLLM's `auto` the longest that the pool can hold."""
        if self.limits.max_model_len is not None:
            return self.limits.max_model_len
        return max(1, self.layout.longest(self.kv_blocks, self.shape.positions))

    @property
    def blocks_per_sequence(self) -> int:
        """Blocks that one sequence of the full length takes."""
        return self.layout.blocks_per_request(self.max_model_len)

    @property
    def sequence_gib(self) -> float:
        """GiB of KV cache that one sequence of the full length takes."""
        return self.blocks_per_sequence * self.block_bytes / GIB

    @property
    def holds_a_sequence(self) -> bool:
        """Whether vLLM's check at start passes: the cache holds one sequence of full length."""
        return self.layout.usable(self.kv_blocks) >= self.blocks_per_sequence

    @property
    def full_length_sequences(self) -> float:
        """Sequences of the full length that the cache holds: vLLM's "Maximum concurrency"."""
        return self.kv_blocks / self.blocks_per_sequence

    @property
    def kv_tokens(self) -> int:
        """Tokens in the cache as vLLM logs them in "GPU KV cache size"."""
        return self.layout.tokens(self.kv_blocks, self.max_model_len)

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
        if self.shape.stored is None:
            notes.append("weights are computed from config.json; `make model` reads the real bytes")
        if self.version is None:
            notes.append("vLLM's release is not known: planned as 0.26, which was measured")
        if self.pool_source != "VLLM_CPU_KVCACHE_SPACE":
            notes += self._notes_about_a_gpu()
        if not self.layout.grows_evenly:
            notes.append(
                "some layers keep a window or a state, so a token has no fixed size: what counts "
                "is the cache for one full sequence"
            )
        if self.limits.tensor_parallel > 1:
            notes.append("NCCL's buffers are not counted: the measurements are of one GPU")
        if self.pool_source == "kv-cache-memory-bytes":
            notes.append("vLLM still refuses to start unless gpu-memory-utilization is free")
        if self.limits.loaded.vision:
            notes += self._notes_about_vision()
        if self.draft_problem:
            notes.append(self.draft_problem)
        notes += [f"{what} is not counted" for what in self.limits.uncounted]
        return notes

    def _notes_about_a_gpu(self) -> list[str]:
        notes = [f"the activation peak grows with {self.overhead.activation_grows_with}"]
        if not self.overhead.graphs_counted:
            notes.append("this vLLM takes its CUDA graphs on top of gpu-memory-utilization")
        if self.shape.pads_experts:
            notes.append(
                f"the experts are counted as {self.limits.loaded.padding.backend} kernels pad "
                "them; other kernels need less, which moe-backend decides"
            )
        if self.host.is_unified:
            notes.append(
                "on unified memory the KV cache loses what other processes take during the start "
                "and gains what the page cache gives back: hence the two bounds"
            )
        return notes

    def _notes_about_vision(self) -> list[str]:
        if self.shape.stored is None and self.shape.vision_parameters is None:
            return ["the vision tower is not counted: its layers are not known here"]
        if self.shape.vision_parameters != 0 and not self.overhead.vision_gib:
            return ["the image encoder's own activations are not counted"]
        return []


def make_plan(
    shape: ModelShape | Unmodelled,
    flags: EngineFlags,
    host: Machine,
    version: Version | None = None,
    cpu_kv_cache_gib: int | None = None,
    draft: ModelShape | Unmodelled | None = None,
) -> MemoryPlan | Unmodelled:
    """Plan one server: `flags` are vLLM's own, `version` is None where it is not known.

    `cpu_kv_cache_gib` is VLLM_CPU_KVCACHE_SPACE and means vLLM for the CPU. `draft` is the draft
    model of `speculative-config`, if it names one. ConfigError lists flags whose values cannot be
    right; what the planner does not know comes back as `Unmodelled`.
    """
    if isinstance(shape, Unmodelled):
        return shape
    limits = limits_of(flags, shape, host, version, on_cpu=cpu_kv_cache_gib is not None)
    if isinstance(limits, Unmodelled):
        return limits
    packed = any(isinstance(layer, CompressedLatents) for layer in shape.cached)
    if packed and limits.speculation.method:
        return Unmodelled("the cache of a drafter beside DeepSeek V4's packed blocks")
    known_draft = draft if isinstance(draft, ModelShape) else None
    drafted: Sequence[CachedLayers] = known_draft.cached if known_draft else ()
    layout = layout_of(shape.cached, limits.cache, cache_rules(version or MEASURED), drafted)
    server = _Server(shape, limits, host, version, layout, cpu_kv_cache_gib)
    weights = least = _weight_bytes(limits.loaded, limits, shape, known_draft) / GIB
    if shape.pads_experts and not limits.chose_backend:
        least = _weight_bytes(replace(limits.loaded, padding=TRITON), limits, shape, known_draft)
        least /= GIB
    return replace(
        server.plan(weights, at_best=False),
        optimistic=server.plan(least, at_best=True),
        draft_problem=_draft_problem(limits, draft),
    )


@dataclass(frozen=True)
class _Server:
    """What both bounds of a plan have in common."""

    shape: ModelShape
    limits: Limits
    host: Machine
    version: Version | None
    layout: CacheLayout
    cpu_kv_cache_gib: int | None

    def plan(self, weights_gib: float, *, at_best: bool) -> MemoryPlan:
        """One bound."""
        limits, on_cpu = self.limits, self.cpu_kv_cache_gib is not None
        taken = (
            CPU_OVERHEAD
            if on_cpu
            else overhead(self.shape, limits, self.host, self.version, at_best=at_best)
        )
        fixed = weights_gib + taken.subtracted_gib
        pool: float
        source: PoolSource
        if self.cpu_kv_cache_gib is not None:
            pool, source = self.cpu_kv_cache_gib, "VLLM_CPU_KVCACHE_SPACE"
        elif limits.kv_blocks is not None:
            pool = limits.kv_blocks * self.layout.block_bytes / GIB
            source = "num-gpu-blocks-override"
        elif limits.kv_pool_bytes is not None:
            pool, source = limits.kv_pool_bytes / GIB, "kv-cache-memory-bytes"
        else:
            pool = limits.utilization * self.host.memory_gib - fixed
            source = "gpu-memory-utilization"
        return MemoryPlan(
            shape=self.shape,
            limits=limits,
            host=self.host,
            version=self.version,
            layout=self.layout,
            overhead=taken,
            weights_gib=weights_gib,
            requested_gib=fixed + pool,
            pool_gib=pool,
            pool_source=source,
        )


def _weight_bytes(
    loaded: Loaded, limits: Limits, shape: ModelShape, draft: ModelShape | None
) -> float:
    """Bytes of model and draft model on one GPU; vLLM does not split a draft model."""
    weights = shape.weight_bytes(
        limits.quantization, limits.dtype_bytes, limits.tensor_parallel, loaded
    )
    if draft is not None:
        weights += draft.weight_bytes(draft.quantization, limits.dtype_bytes, 1)
    return weights


def _draft_problem(limits: Limits, draft: ModelShape | Unmodelled | None) -> str | None:
    speculation = limits.speculation
    if not speculation.needs_model or isinstance(draft, ModelShape):
        return None
    why = f" ({draft.reason})" if isinstance(draft, Unmodelled) else ""
    return f"the draft model of speculative-config is not counted{why}"
