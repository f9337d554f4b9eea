"""The engine flags and the host that decide about memory, with vLLM's own defaults filled in.

vLLM's defaults depend on its release and on the size of the device, so a flag that is absent from
a config still has a value here. Read in the source of vLLM 0.10.1 to 0.33.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vllm_spark.errors import ConfigError
from vllm_spark.flags.checks import integer, is_auto_length
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.flags.history import WHERE
from vllm_spark.images import Version
from vllm_spark.memory.kv.specs import CacheFlags
from vllm_spark.memory.loading import (
    Speculation,
    adapter_bytes,
    is_pooling,
    loaded_parts,
    speculation_of,
)
from vllm_spark.memory.quantization import Quantization, fp8_per_tensor
from vllm_spark.memory.shape import Loaded, ModelShape
from vllm_spark.problems import Problem, Unmodelled

GIB = 2**30

MEASURED = Version.parse("0.26.0")
"""The release of the logs that the constants are fitted to. It stands for an unknown release."""

LARGEST_UNIFIED_GIB = 128
"""A Spark has 128 GB and shows 119.6 to 121.7 GiB; a GPU with more is no Spark's."""


@dataclass(frozen=True)
class Machine:
    """The memory that weights, KV cache and everything else must share.

    `unified` says whether host and GPU share it, as on a Spark; None leaves it to the size.
    """

    memory_gib: float = 121.69
    bandwidth_gb_per_s: float = 273.0
    unified: bool | None = None

    @property
    def is_unified(self) -> bool:
        """Whether host and GPU share one memory."""
        return self.memory_gib <= LARGEST_UNIFIED_GIB if self.unified is None else self.unified


@dataclass(frozen=True)
class Limits:
    """The engine flags that decide about memory, with vLLM's defaults filled in."""

    utilization: float
    max_model_len: int | None
    """None is vLLM's `auto`: as long as fits."""
    max_num_seqs: int
    kv_pool_bytes: int | None
    kv_blocks: int | None
    cuda_graphs: bool
    quantization: Quantization | None
    cache: CacheFlags
    """What decides about the KV cache."""
    loaded: Loaded
    """Which parts of the model are loaded."""
    speculation: Speculation
    chose_backend: bool
    """Whether moe-backend says which kernels the experts use."""
    adapter_gib: float
    """GiB reserved for LoRA adapters."""
    uncounted: tuple[str, ...]
    """What these flags add that the plan leaves out."""

    @property
    def max_num_batched_tokens(self) -> int:
        """Tokens of the widest batch."""
        return self.cache.max_num_batched_tokens

    @property
    def block_size(self) -> int:
        """Tokens in a block as the flags have it; the layers may need longer ones."""
        return self.cache.block_tokens

    @property
    def kv_element_bytes(self) -> int:
        """Bytes of a number in the KV cache."""
        return self.cache.element_bytes

    @property
    def dtype_bytes(self) -> int:
        """Bytes of a number that is not quantised."""
        return self.cache.dtype_bytes

    @property
    def tensor_parallel(self) -> int:
        """GPUs that share each layer."""
        return self.cache.tensor_parallel


_UNCOUNTED = {
    "cpu-offload-gb": "what cpu-offload-gb moves to the host's memory",
    "kv-transfer-config": "what a KV connector keeps",
}
_STATE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def at_least(version: Version | None, minimum: str) -> bool:
    """Whether a release is `minimum` or later; an unknown one counts as the measured one."""
    return (version or MEASURED) >= Version.parse(minimum)


def default_utilization(version: Version | None) -> float:
    """vLLM's own gpu-memory-utilization, the share of the device that it takes by default."""
    return 0.92 if at_least(version, "0.20") else 0.9


