"""Failures of the model and its files: config, code, weights, tokenizer."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

# Tensors that only a quantized checkpoint has.
_SCALES = (r"[\w.]*(?:weight_scale|scale_inv|input_scale|qweight|qzeros|g_idx|weight_packed"
           r"|weight_shape)\w*")  # fmt: skip


def _repo_or_path(values: Values) -> Values:
    """A wrong local path is taken for a repository id: say which of the two it was."""
    name = values["name"]
    if name.startswith(("/", ".", "~")):
        return {
            "what": f"the directory {name} does not exist inside the container",
            "how": f"mount the host's directory there, or correct the path (seen as {name})",
        }
    return {
        "what": f"{name} is not a repository id of the hub (namespace/name) and no directory",
        "how": "set the model to namespace/name as the hub writes it, or to a mounted directory",
    }


def _directory_or_repo(values: Values) -> Values:
    name = values.get("name") or values["model"]
    if name.startswith(("/", ".", "~")):
        return {
            "what": f"{name} is no model: there is no config.json in it",
            "how": f"copy the whole checkpoint to {name} (config.json, tokenizer, *.safetensors),"
            " or correct the path",
        }
    return {
        "what": f"no config.json can be had for {name}: it is not on the hub (for this token), or"
        " not a model in Hugging Face's format",
        "how": "check the spelling of the id, the Hugging Face token and the network; of GGUF give"
        " the path of a local file",
    }


def _missing_module(values: Values) -> Values:
    name = values["module"]
    if name == "ray":
        return {"how": "take an image that has Ray (NGC images from 26.07 on have none), or use"
                       " nnodes, node-rank and master-addr in place of Ray"}  # fmt: skip
    return {"how": f"take an image that contains {name}, or remove the setting that needs it"}


RULES = (
    Rule(
        id="model_path_missing",
        patterns=(r"Repo id must be in the form 'repo_name' or 'namespace/repo_name':"
                  r" '(?P<name>[^']*)'",
                  r"Repo id must use alphanumeric chars.*?: '(?P<name>[^']*)'"),
        cause="{what}",
        fix="{how}",
        source="vLLM 0.26 log; huggingface_hub HFValidationError",
        compute=_repo_or_path,
    ),
    Rule(
        id="model_without_config",
        patterns=(r"Invalid repository ID or local directory specified: '(?P<name>[^']*)'",
                  r"No supported config format found in (?P<name>\S+?)\.?(?:\s|$)",
                  r"Could not detect config format for no config file found"),
        cause="{what}",
        fix="{how}",
        source="vLLM 0.26 log; transformers_utils/config.py",
        rank=Rank.GENERAL,
        compute=_directory_or_repo,
    ),
    Rule(
        id="config_not_json",
        patterns=(r"the config file at '(?P<path>[^']*)' is not a valid JSON file",),
        cause="{path} is not valid JSON (cut off, or an error page in its place)",
        fix="fetch {path} again",
        source="vLLM 0.26 log; transformers configuration_utils.py",
    ),
    Rule(
        id="config_without_model_type",
        patterns=(r"Unrecognized model in (?P<name>\S+?)\. Should have a `model_type` key",),
        cause="the config.json of {name} names no model_type",
        fix="take the config.json of the original checkpoint (adapters and GGUF have none)",
        source="transformers configuration_auto.py",
    ),
    Rule(
        id="model_type_unknown",
        patterns=(r"checkpoint you are trying to load has model type `(?P<type>[^`]*)` but"
                  r" Transformers does not recognize",),
        cause="this image's transformers is too old for the model type {type}",
        fix="take a newer image: {type} came later than the transformers in this one",
        source="transformers configuration_auto.py",
    ),
    Rule(
        id="architecture_unsupported",
        patterns=(r"Model architectures \[(?P<arch>[^\]]*)\] are not supported for now",
                  r"\b(?P<arch>\w{1,100}) has no vLLM implementation and the Transformers"
                  r" implementation is not compatible"),
        cause="vLLM {version} cannot run the architecture {arch}",
        fix="take a newer image, or another model; check architectures in config.json",
        source="vLLM 0.26 log; models/registry.py",
    ),
    Rule(
        id="gguf_unsupported",
        patterns=(r"GGUF model with architecture (?P<arch>[\w.-]+) is not supported yet",),
        cause="this image cannot read GGUF files of the architecture {arch}",
        fix="take the model's safetensors checkpoint, or a newer image",
        source="transformers, vllm#28691",
    ),
    Rule(
        id="architecture_dropped",
        patterns=(r"Model architecture (?P<arch>\S+) was supported in vLLM until"
                  r" v(?P<until>\S+?),",),
        cause="the architecture {arch} was dropped after vLLM {until}",
        fix="take an image with vLLM {until} or older",
        source="models/registry.py",
        versions="0.10 to 0.33",
    ),
    Rule(
        id="architecture_not_inspected",
        patterns=(r"Model architectures \[(?P<arch>[^\]]*)\] failed to be inspected",),
        cause="the code for {arch} cannot be loaded in this image",
        fix="read the traceback above it: mostly a package that the image lacks",
        source="models/registry.py",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="remote_code",
        patterns=(r"requires you to execute the configuration file",
                  r"contains custom code which must be executed",
                  r"Failed to load the model config\. If the model is a custom model"),
        cause="{model} brings its own Python code, which is not allowed to run",
        fix="set trust-remote-code: true if you trust the author (pin revision), or take another"
             " model",
        source="transformers dynamic_module_utils.py; transformers_utils/config.py",
    ),
    Rule(
        id="weights_missing",
        patterns=(r"Cannot find any model weights with `(?P<path>[^`]*)`",),
        cause="there are no weights (*.safetensors) in {path}",
        fix="fetch the weights into {path}: only config and tokenizer are there",
        source="vLLM 0.26 log; default_loader.py",
    ),
    Rule(
        id="shard_missing",
        patterns=(r"Weight files referenced in index but missing: (?P<files>.+)",
                  r"No such file or directory: \"?'?(?P<files>[^'\"]*\.(?:safetensors|bin|gguf))"),
        cause="weight files are missing: {files}",
        fix="fetch them again: the index names files that are not there",
        source="weight_utils.py",
    ),
    Rule(
        id="shard_truncated",
        patterns=(r"incomplete metadata, file not fully covered", r"MetadataIncompleteBuffer",
                  r"Consistency check failed: file should be of size (?P<size>\d+)",
                  r"PytorchStreamReader failed"),
        cause="a weight file is cut off (an interrupted download, a full disk)",
        fix="compare the sizes of the *.safetensors of {model} with the hub's, delete the short"
             " one and fetch it again",
        source="vLLM 0.26 log; safetensors",
    ),
    Rule(
        id="shard_not_safetensors",
        patterns=(r"deserializing header: (?:header too (?:large|small)|invalid (?:UTF|JSON)\S*"
                  r"|HeaderToo(?:Large|Small)|InvalidHeader\w*)",),
        cause="a *.safetensors file is something else: an HTML page, a Git LFS pointer, an empty"
              " file",
        fix="look at the smallest *.safetensors of {model} (`head -c 100`), delete it and fetch"
             " it again with the hub's own client",
        source="vLLM 0.26 log; safetensors",
    ),
    Rule(
        id="shard_header_unreadable",
        patterns=(r"^(?:MemoryError|OverflowError|UnicodeDecodeError|struct\.error"
                  r"|json\.decoder\.JSONDecodeError)\b",),
        frame="parse_safetensors_file_metadata",
        cause="a *.safetensors file of {model} is something else: an HTML page, a Git LFS pointer,"
              " an empty file",
        fix="look at its smallest *.safetensors (`head -c 100`), delete it and fetch it again with"
             " the hub's own client",
        source="vLLM 0.32 log; transformers_utils/utils.py",
        versions="0.15 to 0.33",
    ),
    Rule(
        id="quantization_config_missing",
        patterns=(rf"AttributeError: '\w+' object has no attribute '(?P<tensor>{_SCALES})'",
                  rf"KeyError: '(?P<tensor>{_SCALES})'",
                  rf"no module or parameter named '(?P<tensor>{_SCALES})'"),
        cause="the weights are quantized (they hold {tensor}) but config.json does not say how",
        fix="take the config.json of the original checkpoint: quantization_config is missing or"
             " wrong in this one",
        source="vLLM 0.26 log; models/utils.py",
    ),
    Rule(
        id="weights_do_not_fit_config",
        patterns=(r"no module or parameter named '(?P<what>[^']*)'",
                  r"Attempted to load weight \((?P<what>[^)]*\)?)\) into parameter",
                  r"(?P<what>weights were not initialized from checkpoint.{0,80})",
                  r"KeyError: '(?P<what>(?:model\.)?layers\.\d+\.[^']+)'",
                  r"AssertionError: (?P<what>Tried to load weights of size .*)"),
        cause="the weights do not belong to this config.json ({what})",
        fix="fetch the whole checkpoint again, config.json and weights from one revision; if it is"
             " whole, take a newer image",
        source="models/utils.py; weight_utils.py",
    ),
    Rule(
        id="tokenizer_missing",
        patterns=(r"Can't load tokenizer for '(?P<name>[^']*)'",
                  r"(?P<name>)Couldn't instantiate the backend tokenizer",
                  r"(?P<name>)Unable to load vocabulary from file"),
        cause="there is no usable tokenizer in {model}",
        fix="fetch the tokenizer files (tokenizer.json, tokenizer_config.json), or set tokenizer"
             " to the base model's id",
        source="transformers tokenization_utils_base.py",
    ),
    Rule(
        id="tokenizer_format_unknown",
        patterns=(r"data did not match any variant of untagged enum \w+",),
        cause="this image's tokenizers cannot read the tokenizer.json of {model}",
        fix="take a newer image; or fetch tokenizer.json again, if it may be damaged",
        source="tokenizers, serde",
    ),
    Rule(
        id="tokenizer_class_unknown",
        patterns=(r"Tokenizer class (?P<name>\S+) (?:does not exist or )?is not currently",),
        cause="this image's transformers does not know the tokenizer class {name}",
        fix="take an image whose transformers knows {name}, or set tokenizer-mode or tokenizer",
        source="transformers tokenization_auto.py",
    ),
    Rule(
        id="module_missing",
        patterns=(r"ModuleNotFoundError: No module named '(?P<module>[\w.]+)'",
                  r"(?P<module>hf_transfer)' package is not available",
                  r"Please install (?P<module>[Rr]ay) with",
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
