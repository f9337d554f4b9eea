"""Which vLLM an image holds, and how its container has to be told what to serve.

The same `vllm serve` needs three different container commands, because images differ in their
entrypoint: NVIDIA's must keep its own (it arranges CUDA forward compatibility) and takes
`vllm serve MODEL ...` whole; upstream's starts with `vllm serve` since 0.12 and takes the rest;
before 0.12 it started the API server module, which takes no positional model. The version decides
as well which flags exist (`engine/flag_history.py`), so it is read off the tag where the tag tells.

Sources: vLLM's docker/Dockerfile and docker/Dockerfile.cpu of each release; NVIDIA's vLLM
container release notes for the table of tags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from engine.problems import ConfigError, Problem

Family = Literal["ngc", "upstream", "other"]
"""Who built the image: NVIDIA, the vLLM project, or somebody whose image has no entrypoint."""

WHERE = "vllm-spark:image.name"

_NGC_VERSIONS = {
    "25.09": "0.10.1.1",
    "25.10": "0.10.2",
    "25.11": "0.11.0",
    "26.01": "0.11.1",
    "26.02": "0.15.1",
    "26.03": "0.17.1",
    "26.04": "0.19.0",
    "26.05": "0.20.1",
    "26.07": "0.24.0",
    "26.08": "0.27.1",
}


@dataclass(frozen=True, order=True)
class Version:
    """A vLLM release, ordered by its numbers alone: `0.11 == 0.11.0 < 0.11.1`."""

    numbers: tuple[int, ...]
    text: str = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `0.10.1.1`, `v0.28.0` or `0.32.0+cpu`; the suffix does not count. ValueError else."""
        match = re.match(r"v?(\d+(?:\.\d+)+)", text)
        if match is None:
            raise ValueError(f"{text!r} is not a vLLM version such as 0.28.0")
        numbers = [int(number) for number in match[1].split(".")]
        while numbers[-1] == 0 and len(numbers) > 1:
            numbers.pop()
        return cls(tuple(numbers), match[1])

    def __str__(self) -> str:
        return self.text


_FIRST_WITH_SERVE_ENTRYPOINT = Version.parse("0.12.0")

# The grammar of the distribution project (github.com/distribution/reference), as far as we need it.
_HOST = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::\d+)?)"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<registry>{_HOST})/)??(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class ImageReference:
    """The parts of an image's name. Registry is `docker.io` where the name gives none."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read `registry/repository:tag@digest`. ConfigError if malformed or without tag and digest.

        Without either, Docker takes `latest`, so what runs would depend on the day of the pull.
        """
        match = _REFERENCE.fullmatch(name)
        if match is None:
            raise ConfigError([_malformed(name)])
        registry, repository = match["registry"], match["repository"]
        if registry is None and _names_a_host(repository):
            registry, repository = repository.split("/", 1)
        elif registry is not None and not _names_a_host(f"{registry}/"):
            raise ConfigError([_malformed(name)])
        if match["tag"] is None and match["digest"] is None:
            raise ConfigError([_untagged(name)])
        return cls(registry or "docker.io", repository, match["tag"], match["digest"])

    @property
    def family(self) -> Family:
        """Who built the image, judged by its name alone."""
        if self.registry == "nvcr.io" and self.repository == "nvidia/vllm":
            return "ngc"
        if self.registry == "docker.io" and self.repository.startswith("vllm/vllm-openai"):
            return "upstream"
        return "other"

    @property
    def is_cpu(self) -> bool:
        """Whether the image holds vLLM for the CPU, which gets no GPU and no CUDA flags."""
        words = re.split(r"[^a-z0-9]+", f"{self.repository.rsplit('/', 1)[-1]}-{self.tag}".lower())
        return "cpu" in words


def _names_a_host(repository: str) -> bool:
    """Docker's own rule: the first part is a registry if it has a dot or a port, or is localhost."""
    first, slash, _ = repository.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def _malformed(name: str) -> Problem:
    if name != name.lower():
        why = "upper-case letters are allowed in the tag only"
    else:
        why = "it is not of the form registry/repository:tag"
    return Problem(
        WHERE,
        f"{name!r} is not an image reference: {why}",
        "write for example nvcr.io/nvidia/vllm:25.09-py3, or name@sha256:<64 hex digits>",
    )


def _untagged(name: str) -> Problem:
    return Problem(
        WHERE,
        f"{name!r} has neither tag nor digest, so it would mean whatever is newest at the pull",
        f"give the tag, for example {name}:25.09-py3 from NVIDIA or {name}:v0.28.0 from vLLM, "
        "or a digest",
    )


def vllm_version(reference: ImageReference) -> Version | None:
    """The vLLM release in the image if its tag tells, else None (nightlies, digests, own images)."""
    tag = reference.tag or ""
    if reference.family == "ngc":
        release = _NGC_VERSIONS.get(tag.split("-")[0])
        return Version.parse(release) if release else None
    if re.match(r"v?\d+\.\d+\.\d+", tag):
        return Version.parse(tag)
    return None


def serve_command(
    reference: ImageReference,
    model: str,
    argv: Sequence[str],
    *,
    family: Family | None = None,
    version: Version | None = None,
) -> list[str]:
    """The container's command. `family` and `version` override what the name of the image tells."""
    version = version or vllm_version(reference)
    if (family or reference.family) != "upstream":
        return ["vllm", "serve", model, *argv]
    if version is not None and version < _FIRST_WITH_SERVE_ENTRYPOINT:
        return ["--model", model, *argv]
    return [model, *argv]
