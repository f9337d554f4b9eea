"""Failures of the model's description: config, architecture, code, tokenizer, processor."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values


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
        "what": f"no config.json is available for {name}: it is not on the hub (for this token), or"
        " not a model in Hugging Face's format",
        "how": "check the spelling of the id, the Hugging Face token and the network; for GGUF,"
        " give"
        " the path of a local file",
    }


def _through_transformers(values: Values) -> Values | None:
    """Only where vLLM resolved an architecture of its Transformers backend."""
    return {} if values.get("architecture", "").startswith("Transformers") else None


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
        fix="use the config.json of the original checkpoint (adapters and GGUF have none)",
        source="transformers configuration_auto.py",
    ),
    Rule(
        id="model_type_unknown",
        patterns=(r"checkpoint you are trying to load has model type `(?P<type>[^`]*)` but"
                  r" Transformers does not recognize",),
        cause="this image's transformers is too old for the model type {type}",
        fix="use a newer image: {type} came later than the transformers in this one",
        source="transformers configuration_auto.py",
    ),
    Rule(
        id="model_type_without_config",
        patterns=(r"KeyError: '(?P<type>[\w-]{2,60})'",),
        frame=r"configuration_auto\.py",
        cause="this image's transformers does not know the model type {type}",
        fix="use a newer image: {type} came later than the transformers in this one",
        source="transformers configuration_auto.py",
    ),
    Rule(
        id="layer_type_unknown",
        patterns=(r"KeyError: '(?P<type>(?:linear|full|sliding|chunked|mamba)\w*_?attention"
                  r"|mamba2?)'",),
        cause="the config's layer type {type} is unknown to this vLLM's code for the model:"
              " config and"
              " transformers in the image are newer than this vLLM, or older",
        fix="use a newer image, or the revision of the model from before its config changed",
        source="vllm#47867",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="architecture_unsupported",
        patterns=(r"Model architectures \[(?P<arch>[^\]]*)\] are not supported for now",
                  r"\b(?P<arch>\w{1,100}) has no vLLM implementation and the Transformers"
                  r" implementation is not compatible"),
        cause="vLLM {version} cannot run the architecture {arch}",
        fix="use a newer image, or another model; check architectures in config.json",
        source="vLLM 0.26 log; models/registry.py",
    ),
    Rule(
        id="gguf_unsupported",
        patterns=(r"GGUF model with architecture (?P<arch>[\w.-]+) is not supported yet",),
        cause="this image cannot read GGUF files of the architecture {arch}",
        fix="use the model's safetensors checkpoint, or a newer image",
        source="transformers, vllm#28691",
    ),
    Rule(
        id="architecture_dropped",
        patterns=(r"Model architecture (?P<arch>\S+) was supported in vLLM until"
                  r" v(?P<until>\S+?),",),
        cause="the architecture {arch} was dropped after vLLM {until}",
        fix="use an image with vLLM {until} or older",
        source="models/registry.py",
    ),
    Rule(
        id="architecture_not_inspected",
        patterns=(r"Model architectures \[(?P<arch>[^\]]*)\] failed to be inspected",),
        cause="the code for {arch} cannot be loaded in this image",
        fix="give the log from its beginning: the traceback that registry.py logged above this line"
             " holds the cause, mostly a package that the image lacks or has in another version",
        source="models/registry.py; vllm-recipes#511",
        rank=Rank.CONSEQUENCE,
    ),
    Rule(
        id="remote_code",
        patterns=(r"requires you to execute the configuration file",
                  r"contains custom code which must be executed",
                  r"Failed to load the model config\. If the model is a custom model"),
        cause="{model} brings its own Python code, which is not allowed to run",
        fix="set trust-remote-code: true if you trust the author (pin revision), or use another"
             " model",
        source="transformers dynamic_module_utils.py; transformers_utils/config.py",
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
        fix="use a newer image; or fetch tokenizer.json again, if it may be damaged",
        source="tokenizers, serde",
    ),
    Rule(
        id="tokenizer_class_unknown",
        patterns=(r"Tokenizer class (?P<name>\S+) (?:does not exist or )?is not currently",),
        cause="this image's transformers does not know the tokenizer class {name}",
        fix="use an image whose transformers knows {name}, or set tokenizer-mode or tokenizer",
        source="transformers tokenization_auto.py",
    ),
    Rule(
        id="transformers_fallback_fails",
        patterns=(r"(?P<what>mat1 and mat2 shapes cannot be multiplied \([^)]*\))",
                  r"(?P<what>The size of tensor a \(\d+\) must match the size of tensor b"
                  r" \(\d+\).{0,60})",
                  r"(?P<what>(?:shape|size) mismatch.{0,100})"),
        cause="this vLLM does not support the model itself and runs it through Transformers"
              " ({architecture}), which fails: {what}",
        fix="use a newer image that has the architecture, or another checkpoint",
        source="vllm-ultimate-dgx-spark",
        compute=_through_transformers,
    ),
    Rule(
        id="shapes_do_not_fit",
        patterns=(r"RuntimeError: (?P<what>mat1 and mat2 shapes cannot be multiplied \([^)]*\))",),
        cause="a layer got a tensor of another size than its weights: the model's code in this"
              " image"
              " does not fit this checkpoint ({what})",
        fix="use a newer image; if LoRA adapters or a draft model are set, check that they were"
             " made for this model",
        source="torch",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="config_attribute_missing",
        patterns=(r"AttributeError: '(?P<config>(?!(?:Speculative|Vllm|Model|Cache|Parallel"
                  r"|Scheduler"
                  r"|Compilation|LoRA|Kernel|Attention|Load|Device)Config)\w*Config)' object has"
                  r" no attribute '(?P<name>\w+)'",),
        cause="the model's config ({config}) has no {name}, which this vLLM's code for the model"
              " reads: the image's transformers and vLLM, or the model, are of different versions",
        fix="use a newer image (or the one that the model's page names); if config.json was edited"
             " or is of an older revision, fetch it again",
        source="ml-fastvlm#28; vllm#47867",
        rank=Rank.GENERAL,
        unless=r"transformers_modules/",
    ),
    Rule(
        id="processor_fails",
        patterns=(r"Failed to apply (?P<name>\w{1,60}Processor)\b",
                  r"\b(?P<name>\w{0,60}Processor) (?:not found|is not registered)",
                  r"Can't (?:load|instantiate) (?:image |feature )?(?P<name>processor)",
                  r"(?P<name>preprocessor_config\.json) (?:not found|is missing)"),
        cause="the model's processor for images, video or audio ({name}) fails in this image",
        fix=("set language-model-only: true to serve text alone",
             "check that preprocessor_config.json belongs to the checkpoint; use the image that"
             " the"
             " model's page names"),
        source="vllm/multimodal/processing.py",
        rank=Rank.GENERAL,
    ),
)  # fmt: skip
