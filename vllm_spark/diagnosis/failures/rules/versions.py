"""Parts that do not belong together: packages of the image, the model's own code, compilers."""

from __future__ import annotations

import re

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_UNMODIFIED = ("use an unmodified image (nothing installed over it with pip, no file of it"
               " replaced"
               " by a mount)")  # fmt: skip
# Packages whose kernels or interfaces must be of the version that vLLM was built with.
_CONFIGS = r"\b(?:\w{0,60}Config|EngineArgs|SamplingParams)"


def _dotted(values: Values) -> Values | None:
    """`No module named 'a.b'`: a is there (else Python names a), and is too old or too new."""
    top, dot, _ = values["module"].partition(".")
    if not dot or top in ("vllm", "transformers_modules"):
        return None
    return {"package": top.replace("_", "-")}


def _cuda_library(values: Values) -> Values:
    found = re.search(r"lib(?:cudart|cublas|cublasLt|nvrtc|cusparse)\.so\.(\d+)", values["library"])
    if not found:
        return {"why": ""}
    return {"why": f" (that library is of CUDA {found[1]}, and the image has another CUDA)"}


RULES = (
    Rule(
        id="models_own_code",
        patterns=(r"^(?P<what>(?:ImportError: cannot import name|AttributeError:|TypeError:"
                  r"|KeyError:"
                  r"|NameError:|ModuleNotFoundError: No module named '\w+\.).{0,160})",),
        frame=r"transformers_modules/",
        cause="the model's own code (trust-remote-code) does not go with the transformers in this"
              " image: {what}",
        fix="remove trust-remote-code if this vLLM knows the architecture by itself; otherwise pin"
             " a revision of the model whose code fits, or use an image with the transformers that"
             " the model's page names",
        source="vllm#55845",
    ),
    Rule(
        id="flashinfer_versions_differ",
        patterns=(r"(?P<part>flashinfer-(?:cubin|jit-cache)) version \((?P<one>[^)]+)\) does not"
                  r" match flashinfer version \((?P<other>[^)]+)\)",),
        cause="{part} {one} and flashinfer {other} in the image are of different versions",
        fix=f"{_UNMODIFIED}; or install {{part}} of version {{other}}; FLASHINFER_DISABLE_VERSION"
             "_CHECK=1 goes on without the check",
        source="vllm#49804; flashinfer/jit/env.py",
    ),
    Rule(
        id="package_version_required",
        patterns=(r"(?<![\w-])(?P<needs>[\w-]{1,60}[<>=!]=?[\w.,<>=!]+) is required for a normal"
                  r" functioning of this"
                  r" module, but found (?P<has>[\w-]+==\S+)",
                  r"requires (?P<needs>[\w-]+ ?(?:version )?[<>=]=? ?[\d.]+),? but (?:found|you"
                  r" have|got)"
                  r" (?P<has>[\w-]* ?(?:version )?[\d.]+\S*)",
                  r"ImportError: (?P<needs>[\w-]{1,60} ?>=? ?[\d.]+) (?:is|are) required"),
        cause="a package of the image has another version than the rest needs: {needs}{but}",
        fix=f"{_UNMODIFIED}; or install the version that is asked for",
        source="transformers utils/versions.py",
        compute=lambda values: {"but": f", not {values['has']}" if values.get("has") else ""},
    ),
    Rule(
        id="package_does_not_fit",
        patterns=(r"ModuleNotFoundError: No module named '(?P<module>[\w.]+)'",),
        cause="{package} in the image is of another version than this vLLM needs: it has no"
              " {module}",
        fix=f"{_UNMODIFIED}; or install the version of {{package}} that this vLLM names in its"
             " requirements",
        source="Python's import system",
        compute=_dotted,
    ),
    Rule(
        id="tokenizer_of_transformers_5",
        patterns=(r"'list' object has no attribute 'keys'",),
        frame=r"tokenization_utils_base\.py",
        cause="tokenizer_config.json was written by transformers 5 (extra_special_tokens is a"
              " list),"
              " and this image has transformers 4",
        fix="use an image with transformers 5; or correct tokenizer_config.json: remove"
             " extra_special_tokens, or make it an object",
        source="ms-swift#8352; mlx-lm#661",
    ),
    Rule(
        id="cute_dsl_too_old",
        patterns=(r"expects arch to be one of \[(?P<has>[^\]]*)\], but got"
                  r" (?:Arch\.)?(?P<arch>sm_\w+)",
                  r"(?P<arch>sm_\w+) is not (?:in|one of) the (?:admissible|supported) arch\w*"),
        cause="the CuTe DSL (nvidia-cutlass-dsl) in the image does not know this GPU ({arch})",
        fix=(("set another moe-backend: marlin or flashinfer_cutlass, and linear-backend: marlin,"
              " in place of flashinfer_b12x",
              "set another moe-backend: marlin or flashinfer_cutlass"),
             "use an image with nvidia-cutlass-dsl 4.5 or newer"),
        source="vllm#40082",
    ),
    Rule(
        id="ptxas_refuses_the_kernel",
        patterns=(r"(?s)NVPTX compiler invocation failed.*?error\s*: (?P<what>[^\n]{1,120})",
                  r"ptxas.{0,60}(?:error|fatal)\s*: (?P<what>(?:Unexpected instruction types"
                  r"|Feature '[^']*' not supported|Instruction '[^']*' .{0,40}not supported)"
                  r".{0,80})"),
        cause="a kernel cannot be compiled for this GPU: ptxas in the image refuses it ({what})",
        fix=(("set another moe-backend: marlin or flashinfer_cutlass (or linear-backend: marlin,"
              " for"
              " a dense layer)",
              "set another moe-backend: marlin or flashinfer_cutlass"),
             "use an image with a newer CUDA and nvidia-cutlass-dsl"),
        source="vllm#40082",
        unless=r"is not defined for option",
    ),
    Rule(
        id="library_missing",
        patterns=(r"'_OpNamespace' '\w*' object has no attribute '(?P<library>\w+)'",
                  r"No module named '(?P<library>vllm\._\w+)'",
                  r"operator (?P<library>torchvision::\w+) does not exist",
                  r"ImportError: (?P<library>cannot import name '\w+' from '[\w.]+')",
                  r"ImportError: (?P<library>lib[\w.+-]+\.so[\w.]*): cannot open shared object",
                  r"OSError: (?P<library>lib[\w.+-]+\.so[\w.]*): cannot open shared object",
                  r"ImportError: .*(?P<library>undefined symbol: \w+)",
                  r"(?P<library>numpy\.(?:dtype|ufunc) size changed.{0,80})",
                  r"(?P<library>version `(?:GLIBC\w*|CXXABI)_[\d.]+') not found"),
        cause="the image does not fit together: {library}{why}",
        fix=f"{_UNMODIFIED} for this machine: vLLM, torch and CUDA must have been built together",
        source="the dynamic linker; torch's operators; Python",
        compute=_cuda_library,
        unless=r"transformers_modules/|libcuda\.so",
    ),
    Rule(
        id="setting_unknown_to_config",
        patterns=(rf"(?P<config>{_CONFIGS})\.?(?:__init__)?\(\) got an unexpected keyword argument"
                  r" '(?P<name>\w+)'",
                  r"(?s)validation errors? for"
                  r" (?P<config>\w{0,60}Config)\s+(?P<name>[\w.]+)\s+Unexpected"
                  r" keyword argument"),
        cause="this release's {config} has no option {name}",
        fix="remove {name} from the JSON value that sets it, or use the release whose"
            " documentation"
             " names it",
        source="Python; pydantic, for every config class of vLLM",
    ),
    Rule(
        id="calls_do_not_fit",
        patterns=(r"TypeError: (?P<what>[\w.<>]+\(\) (?:got an unexpected keyword argument '\w+'"
                  r"|missing \d+ required (?:positional|keyword-only) arguments?: .{1,80}"
                  r"|takes (?:from )?\d+ .{0,40}positional arguments? but \d+ .{0,20}given))",
                  r"AttributeError: (?P<what>module '(?:flashinfer|triton|torch|transformers"
                  r"|xgrammar"
                  r"|compressed_tensors)[\w.]*' has no attribute '\w+')"),
        cause="two parts of the image are of different versions and do not fit together: {what}",
        fix=f"{_UNMODIFIED}: remove mounted patches and packages that were installed later; or use"
             " the release for which the patch or package was made; an argument that"
             " mm-processor-kwargs or hf-overrides sets is to be removed there",
        source="spark-vllm-docker#238",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="tokenizer_of_other_transformers",
        patterns=(r"AttributeError: '?(?P<what>\w*Tokenizer\w*'? (?:object )?has no attribute"
                  r" '?\w+)",),
        cause="this vLLM does not go with the transformers in the image: {what}",
        fix=f"{_UNMODIFIED}, or install the transformers version that this vLLM names in its"
             " requirements (vLLM 0.11 and older need transformers 4)",
        source="vllm, transformers 5",
        unless=r"transformers_modules/",
    ),
    Rule(
        id="compile_cache_not_saved",
        patterns=(r"PicklingError: (?P<what>Can't pickle .{1,120})",
                  r"TypeError: (?P<what>cannot pickle .{1,80})"),
        frame=r"torch/_(?:functorch|inductor|dynamo)|vllm/compilation",
        cause="torch.compile cannot save its result in the compile cache ({what})",
        fix="set VLLM_DISABLE_COMPILE_CACHE=1 (keeps torch.compile), or enforce-eager: true; a"
            " newer"
             " image may have it corrected",
        source="dgx-spark-research g12",
    ),
    Rule(
        id="module_missing",
        patterns=(r"ModuleNotFoundError: No module named '(?P<module>[\w.]+)'",
                  r"(?P<module>hf_transfer)' package is not available",
                  r"Please install (?P<module>[Rr]ay) with",
                  r"packages that were not found in your environment: (?P<module>[\w-]+)",
                  r"ImportError: (?P<module>[\w-]+) is not installed",
                  r"ImportError: (?:.{0,80}\b)?[Pp]lease install (?!it\b)"
                  r"(?P<module>[A-Za-z][\w-]*)"),
        cause="the image lacks the Python package {module}",
        fix="{how}",
        source="Python; vLLM's optional imports",
        rank=Rank.GENERAL,
        compute=lambda values: _missing_module({"module": values["module"].lower()}),
    ),
)  # fmt: skip


def _missing_module(values: Values) -> Values:
    name = values["module"]
    if name == "ray":
        return {"how": "use an image that has Ray (NGC images from 26.07 on have none), or use"
                       " nnodes, node-rank and master-addr in place of Ray"}  # fmt: skip
    return {"how": f"use an image that contains {name}, or remove the setting that needs it"}
