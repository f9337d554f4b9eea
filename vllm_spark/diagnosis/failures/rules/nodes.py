"""Failures between processes and nodes: interfaces, peers that died, hangs, Ray."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_INTERFACES = ("set NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME on each node to the name of its own"
               " ConnectX-7 interface (`ip addr`; two Sparks may name it differently), and read the"
               " log of a start with NCCL_DEBUG=INFO")  # fmt: skip
_FAST_LOADERS = ("instanttensor", "fastsafetensors", "runai_streamer", "tensorizer")


def _interface(values: Values) -> Values:
    name = values.get("name")
    return {"which": f"the interface or host name {name}" if name else "its network interface"}


def _loader(values: Values) -> Values | None:
    """Only a start with one of the fast loaders is explained by it."""
    name = values.get("load_format", "")
    return {"loader": name} if name.startswith(_FAST_LOADERS) else None


RULES = (
    Rule(
        id="gloo_interface",
        patterns=(r"Unable to (?:find (?:address|interface) for|resolve hostname to a \(local\)"
                  r" address):? ?(?P<name>[\w.-]*)",
                  r"ifa != nullptr", r"rv != -1.{0,40}Unable to resolve",
                  r"Gloo connectFullMesh failed"),
        cause="Gloo cannot use {which} on this node",
        fix="set GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME) on each node to the name of its own"
             " interface (`ip addr`; two Sparks may name it differently), and VLLM_HOST_IP to the"
             " address of that interface",
        source="YOLOX#139; vllm#40991; vllm#13121",
        compute=_interface,
    ),
    Rule(
        id="nccl_interface",
        patterns=(r"[Bb]ootstrap ?: (?P<what>no socket interface found)",
                  r"NCCL WARN.*(?P<what>[Nn]o (?:socket )?interface found)"),
        cause="NCCL finds no network interface ({what}): NCCL_SOCKET_IFNAME names one that this"
              " node does not have",
        fix=_INTERFACES,
        source="NCCL bootstrap.cc",
    ),
    Rule(
        id="nccl_memory_registration",
        patterns=(r"(?P<what>(?:ibv_reg_mr|reg_mr)\w* failed.{0,80})",
                  r"(?P<what>Call to ibv_(?:reg_mr|create_cq|create_qp)\S* failed.{0,80})"),
        cause="NCCL cannot register memory with the network card ({what})",
        fix="set container.ulimits memlock -1; on DGX OS see the kernel: 7.0.0-1019 loses memory to"
             " CMA and fails here, 6.17 works; NCCL_IB_DISABLE=1 does without RDMA, slowly",
        source="spark-vllm-docker#392; NCCL ibvwrap",
    ),
    Rule(
        id="same_gpu_twice",
        patterns=(r"Duplicate GPU detected",),
        cause="two ranks use the same GPU",
        fix="set tensor-parallel-size to the number of GPUs, each visible once; on two Sparks run"
             " one rank on each (nnodes, node-rank, master-addr)",
        source="NCCL init.cc",
    ),
    Rule(
        id="nodes_need_another_executor",
        patterns=(r"FileNotFoundError: \[Errno 2\] No such file or directory",),
        frame=r"SemLock\._rebuild|synchronize\.py\", line \d+, in __setstate__",
        cause="a worker on another node got a semaphore of this host's /dev/shm: the"
              " multiprocessing executor was given workers on two nodes",
        fix=("set distributed-executor-backend: ray",
             "start one server on each node with nnodes, node-rank and master-addr"),
        source="recipe-registry#13",
    ),
    Rule(
        id="peer_died",
        patterns=(r"(?P<what>Failed to recv, got 0 bytes\. Connection was likely closed)",
                  r"(?P<what>recvValue failed on)",
                  r"gloo.{0,80}(?P<what>(?:Connection (?:closed|reset) by peer|Broken pipe"
                  r"|Read error|Write error|Socket closed).{0,60})",
                  r"(?P<what>ncclRemoteError)", r"NCCL.{0,80}(?P<what>remote process exited)",
                  r"(?P<what>(?:Connection closed by|[Cc]losed by) (?:remote )?peer.{0,40})",
                  r"(?P<what>socketProgress: Connection closed)"),
        cause="the other process or node died or closed the connection first, and this one only"
              " lost it ({what})",
        fix="read the log of the other end at this minute (the head node, the driver process, the"
             " rank that has no such line): the cause is there; nothing is to be changed here",
        source="gpustack#6019; vllm#7772; torch c10d; gloo",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="collective_timeout",
        patterns=(r"Watchdog caught collective operation timeout:"
                  r" WorkNCCL\(.*?OpType=(?P<what>\w+)",
                  r"(?P<what>Watchdog) caught collective operation timeout"),
        cause="the ranks waited for each other until the time limit ran out ({what}): one of them"
              " hangs, died, or took another path",
        fix="read the log of every rank at this minute: the one without this line is at fault; if"
             f" all have it, the network hangs: {_INTERFACES}",
        source="vllm#5484; torch ProcessGroupNCCL",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="nccl",
        patterns=(r"RuntimeError: NCCL error: (?P<what>unhandled \w+ error)",),
        cause="the GPUs or nodes cannot talk to each other (NCCL: {what})",
        fix=_INTERFACES,
        source="pynccl_wrapper.py, which leaves the cause to NCCL's own lines",
        rank=Rank.HINT,
    ),
    Rule(
        id="nccl_failed",
        patterns=(r"NCCL [Ee]rror(?: \d+)?: (?!unhandled)(?P<what>[^(]+\w)",
                  r"(?P<what>nccl(?:System|Internal|UnhandledCuda|InvalidUsage)\w*Error)",
                  r"NCCL error in: \S+ (?P<what>[^(]+\w)"),
        detail=r"^(?P<what>(?:Cuda failure|Call to|socket\w*|Error while)\b.{0,120})",
        cause="the GPUs or nodes cannot talk to each other (NCCL: {what})",
        fix=_INTERFACES,
        source="pynccl_wrapper.py; torch distributed",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="nodes_do_not_meet",
        patterns=(r"Dist(?:Store|Network)Error: (?!Failed to recv)(?P<what>.{0,120})",
                  r"client socket has (?P<what>timed out|failed to connect).{0,100}"),
        cause="the nodes do not find each other: {what}",
        fix="start every node with the same master address and port, reachable from each other"
             " (`nc -vz MASTER PORT`)",
        source="torch c10d",
        unless=r"[Aa]ddress already in use|EADDRINUSE",
    ),
    Rule(
        id="ray_has_no_gpu",
        patterns=(r"Current node has no GPU available", r"Cannot provide a placement group",
                  r"number of required \w+s exceeds the total number of available",
                  r"No available node types can fulfill resource request"),
        cause="Ray does not have the GPUs that the parallel sizes ask for, or not at this address",
        fix="look at `ray status`: every node must be there, with its GPU; set VLLM_HOST_IP on"
             " each node to the address that Ray uses",
        source="v1/executor/ray_utils.py; spark-vllm-docker#227",
    ),
    Rule(
        id="ray_not_running",
        patterns=(r"Could not find any running Ray instance", r"RaySystemError: .{0,120}",
                  r"Failed to connect to (?:GCS|Ray)"),
        cause="there is no Ray cluster to join",
        fix="start Ray's head first (`ray start --head`), then the workers, then the server",
        source="ray",
    ),
    Rule(
        id="ray_versions_differ",
        patterns=(r"Version mismatch: The cluster was started with:?(?P<what>.{0,120})",),
        cause="Ray or Python is of different versions on the nodes",
        fix="run the same image on every node",
        source="ray _private/utils.py",
    ),
    Rule(
        id="worker_died_of_its_loader",
        patterns=(r"[Pp]roc \S+ died unexpectedly \(exit code: None\)",
                  r"[Pp]roc \S+ died unexpectedly, shutting down"),
        cause="a worker died without a word, in a start with load-format {loader}",
        fix="set load-format: safetensors (and remove model-loader-extra-config): {loader} ended"
             " workers silently on two nodes; if it dies again, look for `oom` and `Xid` in"
             " `dmesg` on its node",
        source="spark-vllm-docker#377",
        rank=Rank.HINT,
        compute=_loader,
    ),
)  # fmt: skip
