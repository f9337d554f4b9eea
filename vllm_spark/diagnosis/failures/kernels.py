"""What the image cannot compute on this GPU: kernels, compilers, back ends, quantizations."""

from __future__ import annotations

import re

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_CUDA_IMAGE = ("take an image built for this GPU: on a DGX Spark nvcr.io/nvidia/vllm, or"
               " vllm/vllm-openai built for CUDA 13 (cu130)")  # fmt: skip


def _capability(values: Values) -> Values:
    needs, has = values.get("needs"), values.get("has")
    return {"capability": f" (needs capability {needs}, has {has})" if needs else ""}


def _compiler_for_gpu(values: Values) -> Values:
    """Triton's ptxas can be another one; FlashInfer's nvcc ("compute_121a") is the image's."""
    if values["arch"].startswith("compute_"):
        return {"how": "take a CUDA 13 image: the nvcc in this one is older than the GPU"}
    return {"how": "set TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas if the image holds CUDA 13,"
                   " else take a CUDA 13 image"}  # fmt: skip


def _compilation(values: Values) -> Values:
    """torch.compile can be left out, FlashInfer's kernels (ninja, nvcc) cannot."""
    what = values["what"]
    if what.startswith("Killed"):
        return {"what": "the compiler was killed, as the kernel does when memory runs out",
                "how": "set MAX_JOBS=1 for one start (the result is kept in ~/.cache/flashinfer),"
                       " or lower gpu-memory-utilization"}  # fmt: skip
    if re.search(r"[Nn]inja|nvcc|extension| error: ", what):
        return {"how": "take an image that is built for this GPU, with FlashInfer's kernels or a"
                       " CUDA toolkit that fits them; VLLM_USE_FLASHINFER_SAMPLER=0 does without"
                       " its sampler"}  # fmt: skip
    return {"how": "remove the compile cache (VLLM_CACHE_ROOT, ~/.triton) and start again;"
                   " enforce-eager: true starts without compiling"}  # fmt: skip


def _backend(values: Values) -> Values:
    name = values.get("backend")
    return {"finding": f"attention backend {name} does not fit" if name else
            "no attention backend of this image fits"}  # fmt: skip


