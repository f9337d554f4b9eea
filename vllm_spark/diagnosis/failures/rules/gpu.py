"""Errors of CUDA and of the GPU itself: software faults apart from hardware faults.

Most errors that begin with "CUDA error" are faults of a kernel, that is of software: of the image.
Only ECC errors, some Xid numbers and a GPU off the bus prove hardware.
"""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_CUDA = r"(?:(?:CUDA|HIP) (?:runtime )?error|Triton Error \[CUDA\]|[Cc]uda error)[^:]{0,40}:"
_NARROW = ("start once with CUDA_LAUNCH_BLOCKING=1 and enforce-eager: true: the traceback then"
           " names the kernel")  # fmt: skip
_ENDS_OF_A_GPU = (
    "gpu_faulted",
    "cuda_error",
    "cublas_after_a_fault",
    "gpu_not_initialized",
    "engine_step_timeout",
    "collective_timeout",
    "engine_died",
    "gpu_xid",
)
_HARDWARE = {
    "48": "an uncorrectable memory error (ECC)",
    "62": "an internal fault of the GPU's controller",
    "64": "a memory error that could not be recorded",
    "74": "an NVLink error",
    "79": "the GPU has fallen off the bus",
    "94": "a contained memory error (ECC)",
    "95": "an uncontained memory error (ECC)",
    "119": "the GPU's system processor (GSP) does not answer",
    "120": "an error of the GPU's system processor (GSP)",
    "140": "an uncorrected memory error (ECC)",
    "154": "the GPU asks for a reset or reboot",
}


def _xid_of_hardware(values: Values) -> Values | None:
    meaning = _HARDWARE.get(values["xid"])
    return {"meaning": meaning} if meaning else None


def _what_to_leave_out(values: Values) -> Values:
    """What the log shows to be in use and may hold the kernel at fault, the likeliest first."""
    parts = []
    seen = f"{values.get('message', '')}{values.get('frames', '')}".lower()
    if "deep_gemm" in seen or "deepgemm" in seen:
        parts.append("set VLLM_USE_DEEP_GEMM=0")
    if values.get("speculative_config"):
        parts.append("remove speculative-config")
    if "turboquant" in values.get("kv_cache_dtype", ""):
        parts.append("remove kv-cache-dtype")
    return {"first": "".join(f"{part}; " for part in parts)}


