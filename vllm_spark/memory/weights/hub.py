"""Reads of a model on the Hugging Face hub what decides about memory: no weights are downloaded.

The hub's own library does the talking, so HF_ENDPOINT, HF_TOKEN, a saved login, HF_HUB_OFFLINE and
the cache mean what they mean everywhere. Only this module imports it, and only for this command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_spark.errors import HubError
from vllm_spark.memory.model_config import CONFIG_FILE, MODELOPT_FILE
from vllm_spark.memory.weights.headers import Header, read_header

INDEX_FILE = "model.safetensors.index.json"
_OTHER_FORMS = {
    ".gguf": "GGUF files",
    ".bin": "PyTorch's .bin files",
    ".pt": "PyTorch's .pt files",
    ".pth": "PyTorch's .pth files",
}
_SECONDS = 30
_PARTIAL = 206
_AT_ONCE = 8
"""Headers that are read at the same time."""

Progress = Callable[[int, int], None]
"""Called with the number of headers read and the number of all headers."""


@dataclass(frozen=True)
class HubModel:
    """What was read of one revision."""

    id: str
    commit: str
    config: Mapping[str, Any]
    """config.json, with hf_quant_config.json in its place."""
    headers: tuple[Header, ...]


def read_model(model: str, revision: str | None, progress: Progress) -> HubModel:
    """Read config, quantisation file and headers. HubError says what is in the way."""
    from huggingface_hub import constants

    with _hub_errors(model, revision):
        if constants.is_offline_mode():
            return _from_cache(model, revision, progress)
        return _from_hub(model, revision, progress)


def _from_hub(model: str, revision: str | None, progress: Progress) -> HubModel:
    from huggingface_hub import HfApi, get_session, hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented there
        build_hf_headers,
        hf_raise_for_status,
    )

    api = HfApi()
    info = api.model_info(model, revision=revision, files_metadata=True)
    commit = str(info.sha)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}

    def local(name: str) -> Path:
        return Path(api.hf_hub_download(model, name, revision=commit))

    config = _config(model, sizes, local)
    names = _weight_files(model, sizes, local)

    def header(name: str) -> Header:
        url = hf_hub_url(model, name, revision=commit)

        def read(first: int, end: int) -> bytes:
            headers = {**build_hf_headers(), "range": f"bytes={first}-{end - 1}"}
            with get_session().stream("GET", url, headers=headers, timeout=_SECONDS) as answer:
                hf_raise_for_status(answer)
                if first and answer.status_code != _PARTIAL:
                    raise HubError(_whole_files_only(api.endpoint))
                return _at_most(answer.iter_bytes(), end - first)

        return read_header(name, sizes[name], read)

    return HubModel(model, commit, config, _read_all(names, header, progress))


def _from_cache(model: str, revision: str | None, progress: Progress) -> HubModel:
    """From a snapshot that an earlier download has left, without a network."""
    from huggingface_hub import snapshot_download

    snapshot = Path(snapshot_download(model, revision=revision, local_files_only=True))
    sizes = {path.name: path.stat().st_size for path in snapshot.iterdir() if path.is_file()}

    def local(name: str) -> Path:
        return snapshot / name

    def header(name: str) -> Header:
        def read(first: int, end: int) -> bytes:
            with (snapshot / name).open("rb") as file:
                file.seek(first)
                return file.read(end - first)

        return read_header(name, sizes[name], read)

    config = _config(model, sizes, local)
    names = _weight_files(model, sizes, local)
    return HubModel(model, snapshot.name, config, _read_all(names, header, progress))


def _read_all(
    names: list[str], header: Callable[[str], Header], progress: Progress
) -> tuple[Header, ...]:
    headers = []
    with ThreadPoolExecutor(_AT_ONCE) as readers:
        for found in readers.map(header, names):
            headers.append(found)
            progress(len(headers), len(names))
    return tuple(headers)


def _at_most(chunks: Iterator[bytes], wanted: int) -> bytes:
    """The first bytes of an answer, which may go on for gigabytes."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) >= wanted:
            break
    return bytes(content[:wanted])


def _whole_files_only(hub: str) -> str:
    return (
        f"{hub} serves whole files only, and the header of one is long\n"
        "    fix: unset HF_ENDPOINT, or name a mirror that answers requests for parts of files"
    )


