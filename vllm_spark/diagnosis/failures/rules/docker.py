"""What Docker, containerd, runc and the NVIDIA container toolkit say before vLLM runs at all."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_CONFIGURE = ("install the NVIDIA container toolkit, then `sudo nvidia-ctk runtime configure"
              " --runtime=docker && sudo systemctl restart docker`")  # fmt: skip


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
        fix="restart the container; to prevent it, use CDI in the NVIDIA container toolkit"
             " (`nvidia-ctk config --in-place --set nvidia-container-runtime.mode=cdi`)",
        source="NVIDIA container toolkit, troubleshooting",
        anywhere=True,
    ),
    Rule(
        id="gpu_spec_missing",
        patterns=(r"failed to discover GPU vendor from CDI", r"unresolvable CDI devices? \S+",
                  r"failed to inject CDI devices", r"CDI device injection failed",
                  r"(?:no CDI|failed to (?:load|parse) CDI) spec"),
        cause="Docker finds no CDI description of the GPU: the NVIDIA container toolkit is not"
              " installed, its CDI specification is missing or old, or the driver does not answer",
        fix="check `nvidia-smi` on the host; install the NVIDIA container toolkit; `sudo nvidia-ctk"
             " cdi generate --output=/etc/cdi/nvidia.yaml` (again after each driver update), then"
             " restart Docker",
        source="nvidia-container-toolkit#1537; fireshare#689",
        anywhere=True,
    ),
    Rule(
        id="gpu_runtime_missing",
        patterns=(r"could not select device driver \"\w*\" with capabilities: \[\[[\w ,]*gpu",
                  r"(?i:unknown) (?:or invalid )?runtime(?: name:| specified)? \"?nvidia\"?",
                  r"nvidia-container-(?:runtime|cli|toolkit)(?:-hook)?\"?:? .{0,40}(?:executable"
                  r" file"
                  r" not found|no such file)",
                  r"exec: \"nvidia-container-\S+\": "),
        cause="Docker has no NVIDIA runtime: the NVIDIA container toolkit is not installed or not"
              " configured for Docker",
        fix=f"{_CONFIGURE}; test it with `docker run --rm --gpus all IMAGE nvidia-smi`",
        source="ragflow#9573; dmake#158; Docker",
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
        patterns=(r"daemon: (?P<why>Get \"https?://[^\"/]+/v2/.*(?:no such host|timeout|refused"
                  r"|unreachable|deadline exceeded).*)",
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
