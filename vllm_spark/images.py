"""Which vLLM an image holds, and how its container takes the model to serve.

The same `vllm serve` needs three container commands, because images differ in their entrypoint:
NVIDIA's must keep its own (it arranges CUDA forward compatibility) and takes `vllm serve MODEL ...`
whole; the vLLM project's starts `vllm serve` and takes the rest; until 0.11.0 it started the API
server's module, which takes the model as a flag. The release decides as well which flags exist, so
it is read off the tag where the tag tells.

Sources: docker/Dockerfile and docker/Dockerfile.cpu in vLLM's source distributions 0.10.1.1,
0.11.0, 0.11.1, 0.11.2, 0.12.0, 0.28.0 and 0.33.0; for NVIDIA's tags what users of them reported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from vllm_spark.errors import ConfigError
from vllm_spark.problems import Problem

Family = Literal["ngc", "upstream", "other"]
"""Who built the image: NVIDIA, the vLLM project, or somebody else, whose image has `vllm` on its
PATH and no entrypoint that starts it."""

WHERE = "vllm-spark:image.name"

NGC_VERSIONS: dict[str, str | None] = {  # by the first five characters of the tag
    "25.09": "0.10.1.1",
    "25.10": "0.10.2",
    "25.11": "0.11.0",
    "25.12": "0.11.1",
    "26.01": None,
    "26.02": "0.15.1",
    "26.03": "0.17.1",
    "26.04": "0.19.0",
    "26.05": "0.20.1",
    "26.06": "0.22.1",
    "26.07": "0.24.0",
    "26.08": "0.27.1",
    "26.09": "0.29.0",
    "26.10": "0.31.0",
}

DISPUTED = {  # where the table has None, the image itself is asked
    "26.01": "NVIDIA's release notes name 0.11.1, and the logs of two users 0.13.0",
    "26.06": "two users report that it answers every request with 500; others measured with it",
}
"""What users report of NVIDIA's images that does not agree."""


