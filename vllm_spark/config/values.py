"""The syntax of single config values that another program defines: Docker, the Hub, vLLM.

Those programs would refuse a wrong value only later: after a pull, or when the old server is gone.
"""

from __future__ import annotations

import re
from posixpath import normpath
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

HOST_PATH = r"/[^:\n]+"
"""An absolute path. Docker reads a colon as the end of the path; `/` is never meant."""


def _absolute_path(text: str) -> str:
    """The path without `..` and slashes too many, so that two of them can be compared."""
    path = normpath("/" + text.lstrip("/"))
    if not re.fullmatch(HOST_PATH, text) or path == "/":
        raise ValueError(f"{text!r} is not valid")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute_path)]

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

ShmSize = Annotated[str, StringConstraints(pattern=r"^[1-9]\d*[mg]$")]
"""In MiB or GiB. The docker plugin takes whole MiB, so no smaller unit."""

LogSize = Annotated[str, StringConstraints(pattern=r"^[1-9]\d*[kmg]$")]

SecurityOption = Annotated[
    str,
    StringConstraints(
        pattern=r"^(seccomp=(unconfined|builtin)|apparmor=[\w./-]+|label=[\w.:-]+|no-new-privileges)$"
    ),
]
"""The options that Docker's API takes as they are. The docker command line itself reads a seccomp
profile from a file, and translates `systempaths`."""

Device = Annotated[
    str, StringConstraints(pattern=r"^/dev/[^:\s]+(:/[^:\s]+)?(:(r|w|m|rw|rm|wm|rwm))?$")
]

_CAPABILITIES = (
    "ALL", "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF",
    "CHECKPOINT_RESTORE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID",
    "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE",
    "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE",
    "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "WAKE_ALARM",
)  # fmt: skip
"""capabilities(7), without CAP_, and Docker's ALL."""


def _capability_name(text: str) -> str:
    """The full name, such as CAP_IPC_LOCK, or ALL. ValueError if Linux has none of it.

    Newer daemons report full names only, and the docker plugin would see another form as a change.
    """
    name = text.upper().removeprefix("CAP_")
    if name not in _CAPABILITIES:
        raise ValueError(f"{text!r} is not a capability of Linux")
    return name if name == "ALL" else f"CAP_{name}"


Capability = Annotated[str, AfterValidator(_capability_name)]
