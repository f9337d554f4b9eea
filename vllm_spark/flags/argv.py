"""The syntax of vLLM's flags: converts the lines of a config to the server's arguments and back.

A config names flags as `vllm serve` does and gives them JSON values. The forms are those of vLLM's
FlexibleArgumentParser and get_kwargs; `flags.yaml` has the form of each flag. The rest of the
project uses the parsed value (engine_flags.py).
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Sequence

from vllm_spark.errors import ConfigError
from vllm_spark.flags.history import KNOWN, Kind
from vllm_spark.problems import Problem

FlagValue = bool | int | float | str | list["FlagValue"] | dict[str, "FlagValue"] | None
"""A flag's value as YAML or JSON gives it."""

_ALIASES = {
    "-ac": "attention-config",
    "-asc": "api-server-count",
    "-cc": "compilation-config",
    "-dc": "diffusion-config",
    "-dcp": "decode-context-parallel-size",
    "-dp": "data-parallel-size",
    "-dpa": "data-parallel-address",
    "-dpb": "data-parallel-backend",
    "-dpe": "data-parallel-external-lb",
    "-dph": "data-parallel-hybrid-lb",
    "-dpl": "data-parallel-size-local",
    "-dpm": "data-parallel-multi-port-external-lb",
    "-dpn": "data-parallel-rank",
    "-dpp": "data-parallel-rpc-port",
    "-dpr": "data-parallel-start-rank",
    "-ep": "enable-expert-parallel",
    "-n": "nnodes",
    "-pcp": "prefill-context-parallel-size",
    "-pp": "pipeline-parallel-size",
    "-q": "quantization",
    "-r": "node-rank",
    "-sc": "speculative-config",
    "-tp": "tensor-parallel-size",
    # Until 0.11 `-O3` meant --compilation-config.level=3. Those releases have no
    # optimization-level, so `check` refuses it there, and its meaning never changes silently.
    "-O": "optimization-level",
    "device-memory-utilization": "gpu-memory-utilization",
}

_OPTION = re.compile(r"--?[A-Za-z]")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*(\.[^\s=]+)?")


def canonical(name: str) -> str:
    """The flag that a spelling such as `--max_num_seqs`, `-tp` or `no-enable-lora` means.

    The text after the first dot is a path into a JSON value, where underscores matter; it stays.
    """
    return _resolve(name)[0]


def _spelled(name: str) -> str:
    head, dot, path = name.partition(".")
    head = head.removeprefix("--").replace("_", "-")
    if head == "-O" and dot:
        head = "-cc"
    return _ALIASES.get(head, head) + dot + path


def _resolve(name: str) -> tuple[str, bool]:
    """The canonical name, and whether this spelling turns the flag off.

    `no-x` does, and since 0.33 `disable-x` for `enable-x` and the other way round. Every release
    accepts `--no-x`, so an argv has only that form.
    """
    name = _spelled(name)
    if name in KNOWN or "." in name:
        return name, False
    if name.startswith("no-"):
        positive, off = _resolve(name[3:])
        return positive, not off
    verb, _, rest = name.partition("-")
    opposite = {"enable": "disable", "disable": "enable"}.get(verb)
    if f"{opposite}-{rest}" in KNOWN:
        return f"{opposite}-{rest}", True
    return name, False


def meaning(written: str, value: FlagValue) -> tuple[str, FlagValue]:
    """The canonical name of a config line, and its value in the positive form of the flag."""
    name, off = _resolve(written)
    if not off:
        return name, value
    return (name, not value) if isinstance(value, bool) else (_spelled(written), value)


def kind_of(name: str) -> Kind | None:
    """How vLLM reads this flag's value; None for dotted names and for flags not in the table."""
    return KNOWN[name].kind if name in KNOWN else None


def to_arguments(name: str, value: FlagValue) -> list[str]:
    """The arguments that set one flag, by its canonical name."""
    option, kind = f"--{name}", kind_of(name)
    if isinstance(value, bool) and "." not in name:
        if value:
            return [option]
        return [] if kind == "store_true" else [f"--no-{name}"]
    if isinstance(value, list) and kind != "json" and "." not in name:
        texts = [_text(item) for item in value]
        if kind == "append" or len(texts) == 1:
            return [argument for text in texts for argument in _pair(option, text)]
        return [option, *texts]
    return _pair(option, _text(value))


