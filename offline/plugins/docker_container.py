"""`docker:index/container:Container`: converts properties to the Docker API's form and back.

What is read back determines what a refresh can see. As in the official plugin, `envs`, `labels` and
`volumes` are never read back, and `ports`, `ulimits` and `gpus` only if the program sets them. A
container that does not run reads as `mustRun: false`; the next `up` then starts it, or replaces it
if it publishes ports, because those read back empty.

An update in place never inspects the container. If a start has failed, the container is recorded as
failed, and the next `up` without a refresh finds nothing to change and succeeds with nothing
running. This is the official plugin's behaviour; the program's health gate has to catch it.
"""
# ruff: noqa: ARG002  the Resource interface fixes the arguments

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar

from docker.errors import APIError, NotFound

from offline.plugins.docker_daemon import DockerDaemon, daemon_error
from offline.plugins.resource import Input, Resource, Say, State, Unfinished

MIB = 1 << 20
PORT = {"internal": None, "external": None, "ip": "0.0.0.0", "protocol": "tcp"}
DEVICE = {"hostPath": None, "containerPath": None, "permissions": "rwm"}
MOUNT = dict.fromkeys(("type", "source", "target", "readOnly"))
VOLUME = dict.fromkeys(("containerPath", "hostPath", "volumeName", "readOnly"))
REQUEST = dict.fromkeys(("driver", "count", "deviceIds", "capabilities", "options"))
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


class Container(Resource):
    """A container. Its id is Docker's id."""

    type = "docker:index/container:Container"
    inputs: ClassVar = {
        "name": Input(required=True, replaces=True),
        "image": Input(required=True, replaces=True),
        "command": Input(replaces=True, sticky=True),
        "entrypoints": Input(replaces=True, sticky=True),
        "envs": Input(replaces=True, sticky=True, unordered=True),
        "labels": Input(
            replaces=True, sticky=True, unordered=True, fields={"label": None, "value": None}
        ),
        "user": Input(replaces=True, sticky=True),
        "workingDir": Input(replaces=True, sticky=True),
        "ports": Input(replaces=True, unordered=True, fields=PORT),
        "volumes": Input(replaces=True, unordered=True, fields=VOLUME),
        "mounts": Input(replaces=True, unordered=True, fields=MOUNT),
        "hosts": Input(replaces=True, unordered=True, fields={"host": None, "ip": None}),
        "ulimits": Input(
            replaces=True, unordered=True, fields=dict.fromkeys(("name", "soft", "hard"))
        ),
        "capabilities": Input(replaces=True, unordered=True, fields={"adds": None, "drops": None}),
        "devices": Input(replaces=True, unordered=True, fields=DEVICE),
        "gpus": Input(replaces=True),
        "deviceRequests": Input(replaces=True, fields=REQUEST),
        "ipcMode": Input(replaces=True, sticky=True),
        "shmSize": Input(replaces=True, sticky=True),
        "networkMode": Input(replaces=True, default="bridge"),
        "securityOpts": Input(replaces=True, sticky=True, unordered=True),
        "logDriver": Input(replaces=True, sticky=True),
        "logOpts": Input(replaces=True),
        "stopSignal": Input(replaces=True, sticky=True),
        "stopTimeout": Input(replaces=True, sticky=True),
        "init": Input(sticky=True),
        "restart": Input(default="no"),
        "maxRetryCount": Input(),
        "memory": Input(),
        "memorySwap": Input(),
        "start": Input(default=True),
        "mustRun": Input(default=True),
        "destroyGraceSeconds": Input(),
        "removeVolumes": Input(default=True),
        # The official plugin would replace a container without them.
        "waitTimeout": Input(default=60),
        "containerReadRefreshTimeoutMilliseconds": Input(default=15000),
    }
    outputs = ("exitCode",)

    def __init__(self, daemon: DockerDaemon) -> None:
        self._daemon = daemon

    def deletes_before_replacing(self, old: State, new: State) -> bool:
        """Always: old and new share a name, ports and memory."""
        return True

    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Create it, and start it unless `start` is false."""
        with self._daemon.client(f"Unable to create container with image {new['image']}") as client:
            self._daemon.find_image(client, new["image"], None)
        with self._daemon.client("Unable to create container") as client:
            id = client.create_container_from_config(to_docker(new), new["name"])["Id"]
            if new["start"]:
                self._start(client, id, new)
            return id, from_docker(client.inspect_container(id), new)

    def read(self, id: str, state: State) -> tuple[str, State] | None:
        """Inspect it."""
        with self._daemon.client("Unable to inspect container") as client:
            try:
                return id, from_docker(client.inspect_container(id), state)
            except NotFound:
                return None

    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Start it if it should run and does not; update restart policy and memory."""
        state = self.updated(old, new)
        with self._daemon.client("Unable to update a container") as client:
            if new["mustRun"] and not old.get("mustRun", True) and new["start"]:
                self._start(client, id, state)
            settings = ("restart", "maxRetryCount", "memory", "memorySwap")
            if any(name in settings for name in self.changed(old, new)):
                client.update_container(
                    id,
                    mem_limit=_bytes(new.get("memory")),
                    memswap_limit=_bytes(new.get("memorySwap")),
                    restart_policy=_restart_policy(new),
                )
        return state

    def delete(self, id: str, state: State, say: Say) -> None:
        """Stop it within `destroyGraceSeconds` (if unset, kill it), then remove it."""
        failing = f"Error deleting container {id[:12]}"
        with self._daemon.client(failing) as client, suppress(NotFound):
            client.stop(id, timeout=state.get("destroyGraceSeconds") or 0)
            try:
                client.remove_container(id, v=state.get("removeVolumes", True), force=True)
            except APIError as error:
                if "is already in progress" not in str(error.explanation):
                    raise
                client.wait(id, condition="removed")

    def _start(self, client: Any, id: str, state: State) -> None:
        try:
            client.start(id)
        except APIError as error:
            raise Unfinished(
                f"Unable to start container: {daemon_error(error)}", id, state
            ) from error


def to_docker(new: State) -> dict[str, Any]:
    """The body of the Docker API's `POST /containers/create`."""
    host = {
        "RestartPolicy": _restart_policy(new),
        "Init": bool(new.get("init")),
        "NetworkMode": new["networkMode"],
        "IpcMode": new.get("ipcMode"),
        "ShmSize": _bytes(new.get("shmSize")),
        "Memory": _bytes(new.get("memory")),
        "MemorySwap": _bytes(new.get("memorySwap")),
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


def _bytes(mebibytes: int | None) -> int | None:
    return mebibytes * MIB if mebibytes and mebibytes > 0 else mebibytes or None


def _restart_policy(new: State) -> dict[str, Any]:
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