def limits_of(
    flags: EngineFlags,
    shape: ModelShape,
    host: Machine,
    version: Version | None,
    on_cpu: bool,
) -> Limits | Unmodelled:
    """Read vLLM's own flags. ConfigError lists every number that cannot be right."""
    read = _FlagReader(flags)
    batched, seqs = _default_batch(host, version)
    utilization = read.fraction("gpu-memory-utilization", default_utilization(version))
    max_model_len: int | None = None
    if not is_auto_length(flags.get("max-model-len")):
        max_model_len = read.whole("max-model-len", shape.positions)
    max_num_seqs = read.whole("max-num-seqs", seqs)
    batched = read.whole("max-num-batched-tokens", batched)
    block = read.whole("block-size", 128 if on_cpu else 16)
    tensor_parallel = read.whole("tensor-parallel-size", 1)
    kv_pool_bytes = read.maybe_whole("kv-cache-memory-bytes")
    kv_blocks = read.maybe_whole("num-gpu-blocks-override")
    heads = shape.query_size // shape.head_dim
    if heads % tensor_parallel:
        read.refuse(
            "tensor-parallel-size",
            f"the model's {heads} attention heads cannot be split over {tensor_parallel}",
            "give a number that divides them, such as 2",
        )
    pipeline = read.whole("pipeline-parallel-size", 1)
    read.raise_if_refused()
    if pipeline > 1:
        return Unmodelled("pipeline-parallel-size splits the layers unevenly over several hosts")
    dtype_bytes = 4 if flags.get("dtype") in ("float32", "float") else 2
    element = _kv_element_bytes(flags, shape, dtype_bytes)
    quantization = _quantization(flags, shape)
    if isinstance(element, Unmodelled):
        return element
    if isinstance(quantization, Unmodelled):
        return quantization
    speculation = speculation_of(flags)
    pooling = is_pooling(flags, shape)
    return Limits(
        utilization=utilization,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        kv_pool_bytes=kv_pool_bytes,
        kv_blocks=kv_blocks,
        cuda_graphs=not flags.get("enforce-eager"),
        quantization=quantization,
        cache=CacheFlags(
            element_bytes=element,
            dtype_bytes=dtype_bytes,
            block_tokens=block,
            tensor_parallel=tensor_parallel,
            max_num_batched_tokens=batched,
            drafted_tokens=speculation.tokens,
            drafts_with_mtp=speculation.uses_checkpoint,
            caches_prefixes=False if pooling else _switch(flags, "enable-prefix-caching"),
            async_scheduling=not pooling and _switch(flags, "async-scheduling") is not False,
            state_bytes=_STATE_BYTES.get(str(flags.get("mamba-ssm-cache-dtype"))),
            conv_bytes=_STATE_BYTES.get(str(flags.get("mamba-cache-dtype"))),
            hybrid_manager=not flags.get("disable-hybrid-kv-cache-manager"),
        ),
        loaded=loaded_parts(flags, shape, speculation),
        speculation=speculation,
        chose_backend=bool(flags.get("moe-backend")),
        adapter_gib=adapter_bytes(flags, shape, tensor_parallel) / GIB,
        uncounted=tuple(what for flag, what in _UNCOUNTED.items() if flags.get(flag)),
    )


def _switch(flags: EngineFlags, name: str) -> bool | None:
    """A flag that is on, off, or left to vLLM."""
    value = flags.get(name)
    return None if value is None else bool(value)


def cpu_kv_cache_gib(environment: Mapping[str, str]) -> int | None:
    """VLLM_CPU_KVCACHE_SPACE in whole GiB, None where it is not set. ConfigError if not whole."""
    space = environment.get("VLLM_CPU_KVCACHE_SPACE")
    if not space:
        return None
    if not space.isdecimal() or int(space) == 0:
        where = "vllm-spark:container.environment.VLLM_CPU_KVCACHE_SPACE"
        what = f"{space!r} is not a whole number of GiB"
        raise ConfigError([Problem(where, what, "give one, such as 4")])
    return int(space)


def _kv_element_bytes(flags: EngineFlags, shape: ModelShape, dtype_bytes: int) -> int | Unmodelled:
    kv_dtype = flags.get("kv-cache-dtype") or "auto"
    if kv_dtype == "auto":
        return 1 if shape.fp8_kv_cache else dtype_bytes
    if kv_dtype in ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla"):
        return 1
    if kv_dtype in ("bfloat16", "float16"):
        return 2
    return Unmodelled(f"the KV cache format {kv_dtype}")


def _quantization(flags: EngineFlags, shape: ModelShape) -> Quantization | Unmodelled | None:
    method = flags.get("quantization")
    if shape.quantization is not None or not method:
        return shape.quantization
    if method == "fp8":
        return fp8_per_tensor()
    return Unmodelled(f"quantisation with {method} on load")


def _default_batch(host: Machine, version: Version | None) -> tuple[int, int]:
    """max-num-batched-tokens and max-num-seqs of a server, by the device (`get_batch_defaults`).

    A GB10 does not answer vLLM's question for its memory, so it counts as the smallest GPU; since
    0.33 vLLM says so by name.
    """
    if host.is_unified:
        return 2048, 256
    if host.memory_gib >= 160 and at_least(version, "0.28"):
        return 16384, 1024
    return (8192, 1024) if host.memory_gib >= 70 else (2048, 256)


class _FlagReader:
    """Reads numbers and collects those that cannot be right, so that one error lists them all."""

    def __init__(self, flags: EngineFlags) -> None:
        self._flags = flags
        self._problems: list[Problem] = []

    def fraction(self, flag: str, default: float) -> float:
        value = self._flags.get(flag)
        if value is None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
            return float(value)
        self.refuse(flag, f"{value!r} is not a share of the memory", "give a number from 0.1 to 1")
        return default

    def whole(self, flag: str, default: int) -> int:
        found = self.maybe_whole(flag)
        return default if found is None else found

    def maybe_whole(self, flag: str) -> int | None:
        value = self._flags.get(flag)
        if value is None:
            return None
        number = integer(value)
        if number is None or number <= 0:
            self.refuse(
                flag, f"{value!r} is not a positive whole number", "give one, such as 8192 or 8k"
            )
            return None
        return number

    def refuse(self, flag: str, what: str, fix: str) -> None:
        self._problems.append(Problem(f"{WHERE}.{flag}", what, fix))

    def raise_if_refused(self) -> None:
        if self._problems:
            raise ConfigError(self._problems)
