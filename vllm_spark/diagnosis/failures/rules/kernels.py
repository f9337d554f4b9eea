"""What the image cannot compute on this GPU: kernels, compilers, back ends, quantizations."""

from __future__ import annotations

import re

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_CUDA_IMAGE = ("use an image built for this GPU: on a DGX Spark nvcr.io/nvidia/vllm, or"
               " vllm/vllm-openai built for CUDA 13 (cu130)")  # fmt: skip


def _compiler_for_gpu(values: Values) -> Values:
    """Triton's ptxas can be another one; FlashInfer's nvcc ("compute_121a") is the image's."""
    if values["arch"].startswith("compute_"):
        return {"how": "use a CUDA 13 image: the nvcc in this one is older than the GPU"}
    return {"how": "set TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas if the image holds CUDA 13,"
                   " else use a CUDA 13 image"}  # fmt: skip


def _compilation(values: Values) -> Values:
    """torch.compile can be left out, FlashInfer's kernels (ninja, nvcc) cannot."""
    what = values["what"]
    if what.startswith("Killed"):
        return {"what": "the compiler was killed, as the kernel does when memory runs out",
                "how": "set MAX_JOBS=1 for one start (the result is kept in ~/.cache/flashinfer),"
                       " or lower gpu-memory-utilization"}  # fmt: skip
    if re.search(r"[Nn]inja|nvcc|extension| error: ", what):
        return {"how": "use an image that is built for this GPU, with FlashInfer's kernels or a"
                       " CUDA toolkit that fits them; VLLM_USE_FLASHINFER_SAMPLER=0 does without"
                       " its sampler"}  # fmt: skip
    return {"how": "remove the compile cache (VLLM_CACHE_ROOT, ~/.triton) and start again;"
                   " enforce-eager: true starts without compiling"}  # fmt: skip


def _backend(values: Values) -> Values:
    name = values.get("backend")
    return {"finding": f"attention backend {name} does not fit" if name else
            "no attention backend of this image fits"}  # fmt: skip


def _seen(values: Values) -> str:
    return f"{values.get('message', '')}\n{values.get('frames', '')}".lower()


def _fp4(values: Values) -> Values | None:
    return {} if re.search(r"fp4", _seen(values)) else None


def _fp8(values: Values) -> Values | None:
    seen = _seen(values)
    return {} if re.search(r"fp8|scaled_mm|w8a8|float8", seen) and "fp4" not in seen else None


_CUTLASS = (r"cutlass_gemm_caller.{0,200}", r"RuntimeError: Error Internal",
            r"(?i:cutlass).{0,100}Error Internal",
            r"Failed to (?:run|initialize) (?:cutlass|GEMM)",
            r"Failed to initialize cutlass.{0,60}gemm")  # fmt: skip

