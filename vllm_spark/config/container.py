"""The object `vllm-spark:container`: how Docker runs the server.

The keys repeat the options of `docker run` that recipes for a Spark use. What gives the server more
of the host is off by default. There is no `privileged`: no recipe of NVIDIA's for vLLM on a Spark
needs it (github.com/NVIDIA/dgx-spark-playbooks, 2026-07).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vllm_spark.config.sections import NAMESPACE, Section
from vllm_spark.config.values import (
    AbsolutePath,
    Capability,
    Device,
    DeviceNumber,
    DockerName,
    LogSize,
    SecurityOption,
    ShmSize,
    Ulimit,
    VariableName,
)
from vllm_spark.errors import ConfigError
from vllm_spark.problems import Problem

_KEY = f"{NAMESPACE}:container"


class Capabilities(Section):
    """Linux capabilities beyond those that Docker gives a container, and without some of those."""

    add: list[Capability] = Field(
        [], description="a list of capabilities to add, such as IPC_LOCK for RDMA"
    )
    drop: list[Capability] = Field(
        [], description="a list of capabilities to drop; ALL for all of them"
    )


class Mount(Section):
    """A folder or file of the host, or a Docker volume, besides the cache."""

    host_path: AbsolutePath | None = Field(
        None, description="the absolute path of a folder or file on the host; it must exist"
    )
    volume: DockerName | None = Field(
        None, description="the name of a Docker volume; Docker creates a missing one"
    )
    container_path: AbsolutePath = Field(description="the absolute path in the container")
    read_only: bool = Field(False, description="true to let the server only read it")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.host_path is None) == (self.volume is None):
            has = "neither hostPath nor" if self.volume is None else "both hostPath and"
            raise ValueError(f"{self.container_path} has {has} volume")
        return self

    @property
    def source(self) -> str:
        """The host's path, or the volume's name."""
        return self.host_path or self.volume or ""

    @property
    def type(self) -> Literal["bind", "volume"]:
        """Docker's name for the kind of source."""
        return "bind" if self.host_path is not None else "volume"


class Log(Section):
    """Where Docker keeps the server's log.

    The default keeps at most 300 MB. `json-file` is Docker's own default, and log collectors can
    read its files. `local` takes less space; with Docker 20.10 and files of 2 KB, the health gate
    missed lines whenever a file was full, and none with `json-file`. With `journald` the host's
    journal limits the size. `docker logs` can read all three.
    """

    driver: Literal["json-file", "local", "journald"] = Field(
        "json-file", description="Docker's log driver: json-file, local or journald"
    )
    max_size: LogSize = Field(
        "100m", description="the size at which a new file begins, such as 100m"
    )
    max_file: int = Field(3, ge=1, description="the number of files to keep, 1 or more")

    @model_validator(mode="after")
    def _sizes_belong_to_files(self) -> Self:
        told = self.model_fields_set & {"max_size", "max_file"}
        if self.driver == "journald" and told:
            raise ConfigError(
                [
                    Problem(
                        f"{_KEY}.log",
                        "journald keeps no files of its own, so maxSize and maxFile mean nothing",
                        "remove them, and limit the journal in journald.conf (SystemMaxUse)",
                    )
                ]
            )
        return self

    @property
    def options(self) -> dict[str, str]:
        """The options of the driver, as in `docker run --log-opt`."""
        if self.driver == "journald":
            return {}
        return {"max-size": self.max_size, "max-file": str(self.max_file)}


