"""The syntax of single config values that another program defines: Docker, the Hub, vLLM.

Those programs would refuse a wrong value only later: after a pull, or when the old server is gone.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from vllm_spark.errors import ConfigError
from vllm_spark.images import ImageReference, Version
from vllm_spark.policy.rules import rule_name
from vllm_spark.problems import Problem

LONGEST_HUB_ID = 96

_SECRET_VARIABLES = {
    "VLLM_API_KEY": "apiKey",
    "HF_TOKEN": "huggingFaceToken",
    "HUGGING_FACE_HUB_TOKEN": "huggingFaceToken",
}
"""Variables that the container gets from secret config keys, and their keys."""


def _hub_id(text: str) -> str:
    """The rules of huggingface_hub's validate_repo_id; an owner is required."""
    if page := re.match(r"https?://[^/]+/([\w.-]+/[\w.-]+)", text):
        raise ValueError(f"{text!r} is the URL of a page; the model's id is {page[1]}")
    part = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
    formed = re.fullmatch(f"{part}/{part}", text) and len(text) <= LONGEST_HUB_ID
    if not formed or "--" in text or ".." in text or text.endswith(".git"):
        raise ValueError(f"{text!r} is not a valid model id")
    return text


ModelId = Annotated[str, AfterValidator(_hub_id)]


def _image_name(name: str) -> str:
    ImageReference.parse(name)
    return name


def _release(text: str) -> str:
    Version.parse(text)
    return text


ImageName = Annotated[str, AfterValidator(_image_name)]
Release = Annotated[str, AfterValidator(_release)]

# Both become command-line arguments. With a leading dash they would be read as flags.
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w./-]*$")]
ServedName = Annotated[str, StringConstraints(pattern=r"^[^\s-]\S*$")]

RuleName = Annotated[str, AfterValidator(rule_name)]

LONGEST_REASON = 300


def _reason(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > LONGEST_REASON:
        raise ValueError(f"{text[:40]!r} is not a reason")
    return text


Reason = Annotated[str, AfterValidator(_reason)]

DOCKER_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"
DockerName = Annotated[str, StringConstraints(pattern=f"^{DOCKER_NAME}$")]

HOST_FOLDER = r"/[^:\n]+"
"""An absolute path. Docker reads a colon as the end of the path; `/` is never a cache."""

DeviceNumber = Annotated[int, Field(ge=0)]


def variable_name(name: str) -> str:
    """The name of an environment variable that a config may set. ValueError if it is none."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{name!r} is not a valid name of an environment variable")
    if name in _SECRET_VARIABLES:
        where = f"vllm-spark:container.environment.{name}"
        what = "is a secret, and would be readable in the config file, the state and previews"
        key = _SECRET_VARIABLES[name]
        fix = f"remove it, then pulumi config set --secret vllm-spark:{key}"
        raise ConfigError([Problem(where, what, fix)])
    return name


def secret_problem(text: str) -> str | None:
    """What is wrong with the form of a secret, as the end of a sentence that does not show it.

    An empty API key opens the server (vLLM installs no authentication), and one with a line end can
    be sent by no client.
    """
    if not text.strip():
        return "is empty"
    if not text.isprintable():
        return "holds a line end or another control character"
    return "begins or ends with a space" if text != text.strip() else None


VariableName = Annotated[str, AfterValidator(variable_name)]

Ulimit = Literal[
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack",
]  # fmt: skip
"""The names that Docker accepts (github.com/docker/go-units)."""