RULES = (
    Rule(
        id="deep_gemm_failed",
        patterns=(r"Assertion error \(?\S*csrc/(?:apis|jit\w*|utils)/[\w./-]+(?::\d+\):)?"
                  r" ?(?P<what>.+)",
                  r"CUDA driver error \(\S*/jit/\S+\): (?P<what>.+)"),
        cause="DeepGEMM fails on this GPU: {what}",
        fix="set VLLM_USE_DEEP_GEMM=0, or use a newer image (DeepGEMM came late to a GB10)",
        source="vllm#52732, vllm-gb10#27, DeepGEMM#140 and #324",
    ),
    Rule(
        id="kernel_image_missing",
        patterns=(r"no kernel image is available for execution",
                  r"This kernel only supports sm\w+", r"No compiled cutlass_scaled_mm",
                  r"SM 12\.x requires CUDA >= [\d.]+", r"kernel requires \d+\.x architecture"),
        cause="the image has no kernels for this GPU",
        fix=_CUDA_IMAGE,
        source="torch; csrc/quantization; spark-vllm-docker#143",
        root_of=("gpu_faulted", "cuda_error", "kernel_for_another_gpu", "cublas_after_a_fault"),
    ),
    Rule(
        id="architecture_list_without_gpu",
        patterns=(r"No supported CUDA architectures found(?: for major versions (?P<for>\[[\d,"
                  r" ]*\]))?",),
        cause="FlashInfer was asked to build kernels for the architectures {for} only, and this GPU"
              " is none of them",
        fix="set FLASHINFER_CUDA_ARCH_LIST=12.1a (and correct TORCH_CUDA_ARCH_LIST), or use an"
             " image built for this GPU; the MoE backend chosen may be one for another GPU: set"
             " another moe-backend",
        source="spark-vllm-mxfp4-docker; flashinfer compilation_context.py",
        compute=lambda values: {"for": values.get("for") or "of TORCH_CUDA_ARCH_LIST"},
    ),
    Rule(
        id="fp4_kernel_failed",
        patterns=_CUTLASS,
        cause="a CUTLASS FP4 kernel of the image does not run on this GPU",
        fix=(("set linear-backend: marlin (dense layers) and moe-backend: marlin (experts): NVFP4"
              " weights then run through Marlin",
              "set VLLM_NVFP4_GEMM_BACKEND=marlin (dense layers), for experts moe-backend: marlin",
              "set VLLM_NVFP4_GEMM_BACKEND=marlin"),
             "use a newer CUDA 13 image built for sm_121"),
        source="vllm#30163; dgx-spark-research g09",
        compute=_fp4,
    ),
    Rule(
        id="fp8_kernel_failed",
        patterns=_CUTLASS,
        cause="a CUTLASS FP8 kernel of the image fails on this GPU",
        fix=("set VLLM_DISABLED_KERNELS=CutlassFp8BlockScaledMMKernel",
             "set linear-backend: marlin", "use a CUDA 13 (cu130) image"),
        source="vllm#43367, vllm#40934",
        compute=_fp8,
    ),
    Rule(
        id="cutlass_failed",
        patterns=_CUTLASS,
        cause="a CUTLASS kernel of the image fails on this GPU",
        fix=(("set linear-backend: marlin, or moe-backend: marlin for a mixture of experts",
              "set moe-backend: marlin for a mixture of experts"),
             "use a CUDA 13 (cu130) image"),
        source="vllm#43367",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="linear_kernel_missing",
        patterns=(r"(?s)Failed to find a kernel that can implement the (?P<layer>.{3,60}?) ?linear"
                  r" layer.*?(?P<why>Marlin\w*[^\n]*|MARLIN[^\n]*|(?:cannot|not"
                  r"|requires)[^\n]*)?$",),
        cause="no kernel of this image can compute the model's {layer} layers on this GPU",
        fix=("remove VLLM_DISABLED_KERNELS if it is set",
             ("set linear-backend: marlin",
              "set VLLM_TEST_FORCE_FP8_MARLIN=1 (Marlin computes FP8 weights)"),
             "use a CUDA 13 image built for this GPU, or a checkpoint with another quantization"),
        source="dgx-spark-benchmarks; model_executor/kernels/linear",
        compute=lambda values: {"layer": values.get("layer") or "linear"},
    ),
    Rule(
        id="ptxas_too_old",
        patterns=(r"ptxas fatal\s*: +Value '(?P<arch>sm_\w+)' is not defined",
                  r"Value '(?P<arch>sm_\w+)' is not defined for option 'gpu-name'",
                  r"CalledProcessError: Command '\['[^']*triton/backends/nvidia/bin/ptxas'"
                  r".*--gpu-name=(?P<arch>sm_12\w+)",
                  r"Unsupported gpu architecture '(?P<arch>compute_\w+)'"),
        cause="the compiler in the image does not know this GPU ({arch})",
        fix="{how}",
        source="Triton; gpustack#4372; MinerU#4350; FlashInfer's nvcc",
        compute=_compiler_for_gpu,
        anywhere=True,
    ),
    Rule(
        id="compiler_refuses_gpu",
        patterns=(r"(?P<what>Arch conditional MMA instruction used without targeting \S+ compute"
                  r" capability)",
                  r"(?P<what>'?sm_12\w+'? is not a recognized processor)",
                  r"(?P<what>Internal Triton PTX codegen error)",
                  r"(?P<what>invalid value for --gpu-architecture)",
                  r"(?P<what>LLVM ERROR: Cannot select: .{1,80})"),
        cause="a kernel of the image is not made for this GPU: {what}",
        fix=(("set moe-backend: marlin and linear-backend: marlin", "set moe-backend: marlin"),
             "use a newer CUDA 13 image built for this GPU (on a DGX Spark: sm_121)"),
        source="vllm#37751; CUTLASS; Triton; NVRTC",
        anywhere=True,
        root_of=("gpu_faulted", "cuda_error", "kernel_for_another_gpu", "cublas_after_a_fault"),
    ),
    Rule(
        id="kernel_too_large_for_gpu",
        patterns=(r"OutOfResources: out of resource: (?P<what>[\w ]+), Required: (?P<want>\d+),"
                  r" Hardware limit: (?P<has>\d+)",),
        cause="a Triton kernel needs {want} bytes of {what} on the chip, and this GPU has {has}"
              " (not GPU memory: a lower gpu-memory-utilization does not help)",
        fix=(("set another attention-backend (FLASHINFER, FLASH_ATTN) or moe-backend, as the"
              " traceback names attention or experts",
              "set another attention-backend (FLASHINFER, FLASH_ATTN)",
              "set another VLLM_ATTENTION_BACKEND (FLASHINFER, FLASH_ATTN)"),
             "use a newer image, whose kernels know this GPU"),
        source="Triton; common on sm_120 and sm_121",
    ),
    Rule(
        id="moe_backend_refused",
        patterns=(r"MoE backend '?(?P<backend>\w+)'? does not support the deployment"
                  r" configuration(?: since (?P<why>.+))?",
                  r"(?P<why>Model sets swiglu_limit=\S+), but the explicitly requested"
                  r" moe_backend='(?P<backend>\w+)'",
                  r"(?P<why>FlashInfer kernels unavailable for (?P<backend>\w+) on current"
                  r" platform)"),
        cause="the MoE backend {backend} cannot compute this model on this GPU: {why}",
        fix=("remove moe-backend so that vLLM chooses, or set moe-backend: marlin",
             "use a newer image, or a checkpoint with another quantization"),
        source="flashinfer#3486, flashinfer#3732; fused_moe/oracle",
    ),
    Rule(
        id="kernel_backend_missing",
        patterns=(r"No (?P<what>[\w ]+ MoE backend)s? (?:supports|available)",),
        cause="the image has no {what} for this GPU and model",
        fix=("set moe-backend: marlin",
             "use a newer image or a checkpoint with another quantization; remove moe-backend if"
             " it is set"),
        source="fused_moe/oracle; flashinfer#3732; vllm#46492",
    ),
    Rule(
        id="fp8_unsupported_gpu",
        patterns=(r"type fp8e4nv not supported in this architecture",),
        cause="this GPU cannot compute with FP8 (fp8e4nv)",
        fix="remove kv-cache-dtype fp8, or use a checkpoint that is not FP8",
        source="Triton; vllm#26431",
    ),
    Rule(
        id="kv_cache_dtype_refused",
        patterns=(r"NotImplementedError: (?P<why>\w+(?: V1)? (?:with|does not support)"
                  r" (?i:fp8 kv.cache)\b.*)",
                  r"ValueError: (?P<why>fp8_e5m2 kv-cache is not supported with fp8 checkpoints)"),
        cause="this kv-cache-dtype does not go with GPU, image or checkpoint: {why}",
        fix=("remove kv-cache-dtype (for fp8_e5m2: set fp8)",
             ("choose another attention-backend, such as FLASHINFER",
              "choose another VLLM_ATTENTION_BACKEND, such as FLASHINFER")),
        source="vllm#14221; attention/backends/flash_attn.py; attention/layer.py",
    ),
    Rule(
        id="compiler_missing",
        patterns=(r"Failed to find C compiler", r"No working C\+\+ compiler found",
                  r"fatal error: Python\.h: No such file", r"[Cc]ould not find nvcc",
                  r"(?:nvcc|ninja): not found|No such file or directory: '[^']*(?:nvcc|ninja)'"),
        cause="vLLM wants to compile a kernel, and the image has no compiler for it",
        fix="use the full image (g++, python3-dev and, for FlashInfer, nvcc and ninja); without:"
             " enforce-eager: true (Triton, torch), VLLM_USE_FLASHINFER_SAMPLER=0 (FlashInfer)",
        source="Triton; torch inductor; FlashInfer",
    ),
    Rule(
        id="compilation_failed",
        detail=r"^(?P<what>nvcc fatal\s*: .{1,120}|Killed\b|.{0,80}\berror: .{1,120})",
        patterns=(r"(?P<what>(?:BackendCompilerFailed|InductorError|TorchRuntimeError): .{1,160}"
                  r"|PassManager::run failed)",
                  r"(?P<what>Ninja build failed|CppCompileError.{0,120}|PTXASError.{0,120}"
                  r"|nvcc fatal\s*: .{1,120}|Error building extension '\w+')",
                  r"CalledProcessError: Command '\['(?P<what>ninja|nvcc)"),
        cause="compiling the model failed: {what}",
        fix="{how}",
        source="torch.compile; FlashInfer",
        rank=Rank.GENERAL,
        compute=_compilation,
    ),
    Rule(
        id="attention_backend_refused",
        patterns=(r"Selected backend (?:\w+\.)?(?P<backend>\w+) is not valid for this "
                  r"configuration\. Reason: (?P<why>.+)",
                  r"No valid attention backend found (?:.*Reasons: )?(?P<why>.+)"),
        cause="{finding}: {why}",
        fix=(("remove attention-backend so that vLLM chooses",
              "remove VLLM_ATTENTION_BACKEND so that vLLM chooses"),
             "change kv-cache-dtype or block-size as the reason says"),
        source="platforms/cuda.py",
        compute=_backend,
    ),
    Rule(
        id="attention_backend_unfit",
        patterns=(r"(?P<why>\b\w{1,40} backend currently only supports models in which all"
                  r" layers share"
                  r" the same values for the following hyperparameters.{0,80})",
                  r"(?P<why>\b\w{0,40}(?:FlashInfer|FLASHINFER|FlashAttention|Triton\w*)"
                  r" (?:backend |attention )?"
                  r"(?:does not|currently does not|only) supports?\b(?!.*(?:kv.cache"
                  r"|sinks)).{0,140})"),
        cause="the attention backend cannot run this model: {why}",
        fix=(("set another attention-backend: TRITON_ATTN or FLASH_ATTN",
              "set another VLLM_ATTENTION_BACKEND: TRITON_ATTN or FLASH_ATTN"),),
        source="spark-vllm-mxfp4-docker; v1/attention/backends",
    ),
    Rule(
        id="attention_sinks",
        patterns=(r"(?P<why>Sinks are only supported in FlashAttention 3)",
                  r"(?P<why>\b\w{1,40} backend currently does not support attention sinks)"),
        cause="the attention backend cannot compute this model (gpt-oss) on this GPU: {why}",
        fix=(("set attention-backend: TRITON_ATTN",
              "set VLLM_ATTENTION_BACKEND=TRITON_ATTN (in 0.10 TRITON_ATTN_VLLM_V1)"),
             "use a newer image"),
        source="vllm#22331, vllm#30919",
    ),
    Rule(
        id="workspace_locked",
        patterns=(r"Workspace is locked but allocation from '?(?P<where>[\w./:-]+)'? requires"
                  r" (?P<want>[\d.]+ MB), current size is (?P<has>[\d.]+ MB)",),
        cause="a fault of this vLLM: the kernel at {where} wants {want} of workspace after CUDA"
              " graphs fixed it at {has}",
        fix="use a newer image; until then choose another kv-cache-dtype than turboquant_*, start"
             " with compilation-config.cudagraph_mode: NONE or enforce-eager: true",
        source="vllm#41565, vllm#40798; v1/worker/workspace.py",
    ),
    Rule(
        id="bfloat16_unsupported_gpu",
        patterns=(r"Bfloat16 is only supported on GPUs with compute capability of at least"
                  r" (?P<needs>[\d.]+)\. Your (?P<gpu>.+?) GPU has compute capability"
                  r" (?P<has>\d+\.\d+)",),
        cause="this GPU cannot compute with bfloat16 ({gpu}: capability {has}, {needs} needed)",
        fix="set dtype: half",
        source="platforms/cuda.py",
    ),
)  # fmt: skip
