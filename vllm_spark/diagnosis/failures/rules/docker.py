"""What Docker, containerd, runc and the NVIDIA container toolkit say before vLLM runs at all."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_CONFIGURE = ("install the NVIDIA container toolkit (`sudo apt install nvidia-container-toolkit`),"
              " then `sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart"
              " docker`")  # fmt: skip
_DESCRIBE = "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"


def _command(values: Values) -> Values:
    return {"command": values.get("command") or "the command"}


def _versions(values: Values) -> Values:
    """torch's 12040 is CUDA 12.4; nvidia-container-cli and NGC name what they need."""
    has, needs = values.get("has"), values.get("needs")
    if has:
        return {"versions": f": it has CUDA {int(has) // 1000}.{int(has) % 1000 // 10}"}
    return {"versions": f": the image needs {needs}" if needs else ""}


RULES = (
    Rule(
        id="driver_mismatch",
        patterns=(r"(?i:driver/library version mismatch)",
                  r"API mismatch: the client has (?:the )?version",
                  r"Error 803: system has unsupported (?:display|cuda) driver"),
        cause="the NVIDIA driver's libraries and its loaded kernel module are of different"
              " versions: the driver was updated and the host has not been rebooted since",
        fix="reboot the host; if that does not help, install one version of the driver and remove"
             " CUDA compat libraries from the image or from LD_LIBRARY_PATH",
        source="nvidia-container-toolkit#394; libcuda",
        anywhere=True,
    ),
    Rule(
        id="driver_too_old",
        patterns=(r"NVIDIA driver on your system is too old \(found version (?P<has>\d+)\)",
                  r"Error 804: forward compatibility was attempted",
                  r"CUDA driver version is insufficient for CUDA runtime version",
                  r"provided PTX was compiled with an unsupported toolchain",
                  r"unsatisfied condition: (?P<needs>cuda ?>= ?[\d.]+)",
                  r"built for NVIDIA Driver Release (?P<needs>[\d.]+) or later, but"),
        cause="the host's NVIDIA driver is too old for the CUDA in the image{versions}",
        fix="update the host's driver (580 or newer for CUDA 13 images; reboot), or use an image"
             " with an older CUDA; an NGC image must keep its own entrypoint, which sets up CUDA"
             " forward compatibility where the GPU allows it",
        source="torch; libcuda; nvidia-container-cli; NGC banner",
        compute=_versions,
        anywhere=True,
    ),
    Rule(
        id="compat_libraries",
        patterns=(r"nvidia-container-cli: mount error: (?:stat|file creation|open) failed: \S*"
                  r"(?P<file>(?:/usr/local/cuda[\w.-]*/compat/|/)lib(?:cuda|nvidia)[\w./-]*)",),
        cause="the image carries driver libraries of its own (CUDA compat), which do not go with"
              " this host's driver",
        fix="use the original image, not one that was committed from a running container;"
             " otherwise delete /usr/local/cuda*/compat and the driver's lib*.so in the image,"
             " and keep them out of LD_LIBRARY_PATH",
        source="nvidia-container-runtime#136; libcuda",
        anywhere=True,
    ),
    Rule(
        id="gpu_driver_missing",
        patterns=(r"load library failed: libnvidia-ml\.so\.1",
                  r"nvml error: driver not loaded",
                  r"failed to initiali[sz]e NVML: (?:ERROR_LIBRARY_NOT_FOUND|Driver Not Loaded"
                  r"|ERROR_DRIVER_NOT_LOADED)"),
        cause="the host has no NVIDIA driver that is loaded and belongs to its kernel",
        fix="run `nvidia-smi` on the host; load the driver (`sudo modprobe nvidia`, or reboot), and"
             " if there is none for this kernel, install it (`sudo ubuntu-drivers install`)",
        source="libnvidia-container; text-generation-webui-docker#20; nvidia-container-toolkit#118",
        anywhere=True,
    ),
    Rule(
        id="gpu_number_unknown",
        patterns=(r"nvidia-container-cli: device error: (?P<gpu>[\w:-]+): unknown device",),
        cause="the host has no GPU {gpu}",
        fix="ask for the numbers that `nvidia-smi -L` lists (container.gpus, `docker run --gpus`)",
        source="libnvidia-container",
        anywhere=True,
    ),
    Rule(
        id="gpu_hook_refused",
        patterns=(r"invoking the NVIDIA Container Runtime Hook directly .{0,60}is not supported",),
        cause="the NVIDIA container toolkit is set to a mode in which `docker run --gpus` does not"
             " work before Docker 29",
        fix="`sudo nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto`",
        source="nvidia-container-toolkit 1.20.2, assertModeIsLegacy; TensorRT-LLM#799",
        anywhere=True,
    ),
    Rule(
        id="gpu_device_rules_refused",
        patterns=(r"failed to add device rules: .{0,160}operation not permitted",),
        cause="the NVIDIA container toolkit may not set device rules, as under rootless Docker",
        fix="`sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place`, then"
             " `systemctl --user restart docker`; or give the container the GPU by CDI",
        source="NVIDIA/nvidia-container-toolkit#678; NVIDIA container toolkit, rootless mode",
        anywhere=True,
    ),
    Rule(
        id="gpu_driver_silent",
        patterns=(r"nvidia-container-cli: (?!requirement error)[\w ]+ error: (?P<why>.{1,160})",
                  r"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver"),
        cause="the NVIDIA container toolkit cannot use the host's GPU driver{why}",
        fix="run `nvidia-smi` on the host: if it fails, reboot or reinstall the driver; if it"
             " works, update the NVIDIA container toolkit and restart Docker",
        source="libnvidia-container",
        anywhere=True,
        compute=lambda values: {"why": f": {values['why']}" if values.get("why") else ""},
    ),
    Rule(
        id="gpu_lost_by_container",
        patterns=(r"Failed to initialize NVML: Unknown Error",),
        cause="the container has lost its access to the GPU, as happens when systemd reloads its"
              " units (`systemctl daemon-reload`) under a running container",
        fix="restart the container; to prevent it, give it the GPU by CDI (`docker run --device"
             " nvidia.com/gpu=all`)",
        source="NVIDIA container toolkit, troubleshooting",
        anywhere=True,
    ),
    Rule(
        id="gpu_specification_old",
        patterns=(r"failed to stat CDI host device \"(?P<file>[^\"]+)\"",
                  r"failed to fulfil mount request: open (?P<file>\S*(?:nvidia|libcuda)\S*): no",
                  r"running createContainer hook .*exec (?P<file>\S*nvidia\S*): no such file"),
        cause="the CDI specification of the GPU is older than the host's driver or toolkit: it"
             " names {file}, which is not there",
        fix=f"{_DESCRIBE}, again after each update of the driver",
        source="Docker 28.5.2 with a specification for another driver",
        anywhere=True,
    ),
    Rule(
        id="gpu_specification_missing",
        patterns=(r"unresolvable CDI devices? \S+",
                  r"failed to inject CDI devices", r"CDI device injection failed",
                  r"(?:no CDI|failed to (?:load|parse) CDI) spec"),
        cause="Docker finds no CDI specification of the GPU, or one without this GPU",
        fix=f"{_DESCRIBE}; if that fails, see whether `nvidia-smi` works on the host",
        source="nvidia-container-toolkit#1537; vertd#39",
        anywhere=True,
    ),
    Rule(
        id="cdi_off",
        patterns=(r"could not select device driver \"cdi\" with capabilities",),
        cause="this Docker does not use CDI: before 28 it has to be switched on",
        fix="set {{\"features\": {{\"cdi\": true}}}} in /etc/docker/daemon.json and `sudo systemctl"
             " restart docker`, or update Docker to 28 or newer",
        source="nvidia-container-toolkit#434",
        anywhere=True,
    ),
    Rule(
        id="gpu_runtime_missing",
        patterns=(r"could not select device driver \"(?:nvidia)?\" with capabilities: \[\[.*gpu",
                  r"failed to discover GPU vendor from CDI", r"AMD CDI spec not found",
                  r"(?i:unknown) (?:or invalid )?runtime(?: name:| specified)? \"?nvidia\"?",
                  r"nvidia-container-(?:runtime|cli|toolkit)(?:-hook)?\"?:? .{0,40}(?:executable"
                  r" file"
                  r" not found|no such file)",
                  r"exec: \"nvidia-container-\S+\": "),
        cause="Docker does not find the NVIDIA container toolkit: it is not installed, not"
             " configured for Docker, or newer than Docker's last start",
        fix=f"{_CONFIGURE}; test it with `docker run --rm --gpus all IMAGE nvidia-smi`",
        source="ragflow#9573; dmake#158; Docker 28.5.2 and 29 without the toolkit; fireshare#689",
        anywhere=True,
    ),
    Rule(
        id="wrong_architecture",
        patterns=(r"exec format error", r"cannot execute binary file: Exec format error",
                  r"no matching manifest for linux/(?P<has>\S+)"),
        cause="the image is built for another processor (a DGX Spark is arm64)",
        fix="use an arm64 (aarch64) image: `docker image inspect IMAGE --format"
             " '{{{{.Architecture}}}}'` must print arm64",
        source="the kernel, ENOEXEC; ComfyUI-Nvidia-Docker#96",
        anywhere=True,
    ),
    Rule(
        id="command_missing",
        patterns=(r"exec: \"(?P<command>[^\"]+)\": (?:executable file not found|no such file)",
                  r"exec: (?P<command>\S+): (?:not found|invalid option)",
                  r"(?P<command>vllm): (?:command not found|not found)",
                  r"No module named '?(?P<command>vllm)'?$",
                  r"cannot execute binary file$"),
        cause="the container cannot run {command}: image and command do not go together",
        fix="the command of nvcr.io/nvidia/vllm begins with `vllm serve`; that of vllm/vllm-openai"
             " has the flags only",
        source="Docker; bash",
        compute=_command,
        anywhere=True,
        unless=r"nvidia-container",
    ),
    Rule(
        id="ulimit_refused",
        patterns=(r"error setting rlimits?.{0,120}",
                  r"failed to set rlimit.{0,120}"),
        cause="the host does not let the container have its ulimits (memlock)",
        fix="lower or remove container.ulimits, or raise the limit of the Docker service"
             " (LimitMEMLOCK=infinity)",
        source="runc",
        anywhere=True,
    ),
    Rule(
        id="log_driver_refused",
        patterns=(r"failed to initialize logging driver: (?P<why>.{1,160})",),
        cause="Docker cannot use the log driver: {why}",
        fix="set container.log.driver to json-file or local (docker run --log-driver), or make the"
             " driver available on the host",
        source="Docker 20.10.24 without journald",
        anywhere=True,
    ),
    Rule(
        id="ipc_refused",
        patterns=(r"error mounting \"?mqueue\"? to rootfs.{0,120}operation not permitted",),
        cause="rootless Docker cannot give the container `ipc: host`",
        fix="set container.ipc: private and container.shmSize, such as 16g (docker --shm-size=16g"
             " without --ipc=host)",
        source="Docker 20.10.24, rootless",
        anywhere=True,
    ),
    Rule(
        id="docker_cannot_mount",
        patterns=(r"(?P<why>error mounting \"?\S+\"? to rootfs.{0,160})",
                  r"(?P<why>invalid mount config for type .{1,160})",
                  r"(?P<why>bind source path does not exist: \S+)",
                  r"(?P<why>invalid volume specification: .{1,120})"),
        cause="Docker cannot mount a path: {why}",
        fix="correct the path on the host in container.mounts (it must exist, and be a directory"
             " where the container expects one)",
        source="Docker; runc",
        anywhere=True,
    ),
    Rule(
        id="docker_name_taken",
        patterns=(r"The container name \"/?(?P<name>[^\"]+)\" is already in use",),
        cause="there is a container named {name} already",
        fix="`docker rm -f {name}` if nobody needs it, or set another container.name",
        source="Docker",
        anywhere=True,
    ),
    Rule(
        id="image_not_found",
        patterns=(r"(?P<why>manifest (?:for \S+ not found|unknown).{0,120})",
                  r"(?P<why>pull access denied.{0,160})",
                  r"(?P<why>No such image: \S+)",
                  r"failed to resolve reference \"\S+\": (?P<why>\S+: not found)",
                  r"(?P<why>(?:unauthorized|denied): (?:authentication required|requested access)"
                  r".{0,120})",
                  r"(?P<why>repository \S+ not found.{0,80})"),
        cause="Docker cannot get the image: {why}",
        fix="check the image's name and tag; of a registry that asks for it, `docker login` first"
             " (nvcr.io: user $oauthtoken, an NGC API key)",
        source="Docker",
        anywhere=True,
    ),
    Rule(
        id="registry_unreachable",
        patterns=(r"(?:daemon|request): (?P<why>(?:Get|Head) \"https?://[^\"/]+/v2/"
                  r".*(?:no such host|timeout|refused|unreachable|deadline exceeded).*)",
                  r"daemon: (?P<why>toomanyrequests: .{1,120})"),
        cause="Docker cannot reach the registry of the image: {why}",
        fix="check the network, DNS and proxy of the Docker daemon; after a rate limit wait, or"
             " `docker login`",
        source="Docker",
        anywhere=True,
    ),
    Rule(
        id="docker_refused",
        patterns=(r"Error response from daemon: (?P<why>.+)",
                  r"(?P<why>failed to register layer: .+)",
                  r"(?P<why>OCI runtime create failed: .+)",
                  r"(?P<why>failed to create (?:shim task|task for container): .+)"),
        cause="Docker refuses to start the container: {why}",
        fix="correct what Docker names last in this message",
        source="Docker",
        rank=Rank.GENERAL,
        anywhere=True,
    ),
)  # fmt: skip
