"""What a log says of the server besides its start: the settings it was given, what vLLM chose.

A traceback alone often fits several faults. Which flags were set, which architecture was resolved
and which kernel back ends were chosen tells them apart, and stands in the same log.
"""

from __future__ import annotations

import re

_SETTINGS = re.compile(
    r"'(?P<name>[a-z]\w{1,60})': (?:'(?P<text>[^']{0,300})'|(?P<plain>-?[\w.]{1,40})"
    r"|(?P<more>[\[{]))"
)
_OPTIONS = re.compile(
    r"(?:^|\s)--(?P<name>[a-z][\w-]{1,60})(?:[= ]+(?!--)(?P<text>'[^']{0,300}'|\"[^\"]{0,300}\"|"
    r"[^\s'\"]{1,200}))?"
)
_NAMESPACE = re.compile(
    r"[(\s](?P<name>[a-z]\w{1,60})=(?:'(?P<text>[^']{0,300})'|(?P<plain>[\w.]+))"
)
_ENGINE = re.compile(
    r"\b(?P<name>model|quantization|kv_cache_dtype|enforce_eager|tensor_parallel_size"
    r"|speculative_config)=(?:'(?P<text>[^']{0,300})'|(?P<plain>[\w.-]{1,60}))"
)
_MODEL = re.compile(r"\bvllm serve +(?!-)['\"]?([^'\"\s]{1,300})")
_SHORT = {"-tp": "tensor_parallel_size", "-pp": "pipeline_parallel_size", "-q": "quantization"}
_SHORT_OPTION = re.compile(r"(?:^|\s)(-tp|-pp|-q) (\S{1,60})")
_ARGUMENTS_LINE = re.compile(
    r"non-default args|args: Namespace|LLM engine \(v|^# argv:|vllm serve "
)
_CHOSEN = (
    ("architecture", re.compile(r"Resolved architectures?: (\w{1,100})")),
    ("attention", re.compile(r"Using (\w{1,60}) (?:attention )?backend(?: out of|\.|$)")),
    ("moe", re.compile(r"Using '?(\w{1,60})'? (?:\w+ )?Mo[Ee] backend")),
    ("mamba_align", re.compile(r"Mamba cache (?:mode is set to )?'(align)'")),
)
_SECRET = re.compile(r"key|token(?!izer|s)|passw|secret")


class ServerFacts:
    """Collects settings (by vLLM's names, with underscores) and choices. Bounded in size."""

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}
        self.chosen: dict[str, str] = {}

    def read(self, text: str) -> None:
        """Takes in a message of level INFO or WARNING, or a saved log's header."""
        for name, pattern in _CHOSEN:
            if found := pattern.search(text):
                self.chosen[name] = found[1]

    def read_arguments(self, text: str) -> bool:
        """Takes in the settings that a line names; whether it is a line of that kind."""
        if not _ARGUMENTS_LINE.search(text):
            return False
        if found := _MODEL.search(text):
            self._add("model", found[1])
        pattern = _SETTINGS if "': " in text else _NAMESPACE if "Namespace" in text else None
        for found in pattern.finditer(text) if pattern else ():
            self._add(found["name"], found["text"] or found["plain"] or "...")
        for found in _ENGINE.finditer(text) if "LLM engine (v" in text else ():
            name, value = found["name"], found["text"] or found["plain"]
            if value != "None" or name == "quantization":
                self._add(name, value)
        for found in _OPTIONS.finditer(text):
            value = (found["text"] or "True").strip("'\"")
            self._add(found["name"].replace("-", "_"), value)
        for found in _SHORT_OPTION.finditer(text):
            self._add(_SHORT[found[1]], found[2])
        return True

    def _add(self, name: str, value: str) -> None:
        if len(self.settings) < 100 and not _SECRET.search(name):
            self.settings.setdefault("model" if name == "model_tag" else name, value)
