"""Failures for want of memory or room: GPU memory, KV cache, host memory, /dev/shm, disk."""

from __future__ import annotations

import math
import re

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_UNITS = {"KiB": 1 / 1024**2, "MiB": 1 / 1024, "GiB": 1.0, "TiB": 1024.0, "bytes": 1 / 1024**3}
_LEFT_TO_THE_HOST = 8.0  # GiB of unified memory
_SIZE = r"[\d.]+ (?:[KMGT]iB|bytes)"


def _gib(text: str) -> float:
    number, unit = text.split()
    return float(number) * _UNITS[unit]


def _utilization(values: Values) -> Values:
    """The largest utilization that the free memory allows, and who holds the rest.

    A GB10 has 119 to 122 GiB, of which the planner leaves 8 to the host.
    """
    free, total = float(values["free"]), float(values["total"])
    usable = min(free, total - _LEFT_TO_THE_HOST) if 110 < total < 128 else free
    fits = math.floor(usable / total * 100) / 100
    return {"fits": f"{fits:.2f}", "held": f"{total - free:.1f}"}


def _kv_none(values: Values) -> Values:
    util, kv = values["util"], values["available_kv"]
    short = f": {kv[1:]} GiB short" if kv.startswith("-") else ""
    weights = f" after {values['weights']} GiB of weights" if values["weights"] else ""
    return {"short": short + weights, "above": f" above {util}" if util else ""}


def _kv_length(values: Values) -> Values:
    """The longest length that fits: vLLM's own estimate, else in proportion, in whole blocks."""
    fits = int(values.get("fits") or 0)
    if not fits and values.get("need"):
        share = float(values["have"]) / float(values["need"])
        fits = int(int(values["asked"]) * share) // 16 * 16
    return {"fits": str(fits)}


def _address_space(values: Values) -> Values | None:
    """Only when much more is free than was asked for: then it is not the GPU's memory."""
    if not values.get("free"):
        return None
    free, tried = _gib(values["free"]), _gib(values["tried"])
    return {} if free > 4 * tried and free > tried + 1 else None


_FREE_IT = ("free memory: stop other containers and programs (`docker ps`, `nvidia-smi`), on a"
            " Spark"
            " also drop the page cache (`sync; echo 3 > /proc/sys/vm/drop_caches`)")  # fmt: skip


def _out_of_memory(values: Values) -> Values:
    """What helps depends on what was being allocated: the frames and the phase tell."""
    tried = f" ({values['tried']} more, {values['free']} free)" if values.get("free") else ""
    phase = values["phase"] or "starting"
    frames = values.get("frames", "")
    util, kv_bytes = values["util"], values["kv_cache_memory_bytes"]
    lower = f"lower gpu-memory-utilization{f' below {util}' if util else ''}"
    if re.search(r"mem_get_info|MemorySnapshot", frames):
        return {
            "tried": tried,
            "phase": "vLLM measured it, before anything was loaded",
            "how": f"{_FREE_IT}; a lower gpu-memory-utilization does not help here",
        }
    if kv_bytes:
        how = f"lower kv-cache-memory-bytes ({kv_bytes}), or remove it and set" \
              " gpu-memory-utilization"  # fmt: skip
    elif phase == "loading weights" or re.search(r"create_weights|load_weights|load_model", frames):
        phase = "loading weights"
        how = f"{_FREE_IT}, or use a smaller or more strongly quantized model"
    elif re.search(r"capture_model|cudagraph|cuda_graph", frames):
        phase = "capturing CUDA graphs"
        how = f"{lower}, or capture fewer graphs (max-num-seqs, or enforce-eager: true)"
    elif re.search(r"initialize_kv_cache|allocate_kv_cache|_reshape_kv", frames):
        phase = "allocating the KV cache"
        how = f"{lower}, and stop what took memory since vLLM measured it"
    else:
        how = f"{lower}, max-num-seqs or max-num-batched-tokens"
    return {"tried": tried, "phase": phase, "how": how}


def _shared_memory(values: Values) -> Values:
    want, free = values.get("want"), values.get("free")
    if not want and re.search(r"Bus error|SIGBUS", values.get("text", "")):
        return {"sizes": ", or a mapped file of weights was cut off (SIGBUS means one of the two)"}
    return {"sizes": f": {want} wanted, {free} free" if want else ""}