@dataclass(frozen=True, order=True)
class Version:
    """A vLLM release, ordered by its numbers alone: `0.11 == 0.11.0 < 0.11.1`."""

    numbers: tuple[int, ...]
    """Without zeros at the end: (0, 11) for 0.11.0."""
    text: str = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `0.10.1.1`, `v0.28.0` or `0.32.0+cpu`; a suffix does not count.

        ValueError if the text does not begin with a release.
        """
        match = re.match(r"v?(\d+(?:\.\d+)+)", text)
        if match is None:
            raise ValueError(f"{text!r} is not a vLLM release such as 0.28.0")
        numbers = [int(number) for number in match[1].split(".")]
        while numbers and numbers[-1] == 0:
            numbers.pop()
        return cls(tuple(numbers), match[1])

    def __str__(self) -> str:
        return self.text


_FIRST_TO_START_VLLM_SERVE = Version.parse("0.11.1")

# The grammar of the distribution project (github.com/distribution/reference).
_REGISTRY = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::\d+)?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REST = re.compile(
    rf"(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class ImageReference:
    """The parts of an image's name. The registry is `docker.io` where the name gives none."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read `registry/repository:tag@digest`; the tag or the digest may be missing, not both.

        ConfigError if the name is malformed, or if it has neither: Docker would take `latest`, so
        what runs would depend on the day of the pull.
        """
        registry, slash, rest = name.partition("/")
        # Docker's own rule for telling a registry from the first part of a repository.
        if not slash or not (set(".:") & set(registry) or registry == "localhost"):
            registry, rest = "docker.io", name
        match = _REST.fullmatch(rest)
        if match is None or not _REGISTRY.fullmatch(registry):
            raise ConfigError([_malformed(name, only_case=_REST.fullmatch(rest.lower()))])
        if match["tag"] is None and match["digest"] is None:
            raise ConfigError([_without_tag(name)])
        return cls(registry, match["repository"], match["tag"], match["digest"])

    @property
    def family(self) -> Family:
        """Who built the image, judged by its repository, so that a mirror of a registry counts."""
        if f"/{self.repository}".endswith("/nvidia/vllm"):
            return "ngc"
        return "upstream" if self._last_part.startswith("vllm-openai") else "other"

    @property
    def is_cpu(self) -> bool:
        """Whether the image holds vLLM for the CPU: `cpu` is a word of its repository or tag."""
        return "cpu" in re.split(r"[^a-z0-9]+", f"{self._last_part}-{self.tag}".lower())

    @property
    def moves(self) -> bool:
        """Whether the tag says that it will name other images later. With a digest it does not.

        The tag of one nightly build ends with the commit that it was made from, and stays.
        """
        tag = self.tag or ""
        of_commit = re.search(r"-[0-9a-f]{40}$", tag)
        return self.digest is None and not of_commit and ("latest" in tag or "nightly" in tag)

    @property
    def _last_part(self) -> str:
        return self.repository.rsplit("/", 1)[-1]


def _malformed(name: str, *, only_case: object) -> Problem:
    why = "capitals are allowed in the tag only" if only_case else "it needs registry/name:tag"
    return Problem(
        WHERE,
        f"{name!r} is not the name of an image: {why}",
        "write for example nvcr.io/nvidia/vllm:25.09-py3, or name@sha256:<64 hex digits>",
    )


def _without_tag(name: str) -> Problem:
    example = "25.09-py3" if name.endswith("nvidia/vllm") else "v0.28.0"
    return Problem(
        WHERE,
        f"{name!r} has neither tag nor digest, so it would mean whatever is newest when pulled",
        f"give a tag, such as {name}:{example}, or a digest",
    )


def vllm_version(reference: ImageReference) -> Version | None:
    """The vLLM release in the image if its tag tells, else None: nightlies, digests, own images."""
    tag = reference.tag or ""
    if reference.family == "ngc":
        # A preview (26.10.pre1) may hold another release than the image that follows it.
        release = NGC_VERSIONS.get(tag[:5]) if ".pre" not in tag else None
        return Version.parse(release) if release else None
    if reference.family == "upstream" and re.match(r"v?\d+\.\d+\.\d+", tag):
        return Version.parse(tag)
    return None


def release_in(image: str) -> str | None:
    """`vllm_version` of a container's image; None too if that is no name, but an id."""
    try:
        found = vllm_version(ImageReference.parse(image))
    except ConfigError:
        return None
    return str(found) if found else None


def check_image(reference: ImageReference, version: Version | None) -> list[Problem]:
    """Warnings about an image that may be deployed. `version` is what config or tag tells."""
    warnings = []
    tag = reference.tag or ""
    if reference.moves:
        warnings.append(
            Problem(
                WHERE,
                f"the tag {tag} moves, so a pull may bring another vLLM without a change of config",
                "take the tag of a release, or add the digest that `docker images --digests` shows",
            )
        )
    if reference.family == "ngc" and tag[:5] in DISPUTED:
        warnings.append(
            Problem(
                WHERE,
                f"reports about {tag} do not agree: {DISPUTED[tag[:5]]}",
                "take another image, or set vllm-spark:image.vllmVersion to the output "
                "vllmVersion: `up` asks the image",
            )
        )
    if version is None:
        warnings.append(
            Problem(
                WHERE,
                "its name does not tell which vLLM it holds, so the engine flags are not held "
                "against a release",
                "set vllm-spark:image.vllmVersion; `up` asks the image, and says it in the output "
                "vllmVersion",
            )
        )
    return warnings


def serve_command(
    reference: ImageReference,
    model: str,
    argv: Sequence[str],
    *,
    version: Version | None = None,
) -> list[str]:
    """The container's command. `version` is what the config tells, where the tag does not.

    An upstream image of unknown release counts as new: it is a nightly or pinned by digest.
    """
    version = version or vllm_version(reference)
    if reference.family != "upstream":
        return ["vllm", "serve", model, *argv]
    if version is not None and version < _FIRST_TO_START_VLLM_SERVE:
        return ["--model", model, *argv]
    return [model, *argv]