RULES = (
    Rule(
        id="gpu_hardware",
        patterns=(r"NVRM: Xid \([^)]*\): (?P<xid>\d+)",),
        cause="the GPU reports a fault of its hardware or driver: Xid {xid}, {meaning}",
        fix="reboot the host (a power cycle of a Spark: unplug it for a minute); if it comes back,"
             " update the driver and firmware, then have the machine replaced",
        source="NVIDIA's Xid catalogue",
        compute=_xid_of_hardware,
        anywhere=True,
        root_of=_ENDS_OF_A_GPU,
    ),
    Rule(
        id="gpu_off_the_bus",
        patterns=(r"GPU has fallen off the bus", r"Unable to determine the device handle for"
                                                 r" \S*GPU",
                  r"GPU is lost\b", r"CUDA error: the GPU is lost"),
        cause="the GPU has fallen off the bus: the host can no longer talk to it",
        fix="reboot the host; look for Xid 79 in `journalctl -k -b -1`; check temperature and power"
             " supply, update driver and firmware",
        source="the NVIDIA driver",
        anywhere=True,
        root_of=_ENDS_OF_A_GPU,
    ),
    Rule(
        id="gpu_memory_defect",
        patterns=(r"uncorrectable (?:ECC error|NVLink error)|CUDA error: .*ECC",),
        cause="the GPU found an uncorrectable memory error (ECC): a hardware fault",
        fix="look at `nvidia-smi -q -d ECC` and Xid in `dmesg`, reset the GPU or reboot; replace it"
             " if it comes back",
        source="libcuda",
    ),
    Rule(
        id="driver_out_of_memory",
        patterns=(r"NVRM: .*(?:NV_ERR_NO_MEMORY|Out of memory)",),
        cause="the NVIDIA driver could not get memory from the host: a Spark's unified memory was"
              " used up",
        fix="lower gpu-memory-utilization (leave 8 to 10 GiB to the host; 0.75 with long prompts)"
             " and max-num-batched-tokens; stop other programs; keep a watch on `free -h`",
        source="dgx-spark-playbooks#97; open-gpu-kernel-modules#1358",
        rank=Rank.GENERAL,
        anywhere=True,
        root_of=("cuda_error", "engine_step_timeout", "engine_died", "host_rebooted"),
    ),
    Rule(
        id="too_hot",
        patterns=(r"[Cc]ritical temperature reached|thermal.{0,40}shutting down"
                  r"|SW Thermal Slowdown.{0,20}: Active|HW Thermal Slowdown.{0,20}: Active",),
        cause="the machine got too hot and shut down",
        fix="give it air (a Spark needs free space on all sides), clean it, lower the power limit,"
             " then start again",
        source="the kernel's thermal zone",
        anywhere=True,
    ),
    Rule(
        id="expandable_segments",
        patterns=(r"RuntimeError: CUDA driver error: (?P<what>device not ready|invalid argument"
                  r"|operation not supported|invalid device ordinal|file exists)",),
        cause="PyTorch's expandable segments fail on this driver ({what}); neither memory nor"
              " hardware is at fault",
        fix="set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False, or update the driver",
        source="club-3090 HARDWARE.md; torch c10/cuda/driver_api",
        unless=r"deep_?gemm|/jit/",
    ),
    Rule(
        id="cublas_no_handle",
        patterns=(r"CUBLAS_STATUS_(?:INTERNAL_ERROR|NOT_INITIALIZED) when calling"
                  r" `cublas(?:Lt)?Create",),
        cause="cuBLAS cannot be initialized: mostly the GPU's memory is used up",
        fix="lower gpu-memory-utilization, or free the GPU of other programs; if memory is free,"
             " cuBLAS and torch in the image do not fit together: use an unmodified image",
        source="vllm#18335",
    ),
    Rule(
        id="cublas_does_not_fit",
        patterns=(r"(?P<what>CUBLAS_STATUS_(?:INVALID_VALUE|ARCH_MISMATCH|NOT_SUPPORTED))",),
        cause="cuBLAS refuses a multiplication ({what}): its library does not fit this torch, or"
              " does not know this GPU",
        fix="unset LD_LIBRARY_PATH, remove nvidia-cublas packages installed over the image's own,"
             " or use another image whose torch and cuBLAS belong together (CUDA 13 on a Spark)",
        source="pytorch#174949",
    ),
    Rule(
        id="cublas_after_a_fault",
        patterns=(r"(?P<what>CUBLAS_STATUS_(?:INTERNAL_ERROR|EXECUTION_FAILED|MAPPING_ERROR))",
                  r"(?P<what>CUDNN_STATUS_(?:INTERNAL_ERROR|EXECUTION_FAILED))"),
        cause="a GPU kernel failed before, and the next library call reports it ({what}): a fault"
              " of software, mostly of the kernel that ran just before",
        fix="{first}on a GB10 set VLLM_USE_DEEP_GEMM=0, or use a newer image;"
            " CUDA_LAUNCH_BLOCKING=1"
             " finds the kernel; if memory was short, lower gpu-memory-utilization",
        source="glm-5.3-one-spark#2; vllm#18335",
        compute=_what_to_leave_out,
    ),
    Rule(
        id="kernel_for_another_gpu",
        patterns=(rf"{_CUDA} (?P<what>an illegal instruction was encountered|invalid device"
                  rf" function"
                  r"|named symbol not found|device kernel image is invalid)",
                  r"cudaError(?P<what>IllegalInstruction|InvalidDeviceFunction|SymbolNotFound)"),
        cause="a kernel in the image is built for another GPU ({what})",
        fix=(("set moe-backend: marlin and linear-backend: marlin, which leave FlashInfer's and"
              " CUTLASS's FP4 and FP8 kernels out",
              "set moe-backend: marlin, which leaves FlashInfer's FP4 kernels out"),
             "use a CUDA 13 image that is built for this GPU (on a DGX Spark: sm_121)"),
        source="flashinfer#2065",
    ),
    Rule(
        id="index_out_of_bounds",
        patterns=(rf"{_CUDA} device-side assert triggered",
                  r"Assertion `(?P<what>[^`]*(?:index out of bounds|srcIndex|ind >= 0)[^`]*)`"
                  r" failed"),
        cause="a kernel used an index out of bounds (a token id beyond the vocabulary, a block that"
              " does not exist): a fault of software",
        fix="{first}start once with enforce-eager: true (torch.compile and CUDA graphs left out)"
             " and, if it is set, without speculative-config; use a newer image",
        source="Qwen3.6-27B-DFlash#2; torch",
        compute=_what_to_leave_out,
    ),
    Rule(
        id="graph_capture_refused",
        patterns=(rf"{_CUDA} (?P<what>operation (?:not permitted|failed due to a previous error)"
                  r" (?:when stream is capturing|during capture))",
                  r"(?P<what>cudaErrorStreamCapture\w+)"),
        cause="an operation that a CUDA graph cannot hold was captured ({what})",
        fix="start with enforce-eager: true, or compilation-config.cudagraph_mode: PIECEWISE; a"
             " newer image may capture it",
        source="torch; vllm/compilation/cuda_graph.py",
    ),
    Rule(
        id="gpu_faulted",
        patterns=(rf"{_CUDA} (?P<what>(?:an )?(?:illegal memory access|misaligned address"
                  r"|the launch timed out|unspecified launch failure|invalid program counter"
                  r"|invalid configuration argument|invalid argument|illegal address).*?)\.?$",
                  r"\b(?P<what>CUDA_ERROR_(?:ILLEGAL_ADDRESS|LAUNCH_FAILED|MISALIGNED_ADDRESS)"
                  r"|cudaErrorLaunchFailure|cudaErrorIllegalAddress)(?!')",
                  r"Cuda error \S+ '(?P<what>[^']*)'"),
        cause="a GPU kernel failed ({what}): a fault of software, unless the kernel's log shows a"
              " hardware Xid",
        fix=f"{{first}}use a newer image; {_NARROW}; another attention-backend, moe-backend"
             " or linear-backend may avoid it; Xid 13, 31 and 43 in `dmesg` are the same fault,"
             " 48, 79 and 94 are"
             " hardware",
        source="qwen3.8-Flash-DGX#2; vllm#52877; torch",
        compute=_what_to_leave_out,
    ),
    Rule(
        id="gpu_not_initialized",
        patterns=(r"Error 802: system not yet initialized", r"CUDA unknown error",
                  rf"{_CUDA} unknown error",
                  r"CUDA-capable device\(s\) is/are busy or unavailable",
                  r"cuda\w* ?(?:call)? ?failed.*CUDA_ERROR_NOT_INITIALIZED"),
        cause="the driver cannot initialize the GPU",
        fix="look at `nvidia-smi` and `dmesg | grep -i xid` on the host; stop other programs that"
             " hold the GPU alone; then reboot the host (or reload the driver)",
        source="torch; libcuda",
    ),
    Rule(
        id="gpus_too_few",
        patterns=(r"local rank (?P<rank>\d+) is out of bounds for (?P<gpus>[1-9]\d*) devices",
                  r"CUDA error: invalid device ordinal"),
        cause="more GPUs are asked for than the container has",
        fix="set tensor-, pipeline- and data-parallel-size to the number of GPUs in this machine"
             " (1 on a Spark)",
        source="gpu_worker.py; torch",
    ),
    Rule(
        id="gpu_not_visible",
        patterns=(r"Failed to infer device type", r"Device string must not be empty",
                  r"local rank \d+ is out of bounds for 0 devices",
                  r"No CUDA GPUs are available", r"Found no NVIDIA driver on your system",
                  r"libcuda\.so\.1: cannot open shared object file",
                  r"no CUDA-capable device is detected", r"0 active drivers \(\[\]\)"),
        cause="the container sees no GPU",
        fix="set container.gpus: all (docker --gpus all) and leave CUDA_VISIBLE_DEVICES alone;"
             " if `nvidia-smi` fails in any container, install the NVIDIA container toolkit",
        source="vLLM 0.26 log; torch; Triton",
        anywhere=True,
    ),
    Rule(
        id="cuda_error",
        patterns=(rf"{_CUDA} (?P<what>(?!.*out of memory).+?)\.?$",
                  r"CUDA driver error: (?P<what>.+?)\.?$",
                  r"\b(?P<what>CUBLAS_STATUS_(?!ALLOC)\w+|CUDNN_STATUS_\w+|CUDA_ERROR_\w+)"),
        cause="CUDA failed: {what}",
        fix=f"{_NARROW}; use a newer image; `nvidia-smi` and Xid in `dmesg` on the host show"
             " whether the hardware is at fault",
        source="torch; libcuda",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="gpu_xid",
        patterns=(r"NVRM: Xid \([^)]*\): (?P<xid>\d+),? ?(?P<what>.{0,120})",),
        cause="the GPU's driver reported Xid {xid} ({what}): mostly a fault of a program's kernel",
        fix=f"read the server's log of the same minute; {_NARROW}; use a newer image",
        source="NVIDIA's Xid catalogue: 13, 31, 43 and 45 come from the program",
        rank=Rank.HINT,
        anywhere=True,
    ),
)  # fmt: skip