RULES = (
    Rule(
        id="address_space_limit",
        patterns=(rf"out of memory\. Tried to allocate (?P<tried>{_SIZE})\..*? of which"
                  rf" (?P<free>{_SIZE}) is free",),
        cause="CUDA was refused {tried} while {free} of the GPU are free: a limit on the process,"
              " not GPU memory",
        fix="lift the address-space limit (`ulimit -v` must print unlimited in the container); on"
             " a DGX Spark also drop the page cache",
        source="vLLM 0.26 log under `prlimit --as`",
        compute=_address_space,
    ),
    Rule(
        id="sampler_out_of_memory",
        patterns=(r"CUDA out of memory occurred when warming up sampler with (?P<seqs>\d+) dummy",),
        cause="no GPU memory is left for {seqs} sequences at once",
        fix="lower max-num-seqs (now {seqs}) or gpu-memory-utilization",
        source="gpu_model_runner.py",
    ),
    Rule(
        id="gpu_out_of_memory",
        patterns=(rf"(?:CUDA|HIP|XPU) out of memory\. Tried to allocate (?P<tried>{_SIZE})"
                  rf"(?:\..*? of which (?P<free>{_SIZE}) is free)?",
                  r"Cuda failure(?: \d+)? 'out of memory'|fastsafetensors.*cudaMalloc failed",
                  # torch asks NVML how much is free, which shared memory does not tell
                  r"NVML_SUCCESS == r INTERNAL ASSERT FAILED .*CUDACachingAllocator",
                  r"CUDA (?:driver )?error: out of memory|Triton Error \[CUDA\]: out of memory"
                  r"|CUBLAS_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation"
                  r"|Failed to load model - not enough GPU memory"),
        cause="the GPU ran out of memory while {phase}{tried}",
        fix="{how}",
        source="vLLM 0.26 log; torch, pytorch#185240; NCCL; fastsafetensors",
        rank=Rank.GENERAL,
        compute=_out_of_memory,
    ),
    Rule(
        id="gpu_memory_taken",
        patterns=(r"Free memory on device(?: \S+)? \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on"
                  r" startup is less than (?:desired GPU memory utilization|the engine's budget)"
                  r".*?\((?P<util>[\d.]+), (?P<want>[\d.]+) GiB\)",),
        cause="gpu-memory-utilization {util} wants {want} GiB, but only {free} of {total} GiB are"
              " free: {held} GiB are held by others",
        fix="stop what holds them (`docker ps`, `nvidia-smi`; on a Spark also `sync; echo 3 >"
             " /proc/sys/vm/drop_caches`), or set gpu-memory-utilization to at most {fits}",
        source="vLLM 0.26 log; v1/worker/utils.py",
        compute=_utilization,
    ),
    Rule(
        id="cpu_memory_taken",
        patterns=(r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on"
                  r" startup is less than desired CPU memory utilization"
                  r" \((?P<util>[\d.]+), (?P<want>[\d.]+) GiB\)",),
        cause="vLLM on the CPU wants {want} GiB (gpu-memory-utilization {util}), but only {free} of"
              " {total} GiB are available",
        fix="set gpu-memory-utilization to at most {fits} (it rules host memory on a CPU), or"
             " stop other programs",
        source="v1/worker/cpu_worker.py",
        compute=_utilization,
    ),
    Rule(
        id="cpu_kv_cache_too_large",
        patterns=(r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on kv"
                  r" cache allocation is less than requested memory for kv \((?P<want>[\d.]+)",),
        cause="the KV cache wants {want} GiB of host memory, {free} GiB are available",
        fix="lower VLLM_CPU_KVCACHE_SPACE or kv-cache-memory-bytes below {free} GiB",
        source="v1/worker/cpu_worker.py",
    ),
    Rule(
        id="memory_changed_while_profiling",
        patterns=(r"Error in memory profiling\. Initial free memory (?P<before>[\d.]+)(?: GiB)?,"
                  r" current free memory (?P<after>[\d.]+)",),
        cause="another process freed GPU memory while vLLM measured it ({before}, then {after})",
        fix="start one server at a time: wait until the other has ended, then start again",
        source="gpu_worker.py",
    ),
    Rule(
        id="kv_cache_none",
        patterns=(r"No available memory for the cache blocks",
                  r"Cannot auto-fit max_model_len: not enough GPU memory"),
        cause="no memory is left for the KV cache{short}",
        fix="raise gpu-memory-utilization{above} (on a CPU: VLLM_CPU_KVCACHE_SPACE), or use a"
             " smaller or more strongly quantized model",
        source="vLLM 0.26 log; v1/core/kv_cache_utils.py",
        compute=_kv_none,
    ),
    Rule(
        id="kv_cache_too_small",
        patterns=(r"serve at least one request with the models?'?s? ?max seq len"
                  r" \((?P<asked>\d+)\),? \(?(?P<need>[\d.]+) GiB KV cache is needed, which is"
                  r" larger than the available KV cache memory \((?P<have>[\d.]+) GiB\)"
                  r"(?:.*estimated maximum model length is (?P<fits>\d+))?",
                  r"model's max seq len \((?P<asked>\d+)\) is larger than the maximum number of"
                  r" tokens that can be stored in KV cache \((?P<fits>\d+)\)"),
        cause="one request of max-model-len {asked} does not fit into the KV cache: {fits} tokens"
              " do",
        fix="set max-model-len to at most {fits}, or raise gpu-memory-utilization (on a CPU:"
             " VLLM_CPU_KVCACHE_SPACE)",
        source="vLLM 0.26 measured; v1/core/kv_cache_utils.py; worker/worker.py before 0.9",
        compute=_kv_length,
    ),
    Rule(
        id="state_cache_too_small",
        patterns=(r"max_num_seqs \((?P<seqs>\d+)\) exceeds available Mamba cache blocks"
                  r" \((?P<fits>\d+)\)",),
        cause="max-num-seqs {seqs} needs {seqs} Mamba states, and the memory holds {fits}",
        fix="set max-num-seqs to at most {fits}, or raise gpu-memory-utilization",
        source="vllm#30515; config/compilation.py",
    ),
    Rule(
        id="shm_too_small",
        patterns=(r"Insufficient space in (?P<path>/dev/shm) for [^:]*: (?P<want>\d+ MiB) required,"
                  r" (?P<free>\d+ MiB) free",
                  r"No space left on device.{0,40}(?P<path>/dev/shm|psm_|nccl-)",
                  r"failed to extend (?P<path>/dev/shm)/\S+ to",
                  r"(?:Error while creating shared memory segment|unable to (?:open|mmap|resize"
                  r"|allocate) .{0,60}shared memory|unable to allocate shared memory"
                  r"|unable to mmap .* from file) ?(?P<path>/dev/shm)?",
                  r"(?:^|: |: +\d+ )Bus error\b", r"\bSIGBUS\b"),
        cause="the container's /dev/shm is too small{sizes}",
        fix="set container.ipc: host (docker --ipc=host), or --shm-size=8g",
        source="shm_broadcast.py (0.28 on); the kernel's SIGBUS and NCCL before",
        compute=_shared_memory,
        anywhere=True,
    ),
    Rule(
        id="shm_full",
        patterns=(r"\[Errno 28\] No space left on device",),
        frame=r"multiprocessing/(?:shared_memory|synchronize|heap)|shm_broadcast",
        cause="the container's /dev/shm is full",
        fix="set container.ipc: host (docker --ipc=host), or --shm-size=8g",
        source="Python multiprocessing, ENOSPC",
    ),
    Rule(
        id="disk_full",
        patterns=(r"[Nn]o space left on device", r"\bDisk quota exceeded", r"\bStorageFull\b"),
        unless=r"multiprocessing/(?:shared_memory|synchronize|heap)|shm_broadcast|/dev/shm",
        cause="the disk is full",
        fix="free space where the cache is mounted (`df -h`, `docker system df`), then start"
             " again",
        source="the kernel, ENOSPC",
        anywhere=True,
    ),
    Rule(
        id="disk_too_small",
        patterns=(r"Not enough free disk space to download the file\. The expected file size is:"
                  r" (?P<want>[\d.]+ MB)\. The target location (?P<path>\S+) only has"
                  r" (?P<free>[\d.]+ MB)",),
        cause="a file of {want} does not fit into {path}, which has {free} free",
        fix="free space there, or mount a larger disk as the cache",
        source="huggingface_hub file_download.py (a warning before the failure)",
        rank=Rank.HINT,
        anywhere=True,
        levels=frozenset({"", "ERROR", "WARNING"}),
    ),
    Rule(
        id="host_out_of_memory",
        patterns=(r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)",
                  r"^MemoryError", r"\[Errno 12\] Cannot allocate memory",
                  r"\bstd::bad_alloc\b", r"due to the node running low on memory"),
        cause="the host's memory is used up while {phase}",
        fix="stop other programs, lower gpu-memory-utilization (on a Spark GPU and host share the"
             " memory: leave it 8 to 10 GiB), or raise the container's memory limit",
        source="torch; Python; Ray",
        anywhere=True,
    ),
)  # fmt: skip