RULES = (
    Rule(
        id="deep_gemm_failed",
        patterns=(r"Assertion error \(?\S*csrc/(?:apis|jit\w*|utils)/[\w./-]+(?::\d+\):)?"
                  r" ?(?P<what>.+)",
                  r"CUDA driver error \(\S*/jit/\S+\): (?P<what>.+)"),
        cause="DeepGEMM fails on this GPU: {what}",
        fix="set VLLM_USE_DEEP_GEMM=0, or take a newer image (DeepGEMM came late to a GB10)",
        source="vllm#52732, vllm-gb10#27, DeepGEMM#140 and #324",
        versions="0.10 to 0.33",
    ),
    Rule(
        id="kernel_image_missing",
        patterns=(r"no kernel image is available for execution",
                  r"This kernel only supports sm\w+", r"No compiled cutlass_scaled_mm",
                  r"No supported CUDA architectures found", r"SM 12\.x requires CUDA >= [\d.]+",
                  r"device kernel image is invalid"),
        cause="the image has no kernels for this GPU",
        fix=_CUDA_IMAGE,
        source="torch; csrc/quantization",
    ),
    Rule(
        id="cutlass_failed",
        patterns=(r"cutlass_gemm_caller.{0,200}", r"RuntimeError: Error Internal",
                  r"cutlass.{0,60}Error Internal",
                  r"Failed to (?:run|initialize) (?:cutlass|GEMM)"),
        cause="a CUTLASS kernel of the image fails on this GPU (FP8 on a GB10)",
        fix="take a CUDA 13 (cu130) image, or set VLLM_DISABLED_KERNELS="
             "CutlassFp8BlockScaledMMKernel",
        source="vllm#43367, vllm#40934",
    ),
    Rule(
        id="ptxas_too_old",
        patterns=(r"ptxas fatal\s*: +Value '(?P<arch>sm_\w+)' is not defined",
                  r"Value '(?P<arch>sm_\w+)' is not defined for option 'gpu-name'",
                  r"Unsupported gpu architecture '(?P<arch>compute_\w+)'"),
        cause="the compiler in the image does not know this GPU ({arch})",
        fix="{how}",
        source="Triton; gpustack#4372; FlashInfer's nvcc",
        compute=_compiler_for_gpu,
        anywhere=True,
    ),
    Rule(
        id="kernel_backend_missing",
        patterns=(r"No (?P<what>[\w ]+ MoE backend)s? (?:supports|available)",),
        cause="the image has no {what} for this GPU and model",
        fix="take a newer image or a checkpoint with another quantization; remove moe-backend if"
             " it is set",
        source="fused_moe/oracle",
        versions="0.11 to 0.33",
    ),
    Rule(
        id="fp8_unsupported_gpu",
        patterns=(r"type fp8e4nv not supported in this architecture",),
        cause="this GPU cannot compute with FP8 (fp8e4nv)",
        fix="remove kv-cache-dtype fp8, or take a checkpoint that is not FP8",
        source="Triton; vllm#26431",
    ),
    Rule(
        id="kv_cache_dtype_refused",
        patterns=(r"NotImplementedError: (?P<why>\w+(?: V1)? (?:with|does not support)"
                  r" (?i:fp8 kv.cache)\b.*)",
                  r"ValueError: (?P<why>fp8_e5m2 kv-cache is not supported with fp8 checkpoints)"),
        cause="this kv-cache-dtype does not go with GPU, image or checkpoint: {why}",
        fix="remove kv-cache-dtype (for fp8_e5m2: set fp8), or choose another attention-backend"
             " (VLLM_ATTENTION_BACKEND before 0.13), such as FLASHINFER",
        source="vllm#14221; attention/backends/flash_attn.py; attention/layer.py",
    ),
    Rule(
        id="compiler_missing",
        patterns=(r"Failed to find C compiler", r"No working C\+\+ compiler found",
                  r"fatal error: Python\.h: No such file", r"[Cc]ould not find nvcc",
                  r"(?:nvcc|ninja): not found|No such file or directory: '[^']*(?:nvcc|ninja)'"),
        cause="vLLM wants to compile a kernel, and the image has no compiler for it",
        fix="take the full image (g++, python3-dev and, for FlashInfer, nvcc and ninja); without:"
             " enforce-eager: true (Triton, torch), VLLM_USE_FLASHINFER_SAMPLER=0 (FlashInfer)",
        source="Triton; torch inductor; FlashInfer",
    ),
    Rule(
        id="library_missing",
        patterns=(r"'_OpNamespace' '\w*' object has no attribute '(?P<library>\w+)'",
                  r"No module named '(?P<library>vllm\._\w+)'",
                  r"operator (?P<library>torchvision::\w+) does not exist",
                  r"ImportError: (?P<library>cannot import name '\w+' from '[\w.]+')",
                  r"ImportError: (?P<library>lib[\w.+-]+\.so[\w.]*): cannot open shared object",
                  r"ImportError: .*(?P<library>undefined symbol: \w+)",
                  r"(?P<library>version `GLIBC\w*_[\d.]+') not found"),
        cause="the image does not fit together: {library}",
        fix="take an unmodified image (nothing pip-installed over it) for this machine",
        source="the dynamic linker; torch's operators; Python",
    ),
    Rule(
        id="compilation_failed",
        detail=r"^(?P<what>nvcc fatal\s*: .{1,120}|Killed\b|.{0,80}\berror: .{1,120})",
        patterns=(r"(?P<what>(?:BackendCompilerFailed|InductorError|TorchRuntimeError): .{1,160})",
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
        fix="remove attention-backend (VLLM_ATTENTION_BACKEND) so that vLLM chooses, or change"
             " kv-cache-dtype or block-size as the reason says",
        source="platforms/cuda.py",
        compute=_backend,
        versions="0.11 to 0.33",
    ),
    Rule(
        id="attention_sinks",
        patterns=(r"(?P<why>Sinks are only supported in FlashAttention 3)",
                  r"(?P<why>\w+ backend currently does not support attention sinks)"),
        cause="the attention backend cannot compute this model (gpt-oss) on this GPU: {why}",
        fix="take a newer image, or set attention-backend: TRITON_ATTN (before 0.13"
             " VLLM_ATTENTION_BACKEND=TRITON_ATTN, in 0.10 TRITON_ATTN_VLLM_V1)",
        source="vllm#22331, vllm#30919",
        versions="0.10 to 0.33",
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
    Rule(
        id="weights_not_divisible",
        patterns=(r"(?P<why>The output_size of gate's and up's weight = \d+ is not divisible by"
                  r" weight quantization block_n = \d+)",
                  r"(?P<why>Weight \w+ ?= ?\d+(?: for layer '[^']*')? is not divisible by +"
                  r"(?:weight quantization block_[nk]|min_thread_[nk]|group_size) ?= ?\d+)",
                  r"(?P<why>The (?:in|out)put size is not aligned with the quantized weight shape)",
                  r"AssertionError: (?P<why>\d+ is not divisible by \d+)"),
        cause="the model's weights cannot be split so: {why}",
        fix="lower tensor-parallel-size (of a mixture of experts, enable-expert-parallel: true"
             " keeps each expert whole), or take a checkpoint with another quantization",
        source="vllm#17569, vllm#13640, vllm#5675; distributed/utils.py",
    ),
    Rule(
        id="quantization_unsupported_gpu",
        patterns=(r"The quantization method (?P<method>\S+) is not supported for the current GPU\."
                  r" Minimum capability: (?P<needs>\d+)\. Current capability: (?P<has>\d+)",
                  r"Quantization (?P<method>scheme) is not supported for the current GPU",
                  r"\b(?P<method>\w{1,40}) quantization is currently not supported (?:in|on|for)"),
        cause="quantization {method} does not run on this GPU{capability}",
        fix="take a checkpoint with another quantization (FP8 or NVFP4 on a DGX Spark), or an"
             " image that is built for this GPU",
        source="config/vllm.py",
        compute=_capability,
    ),
)  # fmt: skip
