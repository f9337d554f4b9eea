"""Failures of the container and the host under vLLM: ports, files, users, threads, reboots."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values


def _at_port(values: Values) -> Values:
    return {"port": values.get("port_named") or values["port"] or "8000"}


RULES = (
    Rule(
        id="numa_nodes_too_few",
        patterns=(r"\bNot? enough allowed NUMA nodes to bind threads of (?P<size>\d+)"
                  r"(?: local)? CPUWorkers\. Allowed NUMA nodes are (?P<nodes>\[[^\]]*\])",),
        cause="vLLM for the CPU binds each of {size} workers to a NUMA node, and has {nodes} only",
        fix="set tensor-parallel-size to the number of NUMA nodes, or bind the threads by hand"
             " (VLLM_CPU_OMP_THREADS_BIND)",
        source="v1/worker/cpu_worker.py",
    ),
    Rule(
        id="files_too_many",
        patterns=(r"(?<!`OSError: )\[Errno 24\] Too many open files",),
        cause="the process may not open any more files",
        fix="raise the limit: container.ulimits nofile 65536",
        source="the kernel, EMFILE",
    ),
    Rule(
        id="threads_too_many",
        patterns=(r"pthread_create failed|can't start new thread"
                  r"|pthread_create.{0,40}Resource temporarily unavailable"
                  r"|\[Errno 11\] Resource temporarily unavailable",),
        cause="the container may not start more threads or processes",
        fix="raise or remove the limit on processes (docker --pids-limit, ulimit -u); OpenBLAS"
             " needs fewer with OPENBLAS_NUM_THREADS=1",
        source="the kernel, EAGAIN; OpenBLAS; Python",
        anywhere=True,
    ),
    Rule(
        id="port_taken",
        patterns=(r"port: (?P<port_named>\d+).*EADDRINUSE",
                  r"[Aa]ddress already in use \(addr='tcp://[^']*:(?P<port_named>\d+)'",
                  r"attempting to bind on address \('[^']*', (?P<port_named>\d+)\): address",
                  r"[Bb]ind for \S*:(?P<port_named>\d+) failed: port is already allocated",
                  r"failed to bind (?:host )?port for \S*:(?P<port_named>\d+)",
                  r"bind\(\) to \S*:(?P<port_named>\d+) failed \(98: ",
                  r"(?:\[Errno 98\] |: )[Aa]ddress already in use"),
        cause="port {port} is taken by another program",
        fix="stop the other server (`ss -ltnp`, `docker ps`), or set another endpoint.port",
        source="vLLM 0.26 log; uvicorn; Docker; torch",
        compute=_at_port,
        anywhere=True,
    ),
    Rule(
        id="address_not_local",
        patterns=(r"\[Errno 99\] [Cc]annot assign requested address",),
        cause="the address to listen on does not belong to this machine",
        fix="remove host (all interfaces of the container), or set endpoint.bind to an address"
             " that `ip addr` shows; on several nodes VLLM_HOST_IP must be this node's own",
        source="the kernel, EADDRNOTAVAIL",
    ),
    Rule(
        id="user_without_name",
        patterns=(r"getpwuid\(\): uid not found: (?P<uid>\d+)",
                  r"No user exists for uid (?P<uid>\d+)"),
        cause="the container runs as the user id {uid}, which has no entry in /etc/passwd, and a"
              " library asks for its name",
        fix="set the environment variables USER (any name) and HOME (a writable directory), or"
             " TORCHINDUCTOR_CACHE_DIR; or run as a user that the image has",
        source="vllm#44548",
    ),
    Rule(
        id="permission",
        patterns=(r"\[Errno 13\] Permission denied: '(?P<path>[^']*)'",
                  r"PermissionError at (?P<path>\S+) when downloading",
                  r"Permission denied \(os error 13\)",
                  r"\[Errno 30\] Read-only file system: '(?P<path>[^']*)'"),
        cause="the container's user may not read or write {path}",
        fix="give it to the user of the container (`chown -R` on the host's directory), or mount"
             " it writable",
        source="the kernel, EACCES and EROFS; hf_xet",
        compute=lambda values: {"path": values.get("path") or "the cache"},
    ),
    Rule(
        id="file_system_fails",
        patterns=(r"\[Errno 5\] Input/output error(?:: '(?P<path>[^']*)')?",
                  r"\[Errno 116\] Stale file handle(?:: '(?P<path>[^']*)')?",
                  r"\[Errno 107\] Transport endpoint is not connected(?:: '(?P<path>[^']*)')?"),
        cause="the disk or the network file system of {path} fails",
        fix="look at `dmesg` and `df -h` on the host; mount the share again, or put the model on a"
             " local disk",
        source="the kernel, EIO, ESTALE and ENOTCONN",
        compute=lambda values: {"path": values.get("path") or "the model or the cache"},
    ),
    Rule(
        id="host_rebooted",
        patterns=(r"-- (?:Boot [0-9a-f]{32}|Reboot) --$",
                  r"^(?:Linux version \d|Booting Linux on physical CPU)"),
        cause="the host started again while the server was {phase}; the log before that just breaks"
              " off, so it froze, lost power or was reset, and this log does not show which",
        fix="look at the end of the boot before: `journalctl -b -1 -e`, `journalctl -k -b -1 | grep"
             " -iE 'xid|nvrm|oom|thermal'`; on a Spark used-up unified memory does this: lower"
             " gpu-memory-utilization so that 8 to 10 GiB stay free",
        source="systemd's journal",
        rank=Rank.HINT,
        anywhere=True,
    ),
)  # fmt: skip