def _pair(option: str, text: str) -> list[str]:
    # One argument, so that a preview shows a changed value beside its name. Also, argparse reads a
    # text with a leading dash as another option unless it follows `=`.
    return [f"{option}={text}"]


def _text(value: FlagValue) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(_with_integers(value), separators=(",", ":"))


def _with_integers(value: FlagValue) -> FlagValue:
    """Whole floats as integers at every depth: the Pulumi engine's only number type is float."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_with_integers(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_integers(item) for key, item in value.items()}
    return value


def without_argument(where: str, name: str, value: FlagValue) -> Problem | None:
    """Why a flag with this value cannot be written on vLLM's command line; None if it can."""
    kind = kind_of(name)
    if not _NAME.fullmatch(name):
        return Problem(where, "is not a flag's name", "write it as in `vllm serve --help`")
    if value is None and "." not in name:
        return Problem(
            where,
            "has no value (null), which vLLM's command line cannot say",
            "give a value, or remove the line to have vLLM's default",
        )
    if not isinstance(value, list) or kind in ("json", "append") or "." in name:
        return None
    if not value:
        return Problem(where, "is an empty list; vLLM wants at least one", "remove the line")
    ambiguous = [text for text in map(_text, value) if re.match(r"-(?!\d+$)", text)]
    if ambiguous and len(value) > 1:
        return Problem(
            where,
            f"{ambiguous[0]!r} begins with a dash, so vLLM would take it for the next flag",
            "remove it from the list",
        )
    return None


def from_argv(argv: Sequence[str]) -> dict[str, FlagValue]:
    """The flags in an argv, by canonical name; of a flag given twice the last one, as in vLLM.

    A text becomes a number if the flag takes one, or if the number would be written exactly like
    the text and the flag is not known to take text. It becomes an object if it is one in JSON, and
    an array if the flag takes JSON. ConfigError for arguments that belong to no flag.
    """
    flags: dict[str, FlagValue] = {}
    rest = deque(argv)
    while rest:
        option, glued = _split(rest.popleft())
        name, off = _resolve(option)
        texts = [glued] if glued is not None else _values(name, rest)
        if off and texts:
            name = _spelled(option)
        value = _value(name, texts) if texts else not off
        if kind_of(name) == "append" and isinstance(before := flags.get(name), list):
            value = [*before, *(value if isinstance(value, list) else [value])]
        flags[name] = value
    return flags


def _split(argument: str) -> tuple[str, str | None]:
    """An option, and the value attached to it: `--x=1`, `-O3`."""
    if re.match(r"-O[^=.]", argument):
        return "-O", argument[2:]
    option, equals, glued = argument.partition("=")
    if not _OPTION.match(option):
        raise ConfigError(
            [
                Problem(
                    f"argument {argument!r}",
                    "belongs to no flag",
                    "write --flag value; put quotation marks around a value with spaces",
                )
            ]
        )
    return option, glued if equals else None


def _values(name: str, rest: deque[str]) -> list[str]:
    """Remove the texts of this flag's value from `rest`, and return them."""
    kind = kind_of(name)
    if kind in ("bool", "store_true"):
        return []
    many = kind in ("list", None) and "." not in name
    texts: list[str] = []
    while rest and (many or not texts) and not _OPTION.match(rest[0]):
        texts.append(rest.popleft())
    return texts


def _value(name: str, texts: list[str]) -> FlagValue:
    kind = kind_of(name)
    values = [_typed(text, kind, dotted="." in name) for text in texts]
    return values if len(values) > 1 or kind in ("list", "append") else values[0]


def _typed(text: str, kind: Kind | None, *, dotted: bool) -> FlagValue:
    # Python's json accepts these three words as numbers; JSON does not.
    if kind == "text" or text in ("NaN", "Infinity", "-Infinity"):
        return text
    try:
        value = _with_integers(json.loads(text))
    except ValueError:
        return text
    if dotted or isinstance(value, dict) or (isinstance(value, list) and kind == "json"):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text
    return value if kind in ("int", "human_int", "float") or _text(value) == text else text
