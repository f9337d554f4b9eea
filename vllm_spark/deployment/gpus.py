"""The GPUs of a host, and which of them a container uses.

Two servers exclude each other only if they share a GPU. Devices have several names (an index, a
UUID, a part of a GPU under MIG), and Docker passes them on in several ways. Two names that cannot
be compared count as the same GPU, because "could not tell" is not "free".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GPU_QUERY = "index,uuid,name,compute_cap,memory.total,memory.free"
"""The fields of `nvidia-smi --query-gpu`, in the order of `Gpu`."""

CDI_KIND = "nvidia.com/gpu"
"""The kind of the CDI devices that are GPUs; a device's name is `KIND=0` or `KIND=all`."""

_UNIFIED_CAPABILITY = "12.1"
"""The compute capability of the GB10, whose GPU has no separate memory."""

_MIB_A_GIB = 1024


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi describes it. GiB are None if it does not report them (on a Spark)."""

    index: str
    uuid: str
    name: str
    compute_capability: str
    total_gib: float | None
    free_gib: float | None

    @property
    def is_unified(self) -> bool:
        """Whether it shares the host's memory."""
        return self.compute_capability == _UNIFIED_CAPABILITY


def cdi_names(gpus: str | Sequence[int | str]) -> list[str]:
    """The CDI devices of `vllm-spark:container.gpus`, as `nvidia-ctk cdi generate` names them."""
    return [f"{CDI_KIND}={gpu}" for gpu in ([gpus] if isinstance(gpus, str) else gpus)]


def read_gpus(lines: Iterable[str]) -> list[Gpu]:
    """Read `nvidia-smi --query-gpu=GPU_QUERY --format=csv,noheader,nounits`."""
    rows = [[field.strip() for field in line.split(",")] for line in lines if line.count(",") == 5]
    return [
        Gpu(index, uuid, name, capability, _gib(total), _gib(free))
        for index, uuid, name, capability, total, free in rows
    ]


def _gib(text: str) -> float | None:
    """Mebibytes as GiB; None for "[N/A]" and other text."""
    return float(text) / _MIB_A_GIB if re.fullmatch(r"\d+(\.\d+)?", text) else None


@dataclass(frozen=True)
class Devices:
    """The GPUs of one container: all of the host's, or those with these names, possibly none."""

    names: frozenset[str] = frozenset()
    all: bool = False

    @classmethod
    def of_config(cls, gpus: str | list[int]) -> Devices:
        """The GPUs that `vllm-spark:container.gpus` requests."""
        if isinstance(gpus, list):
            return cls(frozenset(map(str, gpus)))
        return cls(all=gpus == "all")

    @classmethod
    def of_container(cls, inspected: Mapping[str, Any]) -> Devices:
        """The GPUs of a container by its `docker inspect`, for every way to request GPUs."""
        host = inspected["HostConfig"]
        names = [name for request in host.get("DeviceRequests") or () for name in _names(request)]
        nodes = [device["PathOnHost"] for device in host.get("Devices") or ()]
        nodes = [node for node in nodes if "/dev/nvidia" in node]
        names += [node.rpartition("nvidia")[2] for node in nodes if node[-1].isdecimal()]
        if nodes and not names:
            names = ["all"]
        if not names and host.get("Runtime") == "nvidia":
            # All of NVIDIA's images set this variable; only NVIDIA's runtime reads it.
            variables = dict(
                entry.partition("=")[::2] for entry in inspected["Config"]["Env"] or ()
            )
            shown = variables.get("NVIDIA_VISIBLE_DEVICES", "")
            names = [name for name in shown.split(",") if name not in ("", "void", "none")]
        return cls(frozenset(names) - {"all"}, all="all" in names)

    def __bool__(self) -> bool:
        return self.all or bool(self.names)

    def shares_a_gpu_with(self, other: Devices, gpus: Sequence[Gpu] = ()) -> bool:
        """Whether both use the same GPU. `gpus` map UUIDs to indices."""
        if not self or not other:
            return False
        if self.all or other.all:
            return True
        indexes = {gpu.uuid: gpu.index for gpu in gpus}
        return any(_same(one, two, indexes) for one in self.names for two in other.names)


def _names(request: Mapping[str, Any]) -> list[str]:
    """The GPUs that one device request names; "all" stands for all GPUs."""
    given = [str(name) for name in request.get("DeviceIDs") or ()]
    if request.get("Driver") == "cdi" or any("/" in name for name in given):
        return [name.partition("=")[2] for name in given if name.startswith(f"{CDI_KIND}=")]
    capabilities = {word for group in request.get("Capabilities") or () for word in group}
    if "gpu" not in capabilities and request.get("Driver") != "nvidia":
        return []
    if given:
        return given
    count = request.get("Count") or 0
    # NVIDIA's runtime passes on the first ones.
    return ["all"] if count < 0 else [str(number) for number in range(count)]


def _same(one: str, two: str, indexes: Mapping[str, str]) -> bool:
    one, two = indexes.get(one, one), indexes.get(two, two)
    if one == two:
        return True
    plain = re.compile(r"\d+(?::\d+)?")
    if plain.fullmatch(one) and plain.fullmatch(two):
        (gpu, _, part), (other, _, other_part) = one.partition(":"), two.partition(":")
        # Two MIG parts of one GPU are separate; a whole GPU includes its parts.
        return gpu == other and not (part and other_part)
    same_form = one[:4] == two[:4] and not (plain.fullmatch(one) or plain.fullmatch(two))
    return not same_form or one.startswith(two) or two.startswith(one)
