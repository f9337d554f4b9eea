"""Where a running container differs from what its stack's config declares, by name.

Pulumi's Docker plugin reads back neither the environment nor the volumes, so a refresh does not
show every difference. Here both sides become flat tables (`flag max-num-seqs`, `variable
HF_HUB_CACHE`, `port`) and are compared line by line. For secrets, only their presence is shown.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpus import cdi_names
from vllm_spark.deployment.serving import (
    CACHE_PATH,
    SECRET_VARIABLES,
    compile_caches,
    server_command,
    server_environment,
    stop_seconds,
)
from vllm_spark.errors import ConfigError
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.redaction import redacted

_SET = "set"
_MIB = 2**20
_DEFAULT_SHM = 64 * _MIB
"""Docker's own, if a container asks for none."""


def drift_of(
    settings: Settings,
    variables: Collection[str],
    image_id: str,
    container: Mapping[str, Any],
    image: Mapping[str, Any],
) -> list[str]:
    """A line for each difference; empty if there is none.

    `variables` names the variables whose values are not in the settings: secrets, and variables
    that a program adds. Only their presence is compared. `image_id` is the id that the configured
    image name now has on the host; `container` and `image` are Docker's inspections of the running
    container and of the image that it was created from.
    """
    declared = _declared(settings, variables, image_id)
    running = _running(container, image, declared, variables)
    lines = [
        f"{name}: {_told(running.get(name), declared.get(name))}"
        for name in sorted(declared.keys() | running.keys())
        if running.get(name) != declared.get(name)
    ]
    state = container["State"]
    if not state["Running"] and settings.state == "running":
        lines.append(f"state: {state['Status']}, exit code {state['ExitCode']}")
    if state["Paused"]:
        lines.append("state: paused, so its process is suspended")
    if container["RestartCount"]:
        lines.append(f"restarts: Docker has restarted it {container['RestartCount']} times")
    return lines


def _told(running: str | None, declared: str | None) -> str:
    here = f"runs with {redacted(running)}" if running else "runs without"
    return f"{here}, declared {redacted(declared)}" if declared else f"{here}, not declared"


def _declared(settings: Settings, variables: Collection[str], image_id: str) -> dict[str, str]:
    container, endpoint = settings.container, settings.endpoint
    environment = {**compile_caches(settings, image_id), **server_environment(settings)}
    environment |= dict.fromkeys(variables, _SET)
    gpus = [container.gpus] if isinstance(container.gpus, str) else [*map(str, container.gpus)]
    if container.gpu_access == "cdi" and container.gpus != "none":
        gpus = cdi_names(gpus)
    return {
        "image": settings.image.name,
        "image id": image_id,
        **_command(server_command(settings)),
        **{f"variable {name}": value for name, value in environment.items()},
        # On the host's network, the flags `host` and `port` are compared instead.
        **({"port": f"{endpoint.bind}:{endpoint.port}"} if container.network == "bridge" else {}),
        "gpus": ",".join(gpus),
        "ipc": container.ipc,
        "network": container.network,
        "log": _log(container.log.driver, container.log.options),
        **_shared_memory((container.shm_mib or 0) * _MIB),
        "restart policy": container.restart,
        "cache": settings.cache.source,
        "stop timeout": str(stop_seconds(settings)),
        **{f"limit {name}": f"{limit}:{limit}" for name, limit in container.ulimits.items()},
        **{f"security option {option}": _SET for option in container.security_opts},
        **{f"capability {name}": "added" for name in container.capabilities.add},
        **{f"capability {name}": "dropped" for name in container.capabilities.drop},
        **{f"device {path}": f"{host}:{how}" for host, path, how in container.device_mappings},
        **{
            f"mount {mount.container_path}": _mount(mount.source, read_only=mount.read_only)
            for mount in container.mounts
        },
    }


def _running(
    container: Mapping[str, Any],
    image: Mapping[str, Any],
    declared: Collection[str],
    variables: Collection[str],
) -> dict[str, str]:
    config, host = container["Config"], container["HostConfig"]
    of_image = set(image["Config"]["Env"] or ())
    entries = ((*entry.partition("=")[::2], entry) for entry in config["Env"] or ())
    environment = {
        name: value
        for name, value, entry in entries
        # Variables that the image sets are no drift, unless the config sets them too.
        if entry not in of_image or f"variable {name}" in declared
    }
    for variable in environment.keys() & {*SECRET_VARIABLES, *variables}:
        environment[variable] = _SET
    ports = [
        f"{binding['HostIp']}:{binding['HostPort']}"
        for bindings in (host["PortBindings"] or {}).values()
        for binding in bindings or ()
    ]
    mounts = [bind.split(":")[0] for bind in host["Binds"] or () if f":{CACHE_PATH}" in bind]
    found = {
        "image": config["Image"],
        "image id": container["Image"],
        **_command(config["Cmd"] or ()),
        **{f"variable {name}": value for name, value in environment.items()},
        **({"port": ", ".join(ports)} if ports else {}),
        "gpus": _gpus(host["DeviceRequests"] or ()),
        "ipc": host["IpcMode"],
        "restart policy": host["RestartPolicy"]["Name"],
        "cache": ", ".join(mounts),
        "stop timeout": str(config.get("StopTimeout")),
        "network": {"default": "bridge"}.get(host["NetworkMode"], host["NetworkMode"]),
        "log": _log(host["LogConfig"]["Type"], host["LogConfig"]["Config"] or {}),
        **_shared_memory(host["ShmSize"]),
    }
    for limit in host["Ulimits"] or ():
        found[f"limit {limit['Name']}"] = f"{limit['Soft']}:{limit['Hard']}"
    for option in host["SecurityOpt"] or ():
        # Docker adds it by itself where the IPC namespace is the host's.
        if option != "label=disable" or f"security option {option}" in declared:
            found[f"security option {option}"] = _SET
    for names, done in (("CapAdd", "added"), ("CapDrop", "dropped")):
        found |= {f"capability {_full(name)}": done for name in host[names] or ()}
    for device in host["Devices"] or ():
        how = f"{device['PathOnHost']}:{device['CgroupPermissions']}"
        found[f"device {device['PathInContainer']}"] = how
    for mount in host.get("Mounts") or ():
        read_only = bool(mount.get("ReadOnly"))
        found[f"mount {mount['Target']}"] = _mount(mount["Source"], read_only=read_only)
    return found


def _full(capability: str) -> str:
    """Older daemons report a capability as it was given, with or without CAP_."""
    known = capability == "ALL" or capability.startswith("CAP_")
    return capability if known else f"CAP_{capability}"


def _mount(source: str, *, read_only: bool) -> str:
    return f"{source}, read-only" if read_only else source


def _log(driver: str, options: Mapping[str, str]) -> str:
    return " ".join([driver, *(f"{name}={options[name]}" for name in sorted(options))])


def _shared_memory(size: int) -> dict[str, str]:
    """The size of /dev/shm in bytes; nothing for Docker's default."""
    return {"shared memory": f"{size // _MIB} MiB"} if size not in (0, _DEFAULT_SHM) else {}


def _command(command: Sequence[str]) -> dict[str, str]:
    """The words before the first flag, and each flag with its value as JSON."""
    try:
        words, flags = EngineFlags.from_command(command)
    except ConfigError:
        return {"command": " ".join(command)}
    told = {f"flag {name}": json.dumps(value, sort_keys=True) for name, value in flags.items()}
    return {"command": " ".join(words), **told}


def _gpus(requests: Sequence[Mapping[str, Any]]) -> str:
    if not requests:
        return "none"
    return ",".join(requests[0].get("DeviceIDs") or ()) or "all"
