"""Finds a model's shape before anything of it is downloaded: in `models/`, or in a filled cache.

`models/` holds the few deciding lines of config.json for the models of our stacks, so that a
preview works anywhere; a project may have a `models/` of its own. For any other model the file is
read from the cache that an earlier download has filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import yaml

from vllm_spark.errors import ConfigError
from vllm_spark.memory.model_config import CONFIG_FILE, read_config
from vllm_spark.memory.shape import ModelShape
from vllm_spark.problems import Problem, Unmodelled
from vllm_spark.project import ROOT

_PACKAGE = Path(__file__).parent
BUILT_IN = next(
    folder for folder in (_PACKAGE / "models", _PACKAGE.parents[1] / "models") if folder.is_dir()
)
"""The shapes that come with this release: in the installed package, else in the checkout."""


def find_shape(
    model: str, revision: str | None, cache_folder: str | None
) -> ModelShape | Unmodelled:
    """The shape of the model with this Hugging Face id.

    `cache_folder` is a hub cache on this host, None if the cache is a Docker volume, which only
    root can look into. A config.json there that is broken makes the model unmodelled; ConfigError
    for a cache that this user may not read.
    """
    known = known_shapes(_FOLDERS.get())
    if model in known:
        return known[model]
    if cache_folder is not None:
        try:
            found = _cached_config(Path(cache_folder), model, revision or "main")
        except OSError as error:
            raise ConfigError([_unreadable(cache_folder, error)]) from error
        if found is not None:
            try:
                return read_config(found)
            except ConfigError as error:
                return Unmodelled(str(error.problems[0]))
    return Unmodelled(
        f"neither models/ nor the cache knows {model}; `vllm-spark model {model}` reads its sizes "
        "from the hub, and `make fit MODEL=config.json` plans it from the file on its page"
    )


_OF_PROJECT = (BUILT_IN, ROOT / "models")
_FOLDERS = ContextVar("_FOLDERS", default=_OF_PROJECT)


@contextmanager
def models_of(project: Path) -> Iterator[None]:
    """Inside, the shapes are those of another version of the project, in the folder `project`."""
    built_in = () if BUILT_IN.is_relative_to(ROOT) else (BUILT_IN,)
    before = _FOLDERS.set((*built_in, project / "models"))
    try:
        yield
    finally:
        _FOLDERS.reset(before)


@cache
def known_shapes(folders: tuple[Path, ...] = _OF_PROJECT) -> dict[str, ModelShape | Unmodelled]:
    """The shapes of `models/*.yaml` by Hugging Face id; those of the last folder win.

    ConfigError for a file that is not one of ours.
    """
    return {
        _id_in(path): read_config(path)
        for folder in folders
        for path in sorted(folder.glob("*.yaml"))
    }


def _id_in(path: Path) -> str:
    try:
        content = yaml.safe_load(path.read_text())
        return str(content["id"])
    except (OSError, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        what = "does not say which model it is for (key `id`)"
        fix = "write it with `vllm-spark model ID`, or delete it"
        raise ConfigError([Problem(str(path), what, fix)]) from error


def _cached_config(cache_folder: Path, model: str, revision: str) -> Path | None:
    """config.json of a revision in the hub's layout: refs/<name> holds a commit, a snapshot's name.

    The guide's container kept it below hub/, beside the weights. OSError where this user may not
    look; what does not exist is None.
    """
    for folder in (cache_folder, cache_folder / "hub"):
        repository = folder / f"models--{model.replace('/', '--')}"
        try:
            commit = (repository / "refs" / revision).read_text().strip()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            commit = revision
        config = repository / "snapshots" / commit / CONFIG_FILE
        try:
            config.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return config
    return None


def _unreadable(cache_folder: str, error: OSError) -> Problem:
    return Problem(
        "vllm-spark:cache.hostPath",
        f"{error.filename} cannot be read by this user ({error.strerror}), so the model in it "
        "cannot be planned",
        f"run `sudo chmod -R a+rX {cache_folder}`, or write the model's sizes into models/ with "
        "`vllm-spark model ID`",
    )
