"""Failures of the machine under vLLM: GPU, driver, container, ports, files."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values


def _at_port(values: Values) -> Values:
    return {"port": values.get("port_named") or values["port"] or "8000"}


def _versions(values: Values) -> Values:
    """torch's 12040 is CUDA 12.4; nvidia-container-cli and NGC name what they need."""
    has, needs = values.get("has"), values.get("needs")
    if has:
        return {"versions": f": it has CUDA {int(has) // 1000}.{int(has) % 1000 // 10}"}
    return {"versions": f": it needs {needs} or newer" if needs else ""}


def _command(values: Values) -> Values:
    return {"command": values.get("command") or "the command"}


RULES = (
    Rule(
        id="gpu_not_visible",
        patterns=(r"Failed to infer device type", r"Device string must not be empty",
                  r"local rank \d+ is out of bounds for 0 devices",
                  r"No CUDA GPUs are available", r"Found no NVIDIA driver on your system",
                  r"libcuda\.so\.1: cannot open shared object file",
                  r"no CUDA-capable device is detected",
                  r"could not select device driver \"\" with capabilities: \[\[gpu\]\]",
                  r"nvidia-container-cli: initialization error",
                  r"unknown or invalid runtime name: nvidia", r"0 active drivers \(\[\]\)"),
        cause="the container sees no GPU",
        fix="set container.gpus: all (docker --gpus all) and leave CUDA_VISIBLE_DEVICES alone;"
             " if `nvidia-smi` fails in any container, install the NVIDIA container toolkit",
        source="vLLM 0.26 log; torch; docker; Triton",
        anywhere=True,
    ),
    Rule(
        id="gpus_too_few",
        patterns=(r"local rank (?P<rank>\d+) is out of bounds for (?P<gpus>[1-9]\d*) devices",
                  r"CUDA error: invalid device ordinal"),
        cause="more GPUs are asked for than the container has",
        fix="set tensor-, pipeline- and data-parallel-size to the number of GPUs in this machine"
             " (1 on a Spark)",
        source="gpu_worker.py; torch",
    ),
    Rule(
        id="driver_too_old",
        patterns=(r"NVIDIA driver on your system is too old \(found version (?P<has>\d+)\)",
                  r"Error 803: system has unsupported display driver",
                  r"Error 804: forward compatibility was attempted",
                  r"CUDA driver version is insufficient for CUDA runtime version",
                  r"provided PTX was compiled with an unsupported toolchain",
                  r"unsatisfied condition: (?P<needs>cuda>=[\d.]+)",
                  r"built for NVIDIA Driver Release (?P<needs>[\d.]+) or later, but"),
        cause="the host's NVIDIA driver is too old for the CUDA in the image{versions}",
        fix="update the host's driver (580 or newer for CUDA 13 images; reboot), or take an image"
             " with an older CUDA",
        source="torch; libcuda; nvidia-container-cli; NGC banner",
        compute=_versions,
        anywhere=True,
    ),
    Rule(
        id="gpu_not_initialized",
        patterns=(r"Error 802: system not yet initialized", r"CUDA unknown error",
                  r"CUDA-capable device\(s\) is/are busy or unavailable",
                  r"cuda\w* ?(?:call)? ?failed.*CUDA_ERROR_NOT_INITIALIZED"),
        cause="the driver cannot initialize the GPU",
        fix="look at `nvidia-smi` and `dmesg | grep -i xid` on the host, then reboot it (or reload"
             " the driver)",
        source="torch; libcuda",
    ),
    Rule(
        id="gpu_faulted",
        patterns=(r"(?:(?:CUDA|HIP) error|Triton Error \[CUDA\]): (?P<what>(?:an )?(?:illegal|"
                  r"unspecified|uncorrectable|device-side|misaligned|the launch).*?)\.?$",
                  r"Cuda error \S+ '(?P<what>[^']*)'"),
        cause="the GPU faulted: {what}",
        fix="look for Xid in `dmesg` on the host; set enforce-eager: true to see whether CUDA"
             " graphs are at fault, and take a newer image",
        source="torch; libcuda",
    ),
    Rule(
        id="cuda_error",
        patterns=(r"(?:CUDA error|CUDA driver error|Triton Error \[CUDA\]): (?P<what>.+?)\.?$",
                  r"\b(?P<what>CUBLAS_STATUS_(?!ALLOC)\w+|CUDNN_STATUS_\w+|CUDA_ERROR_\w+)"),
        cause="CUDA failed: {what}",
        fix="look at `dmesg` and `nvidia-smi` on the host, then start again; if it repeats, take"
             " another image",
        source="torch; libcuda",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="docker_refused",
        patterns=(r"Error response from daemon: (?P<why>.+)",
                  r"(?P<why>failed to register layer: .+)"),
        cause="docker refuses: {why}",
        fix="correct what docker names: the image's name and tag, `docker login nvcr.io`, the"
             " container's name, the mounts",
        source="docker",
        rank=Rank.GENERAL,
        anywhere=True,
    ),
    Rule(
        id="wrong_architecture",
        patterns=(r"exec format error", r"cannot execute binary file: Exec format error",
                  r"no matching manifest for linux/(?P<has>\S+)"),
        cause="the image is built for another processor (a DGX Spark is arm64)",
        fix="take an arm64 (aarch64) image: `docker image inspect IMAGE --format"
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
        source="docker; bash",
        compute=_command,
        anywhere=True,
    ),
    Rule(
        id="ulimit_refused",
        patterns=(r"error setting rlimits?.{0,120}",
                  r"failed to set rlimit.{0,120}"),
        cause="the host does not let the container have its ulimits (memlock)",
        fix="lower or remove container.ulimits, or raise the limit of the docker service"
             " (LimitMEMLOCK=infinity)",
        source="runc",
        anywhere=True,
    ),
    Rule(
        id="numa_nodes_too_few",
        patterns=(r"\bNot? enough allowed NUMA nodes to bind threads of (?P<size>\d+)"
                  r"(?: local)? CPUWorkers\. Allowed NUMA nodes are (?P<nodes>\[[^\]]*\])",),
        cause="the CPU engine binds each of {size} workers to a NUMA node, and has {nodes} only",
        fix="set tensor-parallel-size to the number of NUMA nodes, or bind the threads by hand"
             " (VLLM_CPU_OMP_THREADS_BIND)",
        source="v1/worker/cpu_worker.py",
    ),
    Rule(
        id="files_too_many",
        patterns=(r"(?<!`OSError: )\[Errno 24\] Too many open files",),
        cause="the process may not open more files",
        fix="raise the limit: container.ulimits nofile 65536",
        source="the kernel, EMFILE",
    ),
    Rule(
        id="port_taken",
        patterns=(r"port: (?P<port_named>\d+).*EADDRINUSE",
                  r"[Aa]ddress already in use \(addr='tcp://[^']*:(?P<port_named>\d+)'",
                  r"attempting to bind on address \('[^']*', (?P<port_named>\d+)\): address",
                  r"Bind for \S*:(?P<port_named>\d+) failed: port is already allocated",
                  r"bind\(\) to \S*:(?P<port_named>\d+) failed \(98: ",
                  r"(?:\[Errno 98\] |: )[Aa]ddress already in use"),
        cause="port {port} is taken by another program",
        fix="stop the other server (`ss -ltnp`, `docker ps`), or set another endpoint.port",
        source="vLLM 0.26 log; uvicorn; docker; torch",
        compute=_at_port,
        anywhere=True,
    ),
    Rule(
        id="address_not_local",
        patterns=(r"\[Errno 99\] [Cc]annot assign requested address",),
        cause="the address to listen on is none of this machine's",
        fix="remove host (all interfaces of the container), or set endpoint.bind to an address"
             " that `ip addr` shows",
        source="the kernel, EADDRNOTAVAIL",
    ),
    Rule(
        id="permission",
        patterns=(r"\[Errno 13\] Permission denied: '(?P<path>[^']*)'",
                  r"PermissionError at (?P<path>\S+) when downloading",
                  r"Permission denied \(os error 13\)",
                  r"\[Errno 30\] Read-only file system: '(?P<path>[^']*)'"),
        cause="{path} may not be written or read by the container's user",
        fix="give it to the user of the container (`chown -R` on the host's directory), or mount"
             " it writable",
        source="the kernel, EACCES and EROFS; hf_xet",
        compute=lambda values: {"path": values.get("path") or "the cache"},
    ),
)  # fmt: skip
