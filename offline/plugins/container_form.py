"""The properties of a container in the Docker API's form, and back.

What is read back determines what a refresh can see. As in the official plugin, `envs`, `labels` and
`volumes` are never read back, and `ports`, `ulimits` and `gpus` only if the program sets them. A
container that does not run reads as `mustRun: false`; the next `up` then starts it, or replaces it
if it publishes ports, because those read back empty.
"""

from __future__ import annotations

from typing import Any

from offline.plugins.resource import State

MIB = 1 << 20
PORT = {"internal": None, "external": None, "ip": "0.0.0.0", "protocol": "tcp"}
NETWORK = {
    "ipAddress": "IPAddress",
    "ipPrefixLength": "IPPrefixLen",
    "gateway": "Gateway",
    "macAddress": "MacAddress",
    "globalIpv6Address": "GlobalIPv6Address",
    "globalIpv6PrefixLength": "GlobalIPv6PrefixLen",
    "ipv6Gateway": "IPv6Gateway",
}
UNSET: dict[str, Any] = {
    **dict.fromkeys(("attach", "logs", "readOnly", "rm", "stdinOpen", "tty", "wait"), False),
    **{name: [] for name in ("command", "entrypoints", "envs")},
    "memoryReservation": 0,
}
"""Recorded where the program and the image do not set it. Without them, and without `networkDatas`
and `securityOpts`, the official plugin would replace the container."""


def to_docker(new: State) -> dict[str, Any]:
    """The body of the Docker API's `POST /containers/create`."""
    host = {
        "RestartPolicy": restart_policy(new),
        "Init": bool(new.get("init")),
        "NetworkMode": new["networkMode"],
        "IpcMode": new.get("ipcMode"),
        "ShmSize": to_bytes(new.get("shmSize")),
        "Memory": to_bytes(new.get("memory")),
        "MemorySwap": to_bytes(new.get("memorySwap")),
        "LogConfig": {"Type": new.get("logDriver", ""), "Config": new.get("logOpts") or {}},
        "ExtraHosts": [f"{item['host']}:{item['ip']}" for item in new.get("hosts") or ()],
        "CapAdd": (new.get("capabilities") or {}).get("adds"),
        "CapDrop": (new.get("capabilities") or {}).get("drops"),
        "Ulimits": [
            {"Name": item["name"], "Soft": item["soft"], "Hard": item["hard"]}
            for item in new.get("ulimits") or ()
        ],
        "SecurityOpt": new.get("securityOpts"),
        "Devices": [
            {
                "PathOnHost": item["hostPath"],
                "PathInContainer": item.get("containerPath") or item["hostPath"],
                "CgroupPermissions": item.get("permissions") or "rwm",
            }
            for item in new.get("devices") or ()
        ],
        "Mounts": [
            {
                "Type": item["type"],
                "Source": item.get("source"),
                "Target": item["target"],
                "ReadOnly": bool(item.get("readOnly")),
            }
            for item in new.get("mounts") or ()
        ],
        "DeviceRequests": _device_requests(new),
        "Binds": [],
        "PortBindings": {},
    }
    body: dict[str, Any] = {
        "Image": new["image"],
        "Cmd": new.get("command"),
        "Entrypoint": new.get("entrypoints"),
        "Env": new.get("envs"),
        "Labels": {item["label"]: item["value"] for item in new.get("labels") or ()},
        "User": new.get("user", ""),
        "WorkingDir": new.get("workingDir", ""),
        "StopSignal": new.get("stopSignal"),
        "StopTimeout": new.get("stopTimeout"),
        "ExposedPorts": {},
        "Volumes": {},
        "HostConfig": host,
    }
    for port in new.get("ports") or ():
        port = PORT | port
        key = f"{port['internal']}/{port['protocol']}"
        binding = {"HostIp": port["ip"], "HostPort": str(port["external"] or "")}
        body["ExposedPorts"][key] = {}
        host["PortBindings"].setdefault(key, []).append(binding)
    for volume in new.get("volumes") or ():
        source = volume.get("hostPath") or volume.get("volumeName")
        body["Volumes"][volume["containerPath"]] = {}
        if source:
            mode = "ro" if volume.get("readOnly") else "rw"
            host["Binds"].append(f"{source}:{volume['containerPath']}:{mode}")
    return body


