"""What a Docker daemon offers to give a container its GPUs, and what fixes one that cannot.

A container gets a GPU in three ways: by a device request (`docker run --gpus`), by CDI (`--device
nvidia.com/gpu=all`), or by NVIDIA's runtime (`--runtime nvidia`). The daemon lists runtimes and CDI
devices. Whether device requests work shows only when a container starts, because the daemon looks
for the toolkit's programs when it starts itself and does not list them: until 28 for
nvidia-container-runtime-hook, since 29 also for nvidia-cdi-hook, which uses the CDI devices.

Sources: daemon/devices*.go in Docker 28.5.2 and moby v2.0.0-beta.24 (29), and what both said when
they were run without the toolkit, without a CDI specification and with an old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm_spark.deployment.gpus import CDI_KIND

_ADD_TO_DOCKER = (
    "`sudo apt install nvidia-container-toolkit && sudo systemctl restart docker`: Docker looks "
    "for its programs only when it starts"
)


@dataclass(frozen=True)
class GpuOffer:
    """What a daemon's `/info` says about GPUs."""

    docker: str
    """The daemon's release."""
    has_runtime: bool
    """Whether NVIDIA's runtime is registered under its usual name."""
    specifications: tuple[str, ...]
    """The folders of CDI specifications; none if CDI is off or older than this Docker."""
    devices: tuple[str, ...]
    """The names of the CDI GPUs, such as `0` and `all`; Docker before 28.2 lists none."""
    warnings: tuple[str, ...]
    """The daemon's warnings about CDI."""

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> GpuOffer:
        """Read the answer of `GET /info`."""
        listed = [str(device.get("ID")) for device in info.get("DiscoveredDevices") or ()]
        return cls(
            docker=str(info.get("ServerVersion") or "of an unknown release"),
            has_runtime="nvidia" in (info.get("Runtimes") or ()),
            specifications=tuple(info.get("CDISpecDirs") or ()),
            devices=tuple(
                name.partition("=")[2] for name in listed if name.startswith(f"{CDI_KIND}=")
            ),
            warnings=tuple(text for text in info.get("Warnings") or () if "CDI" in text),
        )

    def __str__(self) -> str:
        devices = f"the CDI devices {CDI_KIND}={{{','.join(self.devices)}}}"
        offered = [devices] if self.devices else []
        offered += ["the runtime `nvidia`"] if self.has_runtime else []
        lists = " and ".join(offered) or "neither a CDI device nor the runtime `nvidia`"
        return "; ".join([f"Docker {self.docker} lists {lists}", *self.warnings])

    def fix(self, rule: str, gpus: str | Sequence[int]) -> str | None:
        """The fix for a rule of the failure catalogue on this host; None if the rule's own is best.

        `gpus` are the GPUs that the container asks for, as in the config.
        """
        if rule == "gpu_runtime_missing" and self.devices:
            return f"{_ADD_TO_DOCKER}; or, without it, set vllm-spark:container.gpuAccess to cdi"
        if rule == "gpu_runtime_missing" and self.has_runtime:
            return _ADD_TO_DOCKER
        if rule != "gpu_specification_missing":
            return None
        missing = {*map(str, gpus)} - {*self.devices} if not isinstance(gpus, str) else set()
        if self.devices and missing:
            there = [name for name in self.devices if name.isdecimal()] or ["all"]
            return f"set vllm-spark:container.gpus to GPUs of this host: {', '.join(there)}"
        folder = next(iter(self.specifications), "/etc/cdi")
        named = "; vllm-spark:container.gpus can name the GPUs that `nvidia-smi -L` lists there"
        return (
            f"`sudo nvidia-ctk cdi generate --output={folder}/nvidia.yaml`; if that fails, see "
            f"whether `nvidia-smi` works on the host{named if missing else ''}"
        )
