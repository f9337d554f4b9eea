"""The bytes of a checkpoint by role and format, as `vllm-spark model` reads and writes them.

They are exact for any format, known here or not, and need no network once they are in `models/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vllm_spark.errors import ConfigError
from vllm_spark.problems import Problem

StoredRole = Literal["experts", "attention", "embedding", "output", "drafts", "vision", "other"]
ROLES: tuple[StoredRole, ...] = (
    "experts", "attention", "embedding", "output", "drafts", "vision", "other",
)  # fmt: skip


@dataclass(frozen=True)
class StoredWeights:
    """Bytes by role, then by the format that the headers name (`BF16`, `F8_E4M3`, `U8`)."""

    by_role: Mapping[StoredRole, Mapping[str, int]]

    def role(self, role: StoredRole) -> int:
        """Bytes of one role."""
        return sum(self.by_role.get(role, {}).values())

    @property
    def total(self) -> int:
        """Bytes of all tensors."""
        return sum(self.role(role) for role in ROLES)

    def gpu_bytes(
        self,
        *,
        output_layer: bool,
        vision: bool,
        drafts: bool,
        expert_factor: float,
        single_factor: float,
    ) -> float:
        """Bytes that a server loads, before they are split over GPUs.

        `expert_factor` is what kernels pad the experts to, `single_factor` what loading makes of
        numbers in 32 bits.
        """
        parts: tuple[tuple[StoredRole, float], ...] = (
            ("attention", 1),
            ("embedding", 1),
            ("other", 1),
            ("output", output_layer),
            ("vision", vision),
            ("drafts", drafts),
            ("experts", expert_factor),
        )
        return sum(
            factor * (self.role(role) - (1 - single_factor) * self._in_32_bits(role))
            for role, factor in parts
        )

    def _in_32_bits(self, role: StoredRole) -> int:
        return self.by_role.get(role, {}).get("F32", 0)

    def read_bytes(self, expert_share: float, tied: bool) -> float:
        """Bytes that one token needs; `expert_share` is the chosen part of the experts."""
        output = self.role("embedding") if tied else self.role("output")
        rest = self.role("attention") + self.role("other")
        return rest + output + self.role("experts") * expert_share

    def as_yaml(self) -> dict[str, dict[str, int]]:
        """What `models/*.yaml` holds below `weights`."""
        return {
            role: dict(sorted(self.by_role[role].items()))
            for role in ROLES
            if self.by_role.get(role)
        }


def stored_weights(content: object, where: str) -> StoredWeights:
    """Read the part `weights` of a `models/*.yaml`. ConfigError if it is not one."""
    fix = "write the file anew with `vllm-spark model ID`"
    if not isinstance(content, Mapping):
        what = f"is {content!r}, not bytes by role and format"
        raise ConfigError([Problem(f"{where}: weights", what, fix)])
    by_role: dict[StoredRole, dict[str, int]] = {}
    problems = []
    for role, formats in content.items():
        if role not in ROLES or not _are_bytes(formats):
            what = f"is {formats!r}; the roles are {', '.join(ROLES)}, each with bytes by format"
            problems.append(Problem(f"{where}: weights.{role}", what, fix))
        else:
            by_role[role] = dict(formats)
    if problems:
        raise ConfigError(problems)
    return StoredWeights(by_role)


def _are_bytes(formats: Any) -> bool:
    return isinstance(formats, Mapping) and all(
        isinstance(size, int) and not isinstance(size, bool) and size >= 0
        for size in formats.values()
    )