def from_docker(seen: dict[str, Any], known: State) -> State:
    """`known`, updated with what the Docker API's inspection shows."""
    config, host, running = seen["Config"], seen["HostConfig"], seen["State"]["Running"]
    capabilities = {"adds": host["CapAdd"] or [], "drops": host["CapDrop"] or []}
    read = {
        "name": seen["Name"].lstrip("/"),
        "image": seen["Image"] if known["image"].startswith("sha256:") else config["Image"],
        "command": config["Cmd"] or [],
        "entrypoints": config["Entrypoint"] or [],
        "user": config["User"],
        "workingDir": config["WorkingDir"],
        "stopSignal": config.get("StopSignal"),
        "stopTimeout": config.get("StopTimeout"),
        "restart": host["RestartPolicy"]["Name"],
        "maxRetryCount": host["RestartPolicy"]["MaximumRetryCount"],
        "init": bool(host["Init"]),
        "networkMode": host["NetworkMode"],
        "ipcMode": host["IpcMode"],
        "shmSize": host["ShmSize"] // MIB,
        "memory": host["Memory"] // MIB,
        "memorySwap": host["MemorySwap"] // MIB if host["MemorySwap"] > 0 else host["MemorySwap"],
        "logDriver": host["LogConfig"]["Type"],
        "hosts": [
            dict(zip(("host", "ip"), item.split(":", 1), strict=True))
            for item in host["ExtraHosts"] or ()
        ],
    }
    if any(capabilities.values()):
        read["capabilities"] = capabilities
    if known.get("securityOpts"):
        read["securityOpts"] = host["SecurityOpt"]
    if known.get("mounts"):
        read["mounts"] = [
            {
                "type": item["Type"],
                "source": item["Source"],
                "target": item["Target"],
                "readOnly": bool(item.get("ReadOnly")),
            }
            for item in host.get("Mounts") or ()
        ]
    if known.get("devices"):
        read["devices"] = _devices(host["Devices"] or [], known["devices"])
    if known.get("logOpts"):
        read["logOpts"] = host["LogConfig"]["Config"]
    if known.get("ulimits"):
        read["ulimits"] = [
            {"name": item["Name"], "soft": item["Soft"], "hard": item["Hard"]}
            for item in host["Ulimits"] or ()
        ]
    if known.get("gpus"):
        read["gpus"] = _gpus(host["DeviceRequests"] or [], known["gpus"])
    if known.get("deviceRequests"):
        read["deviceRequests"] = [
            {
                "driver": request["Driver"],
                "count": request["Count"],
                "deviceIds": request["DeviceIDs"] or [],
                "capabilities": request["Capabilities"][0],
                "options": request["Options"] or {},
            }
            for request in host["DeviceRequests"] or ()
        ]
    if known.get("ports") and (running or known.get("mustRun")):
        read["ports"] = [
            {
                "internal": int(key.split("/")[0]),
                "external": int(binding["HostPort"]),
                "ip": binding["HostIp"],
                "protocol": key.split("/")[1],
            }
            for key, bindings in (seen["NetworkSettings"]["Ports"] or {}).items()
            for binding in bindings or ()
        ]
    stopped = {} if running else {"exitCode": seen["State"]["ExitCode"], "mustRun": False}
    outputs = {
        "securityOpts": host["SecurityOpt"] or [],
        "networkDatas": [
            {"networkName": name, **{key: network[field] for key, field in NETWORK.items()}}
            for name, network in (seen["NetworkSettings"]["Networks"] or {}).items()
        ],
    }
    # Empty values that the program does not set are left out: a refresh would report them as drift.
    told = {name: value for name, value in read.items() if value or name in known}
    return UNSET | known | told | outputs | stopped


def to_bytes(mebibytes: int | None) -> int | None:
    """A limit of memory in bytes; None for no limit, negative for an unlimited one."""
    return mebibytes * MIB if mebibytes and mebibytes > 0 else mebibytes or None


def restart_policy(new: State) -> dict[str, Any]:
    """The restart policy in the Docker API's form."""
    return {"Name": new["restart"], "MaximumRetryCount": new.get("maxRetryCount") or 0}


def _device_requests(new: State) -> list[dict[str, Any]]:
    """The device requests as given, and that of `gpus`: `all`, or `device=` and one number.

    Of several numbers the official plugin makes a request that Docker refuses, and so does this.
    """
    requests = [
        {
            "Driver": given.get("driver") or "",
            "Count": given.get("count") or 0,
            "DeviceIDs": given.get("deviceIds"),
            "Capabilities": [given.get("capabilities") or []],
            "Options": given.get("options") or {},
        }
        for given in new.get("deviceRequests") or ()
    ]
    if gpus := new.get("gpus"):
        request: dict[str, Any] = {"Count": -1, "Capabilities": [["gpu"]], "Options": {}}
        if gpus != "all":
            first, *others = gpus.removeprefix("device=").split(",")
            request |= {"Count": len(others), "DeviceIDs": [first]}
        requests.append(request)
    return requests


def _devices(devices: list[dict[str, Any]], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As in the official plugin, with a path in the container only where the program gives one."""
    told = {item["hostPath"] for item in known if item.get("containerPath")}
    return [
        {
            "hostPath": item["PathOnHost"],
            "containerPath": item["PathInContainer"] if item["PathOnHost"] in told else None,
            "permissions": item["CgroupPermissions"],
        }
        for item in devices
    ]


def _gpus(requests: list[dict[str, Any]], known: str) -> str:
    if not requests:
        return ""
    if ids := requests[0].get("DeviceIDs"):
        return f"device={','.join(ids)}"
    return "all" if requests[0]["Count"] == -1 else known
