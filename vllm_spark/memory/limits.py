"""The engine flags and the host that decide about memory, with vLLM's own defaults filled in.

vLLM's defaults depend on its release and on the size of the device, so a flag that is absent from
a config still has a value here. Read in the source of vLLM 0.10.1 to 0.33.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vllm_spark.errors import ConfigError
from vllm_spark.flags.checks import integer, is_auto_length
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.flags.history import WHERE
from vllm_spark.images import Version
from vllm_spark.memory.quantization import Quantization, fp8_per_tensor
from vllm_spark.memory.shape import ModelShape
from vllm_spark.problems import Problem, Unmodelled

GIB = 2**30

MEASURED = Version.parse("0.26.0")
"""The release whose logs the constants are fitted to; a plan for an unknown release is for it."""

LARGEST_UNIFIED_GIB = 128
"""A Spark has 128 GB and shows 119.6 to 121.7 GiB; what has more is a data-centre GPU."""


@dataclass(frozen=True)
class Machine:
    """The memory that weights, KV cache and everything else must share.

    `unified` says whether host and GPU share it, as on a Spark; by default its size tells.
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
    max_num_batched_tokens: int
    block_size: int
    kv_element_bytes: int
    dtype_bytes: int
    quantization: Quantization | None
    tensor_parallel: int
    kv_pool_bytes: int | None
    kv_blocks: int | None
    cuda_graphs: bool
    uncounted: tuple[str, ...]
    """What these flags add that the plan leaves out."""


_UNCOUNTED = {
    "speculative-config": "the draft model of speculative-config",
    "enable-lora": "the memory of LoRA adapters",
    "cpu-offload-gb": "what cpu-offload-gb moves to the host's memory",
}


def at_least(version: Version | None, minimum: str) -> bool:
    """Whether a release is `minimum` or later; an unknown one counts as the measured one."""
    return (version or MEASURED) >= Version.parse(minimum)


def default_utilization(version: Version | None) -> float:
    """vLLM's own gpu-memory-utilization, the share of the device that it takes unless told."""
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
    limits = Limits(
        utilization=utilization,
        max_model_len=max_model_len,
        max_num_seqs=read.whole("max-num-seqs", seqs),
        max_num_batched_tokens=read.whole("max-num-batched-tokens", batched),
        block_size=read.whole("block-size", 128 if on_cpu else 16),
        kv_element_bytes=1,
        dtype_bytes=4 if flags.get("dtype") in ("float32", "float") else 2,
        quantization=shape.quantization,
        tensor_parallel=read.whole("tensor-parallel-size", 1),
        kv_pool_bytes=read.maybe_whole("kv-cache-memory-bytes"),
        kv_blocks=read.maybe_whole("num-gpu-blocks-override"),
        cuda_graphs=not flags.get("enforce-eager"),
        uncounted=tuple(what for flag, what in _UNCOUNTED.items() if flags.get(flag)),
    )
    heads = shape.query_size // shape.head_dim
    if heads % limits.tensor_parallel:
        read.refuse(
            "tensor-parallel-size",
            f"the model's {heads} attention heads cannot be split over {limits.tensor_parallel}",
            "give a number that divides them, such as 2",
        )
    pipeline = read.whole("pipeline-parallel-size", 1)
    read.raise_if_refused()
    if pipeline > 1:
        return Unmodelled("pipeline-parallel-size splits the layers unevenly over several hosts")
    return _with_formats(limits, flags, shape)


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


def _with_formats(limits: Limits, flags: EngineFlags, shape: ModelShape) -> Limits | Unmodelled:
    kv_dtype = flags.get("kv-cache-dtype") or "auto"
    if kv_dtype == "auto":
        element = 1 if shape.fp8_kv_cache else limits.dtype_bytes
    elif kv_dtype in ("fp8", "fp8_e4m3", "fp8_e5m2"):
        element = 1
    elif kv_dtype in ("bfloat16", "float16"):
        element = 2
    else:
        return Unmodelled(f"the KV cache format {kv_dtype}")
    quantization = shape.quantization
    asked = flags.get("quantization")
    if quantization is None and asked == "fp8":
        quantization = fp8_per_tensor()
    elif quantization is None and asked:
        return Unmodelled(f"quantisation with {asked} while loading")
    return replace(limits, kv_element_bytes=element, quantization=quantization)


def _default_batch(host: Machine, version: Version | None) -> tuple[int, int]:
    """max-num-batched-tokens and max-num-seqs of a server, by the device."""
    if host.is_unified and at_least(version, "0.33"):
        return 2048, 256
    if host.memory_gib >= 160 and at_least(version, "0.28"):
        return 16384, 1024
    return (8192, 1024) if host.memory_gib >= 70 else (2048, 256)


class _FlagReader:
    """Reads numbers and collects those that cannot be right, so that all are said at once."""

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