class Container(Section):
    """How the container runs."""

    name: DockerName | None = Field(
        None, description="the container's name; vllm-<stack> if not set"
    )
    gpus: Literal["all", "none"] | Annotated[list[DeviceNumber], Field(min_length=1)] = Field(
        "all", description="the GPUs that it sees: all, none, or a list of device numbers"
    )
    gpu_access: Literal["gpus", "cdi"] = Field(
        "gpus",
        description="how Docker gives it the GPUs: gpus as docker run --gpus does, or cdi as "
        "docker run --device nvidia.com/gpu=all does",
    )
    ipc: Literal["host", "private", "shareable"] = Field(
        "host", description="the IPC namespace (shared memory): host, private or shareable"
    )
    shm_size: ShmSize | None = Field(
        None,
        description="the size of /dev/shm, such as 16g, where ipc is not host; Docker's 64 MiB if "
        "not set",
    )
    restart: Literal["no", "always", "unless-stopped", "on-failure"] = Field(
        "unless-stopped",
        description="Docker's restart policy: no, always, unless-stopped or on-failure",
    )
    ulimits: dict[Ulimit, Annotated[int, Field(ge=-1)]] = Field(
        {}, description="limits by name, such as memlock or stack, soft and hard; -1 is unlimited"
    )
    environment: dict[VariableName, str] = Field(
        {}, description="environment variables as text; secrets have keys of their own"
    )
    network: Literal["bridge", "host"] = Field(
        "bridge",
        description="bridge, or host: the server shares the host's network, as for RDMA, and "
        "listens on the endpoint itself",
    )
    security_options: list[SecurityOption] = Field(
        [],
        description="a list of seccomp=unconfined, apparmor=unconfined, apparmor=PROFILE, "
        "label=..., or no-new-privileges",
    )
    capabilities: Capabilities = Field(
        Capabilities(), description="Linux capabilities: {add, drop}"
    )
    devices: list[Device] = Field(
        [],
        description="a list of devices or folders of them, as in docker run: "
        "/dev/infiniband, or HOST:CONTAINER:PERMISSIONS",
    )
    mounts: list[Mount] = Field(
        [], description="a list of {hostPath or volume, containerPath, readOnly}"
    )
    log: Log = Field(Log(), description="the log: {driver, maxSize, maxFile}")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        problems = []
        if self.shm_size is not None and self.ipc == "host":
            what = "has no effect with ipc: host, where the server uses the host's /dev/shm"
            fix = f"remove it, or set {_KEY}.ipc to private"
            problems.append(Problem(f"{_KEY}.shmSize", what, fix))
        paths = Counter(mount.container_path for mount in self.mounts)
        if twice := sorted(path for path, times in paths.items() if times > 1):
            what = f"more than one mount has the containerPath {', '.join(twice)}"
            problems.append(Problem(f"{_KEY}.mounts", what, "give each mount a path of its own"))
        both = sorted({*self.capabilities.add} & {*self.capabilities.drop})
        if both:
            what = f"{', '.join(both)} is to be added and dropped"
            problems.append(Problem(f"{_KEY}.capabilities", what, "remove one of the two"))
        if problems:
            raise ConfigError(problems)
        return self

    @property
    def shm_mib(self) -> int | None:
        """The size of /dev/shm in MiB."""
        if self.shm_size is None:
            return None
        return int(self.shm_size[:-1]) * (1024 if self.shm_size[-1] == "g" else 1)

    @property
    def security_opts(self) -> list[str]:
        """The security options as Docker will report them.

        With the host's IPC namespace it adds `label=disable` to them, unless there is a label. The
        docker plugin would see that as a change, and replace the container at every `up`.
        """
        told = self.security_options
        labelled = any(option.startswith("label=") for option in told)
        return [*told, "label=disable"] if told and self.ipc == "host" and not labelled else told

    @property
    def device_mappings(self) -> list[tuple[str, str, str]]:
        """Each device as its path on the host, its path in the container, its permissions."""
        found = []
        for device in self.devices:
            host, *rest = device.split(":")
            path = next((part for part in rest if part.startswith("/")), host)
            permissions = next((part for part in rest if re.fullmatch("[rwm]+", part)), "rwm")
            found.append((host, path, permissions))
        return found

    @property
    def chosen(self) -> dict[str, Any]:
        """What differs from the defaults, for a stack output; not the environment."""
        return self.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude={"environment", "name"}
        )