def _config(
    model: str, sizes: Mapping[str, int], local: Callable[[str], Path]
) -> Mapping[str, Any]:
    if CONFIG_FILE not in sizes:
        raise HubError(
            f"{model} has no {CONFIG_FILE}, so it is no model that vLLM reads\n    fix: name the "
            "repository with the model itself, not one with adapters, GGUF files or data"
        )
    config = _json(model, local(CONFIG_FILE))
    if "quantization_config" not in config and MODELOPT_FILE in sizes:
        scheme = _json(model, local(MODELOPT_FILE))
        config = {**config, "quantization_config": {"quant_method": "modelopt", **scheme}}
    return config


def _weight_files(model: str, sizes: Mapping[str, int], local: Callable[[str], Path]) -> list[str]:
    """The files that vLLM loads: those of the index, else all at the top."""
    top = sorted(name for name in sizes if name.endswith(".safetensors") and "/" not in name)
    if not top:
        others = sorted({form for end, form in _OTHER_FORMS.items()
                         if any(name.endswith(end) for name in sizes)})  # fmt: skip
        instead = f", only {' and '.join(others)}" if others else ""
        raise HubError(
            f"{model} has no safetensors files{instead}, and their headers are what is read\n"
            "    fix: take a repository of the model that has them"
        )
    if INDEX_FILE in sizes:
        named = _json(model, local(INDEX_FILE)).get("weight_map")
        if not isinstance(named, Mapping) or not named:
            raise HubError(_not_formed(model, INDEX_FILE, "it has no weight_map"))
        wanted = sorted({str(name) for name in named.values()})
        if missing := [name for name in wanted if name not in sizes]:
            raise HubError(_not_formed(model, INDEX_FILE, f"{missing[0]} is not there"))
        return wanted
    others = [name for name in top if not name.startswith("consolidated")]
    return others or top


def _json(model: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise HubError(_not_formed(model, path.name, str(error))) from error
    if not isinstance(content, dict):
        raise HubError(_not_formed(model, path.name, f"it holds a {type(content).__name__}"))
    return content


def _not_formed(model: str, file: str, why: str) -> str:
    return (
        f"{model}: {file} is not formed as it must be: {why}\n"
        "    fix: take another revision, or another repository of the model"
    )


@contextmanager
def _hub_errors(model: str, revision: str | None) -> Iterator[None]:
    """Turns what the hub's library raises into errors with a fix. No token is in their text."""
    import httpx
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    try:
        yield
    except HubError:
        raise
    except errors.GatedRepoError as error:
        raise HubError(
            f"{model} is gated: {hub} shows its files to accounts with access only\n"
            f"    fix: ask for access at {hub}/{model}, then run `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{model} has no revision {revision!r}\n    fix: name a branch, tag or commit that "
            f"{hub}/{model}/commits/main lists"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise HubError(
            f"{model!r} is not on {hub}, or is private and this account may not see it\n"
            "    fix: check the id; for a private model run `hf auth login` or set HF_TOKEN"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.IncompleteSnapshotError) as error:
        raise HubError(
            f"{model} is not complete in the hub's cache, and the hub cannot be asked "
            "(HF_HUB_OFFLINE, or no network)\n    fix: run the command where the hub is in reach"
        ) from error
    except errors.HfHubHTTPError as error:
        raise HubError(_refused(model, hub, error.response.status_code)) from error
    except (httpx.HTTPError, OSError) as error:
        raise HubError(
            f"{hub} could not be asked for {model} ({type(error).__name__})\n"
            "    fix: check the network and proxies, or name a mirror in HF_ENDPOINT"
        ) from error


def _refused(model: str, hub: str, status: int) -> str:
    if status == 429:
        return (
            f"{hub} limits the rate of requests and refused one for {model} (429)\n"
            "    fix: wait some minutes, or run `hf auth login`: accounts may ask more often"
        )
    if status in (401, 403):
        return (
            f"{hub} refused the token for {model} ({status})\n"
            "    fix: run `hf auth login` with a token that may read the model, or unset HF_TOKEN"
        )
    return f"{hub} answered {status} for {model}\n    fix: try again later"
