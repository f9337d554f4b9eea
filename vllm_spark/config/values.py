"""The forms of single values in a stack's config, where another program's rules decide.

What Docker, the Hub or an argument parser would refuse later, after a pull or with the old server
gone, is refused while the config is read.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from vllm_spark.errors import ConfigError
from vllm_spark.images import ImageReference, Version
from vllm_spark.problems import Problem

LONGEST_HUB_ID = 96

_SECRET_VARIABLES = {
    "VLLM_API_KEY": "apiKey",
    "HF_TOKEN": "huggingFaceToken",
    "HUGGING_FACE_HUB_TOKEN": "huggingFaceToken",
}
"""What the container gets from the config's secrets, and so must not get from elsewhere."""


def _hub_id(text: str) -> str:
    """The rules of huggingface_hub's validate_repo_id, with an owner in front."""
    if page := re.match(r"https?://[^/]+/([\w.-]+/[\w.-]+)", text):
        raise ValueError(f"{text!r} is the address of a page; the model's id is {page[1]}")
    part = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
    formed = re.fullmatch(f"{part}/{part}", text) and len(text) <= LONGEST_HUB_ID
    if not formed or "--" in text or ".." in text or text.endswith(".git"):
        raise ValueError(f"{text!r} is not of the right form")
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

# These two become arguments, where a dash in front would make them flags.
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w./-]*$")]
ServedName = Annotated[str, StringConstraints(pattern=r"^[^\s-]\S*$")]

DOCKER_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"
DockerName = Annotated[str, StringConstraints(pattern=f"^{DOCKER_NAME}$")]

HOST_FOLDER = r"/[^:\n]+"
"""A colon would end the path in what Docker is told, and the root is nobody's cache."""

DeviceNumber = Annotated[int, Field(ge=0)]


def variable_name(name: str) -> str:
    """The name of an environment variable that a config may set. ValueError if it is none."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{name!r} is not the name of an environment variable")
    if name in _SECRET_VARIABLES:
        where = f"vllm-spark:container.environment.{name}"
        what = "would be readable in the config file, in the state and in a preview"
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
"""The names of github.com/docker/go-units."""
