"""Ends of processes: signals, kills, time limits, and lines that only say that one ended."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_OUT_OF_MEMORY = ("look for `oom` in `dmesg` on the host; lower gpu-memory-utilization (on a Spark"
                  " GPU and host share the memory: leave it 8 to 10 GiB), or raise the container's"
                  " memory limit")  # fmt: skip

_SIGNALS = {"4": "SIGILL", "6": "SIGABRT", "7": "SIGBUS", "9": "SIGKILL", "11": "SIGSEGV"}


def _signal(values: Values) -> Values | None:
    """A child's exit code, when it is a signal: -9 was killed, mostly for memory."""
    name = _SIGNALS.get((values.get("code") or "").removeprefix("-"))
    if not name or not (values.get("code") or "").startswith("-"):
        return None
    how = {
        "SIGKILL": _OUT_OF_MEMORY,
        "SIGBUS": "set container.ipc: host (docker --ipc=host), or --shm-size=8g",
        "SIGILL": "use an image built for this processor",
    }.get(name, "look at `dmesg` on the host; start once with enforce-eager: true; use a newer"
                " image")  # fmt: skip
    why = {
        "SIGKILL": ", as the kernel does when memory runs out",
        "SIGBUS": " (/dev/shm too small)",
    }
    return {"signal": name, "why": why.get(name, ""), "how": how}


RULES = (
    Rule(
        id="engine_start_timeout",
        patterns=(r"Timed out waiting for engine (?:core processes to start|\w+ to send initial)"
                  r"(?:.*Waited (?P<seconds>\d+))?",
                  r"Did not receive response from front-end process within (?P<minutes>\d+)"),
        cause="the engine was not ready within vLLM's own time limit",
        fix=("set VLLM_ENGINE_READY_TIMEOUT_S (600 by default) above what loading and compiling"
             " take, 3600 for a first start",
             "make the start shorter: fetch the weights first, keep the compile cache"),
        source="v1/engine/core_client.py",
    ),
    Rule(
        id="engine_step_timeout",
        patterns=(r"RPC call to (?P<method>\w+) timed out",
                  r"(?P<method>execut\w+) (?:timed out|timeout)",
                  r"(?P<method>RayChannelTimeoutError)"),
        cause="the GPU's work ({method}) did not come to an end within vLLM's time limit: it hangs,"
              " a worker died, or it was only slow",
        fix="look at memory and `dmesg` on the host (on a Spark: keep 8 to 10 GiB free), on several"
             " nodes at the log of every worker; raise VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS if it"
             " was only slow",
        source="multiproc_executor.py; spark-vllm-docker#321",
    ),
    Rule(
        id="cuda_forked",
        patterns=(r"Cannot re-initialize CUDA in forked subprocess",),
        cause="the engine was forked from a process that had used CUDA already",
        fix="set VLLM_WORKER_MULTIPROC_METHOD=spawn",
        source="torch; vllm#12754",
    ),
    Rule(
        id="script_without_main_guard",
        patterns=(r"(?s)An attempt has been made to start a new process before the\s+current"
                  r" process"
                  r" has finished its bootstrapping phase",
                  r"An attempt has been made to start a new process before the"),
        cause="the Python program that starts vLLM has no `if __name__ == \"__main__\":` guard, so"
              " each new process runs it again",
        fix="put the program's code below `if __name__ == \"__main__\":`, or start the server with"
             " `vllm serve`",
        source="Python multiprocessing/spawn.py",
    ),
    Rule(
        id="process_killed",
        patterns=(r"died unexpectedly \(exit code: (?P<code>-\d+)\)",
                  r"Failed core proc\(s\): \{.*?'[^']*': (?P<code>-\d+)"),
        cause="an engine process was ended by {signal}{why}",
        fix="{how}",
        source="multiproc_executor.py; v1/engine/utils.py",
        rank=Rank.HINT,
        compute=_signal,
    ),
    Rule(
        id="segmentation_fault",
        patterns=(r"Fatal Python error: (?P<what>Segmentation fault|Illegal instruction|Aborted)",
                  r"(?P<what>Segfault) encountered", r"\b(?P<what>Segmentation fault)\b",
                  r"\b(?P<what>SIG(?:SEGV|ILL|ABRT)) received at"),
        cause="a process ended by a fault of its own code ({what}) while {phase}",
        fix="look at `dmesg` on the host; start once with enforce-eager: true; use another image,"
             " without packages installed over it",
        source="faulthandler; torch's handler; bash",
        rank=Rank.HINT,
    ),
    Rule(
        id="killed_for_memory",
        patterns=(r"Out of memory: Killed process \d+ \((?P<what>[^)]*)\)",
                  r"Memory cgroup out of memory: Killed process \d+ \((?P<what>[^)]*)\)",
                  r"earlyoom.{0,80}sending SIG\w+ to process \d+.{0,20}\"(?P<what>[^\"]*)\"",
                  r"systemd-oomd.{0,40}Killed (?P<what>\S+)",
                  r"^\S+: line \d+: +\d+ Killed +(?P<what>\S+)", r"^Killed$"),
        cause="the kernel killed {what} while {phase}, as it does when memory runs out",
        fix=_OUT_OF_MEMORY,
        source="the kernel's log; bash",
        rank=Rank.HINT,
        root_of=("engine_died", "engine_reason_missing", "peer_died", "engine_step_timeout"),
        compute=lambda values: {"what": values.get("what") or "a process"},
    ),
    Rule(
        id="engine_reason_missing",
        patterns=(r"Failed core proc\(s\): \{\}",),
        cause="an engine process failed, and vLLM printed the reason above this line: this log does"
              " not have it",
        fix="give the log from its beginning (`docker logs NAME 2>&1`), with the lines of"
            " EngineCore"
             " and Worker; the last exception before \"EngineCore failed to start\" is the cause",
        source="v1/engine/utils.py",
        rank=Rank.CONSEQUENCE,
    ),
    Rule(
        id="engine_died",
        patterns=(r"EngineDeadError", r"engine core exited unexpectedly",
                  r"(?:Engine core|Worker) proc .{0,40} died unexpectedly",
                  r"RayWorkerProc rank=\S+ died", r"Engine core initialization failed",
                  r"Engine process failed to start", r"EngineCore (?:failed|encountered|hit)",
                  r"WorkerProc (?:failed|initialization failed|hit an exception)",
                  r"Frontend process failed during engine core",
                  r"MQLLMEngine is already dead|Engine (?:process .{0,20}|loop has )died"),
        cause="the engine process is gone, and this log does not say why",
        fix="if the log is whole, the process was ended from outside, mostly by the kernel for"
             " memory: look for `oom` and `Xid` in `dmesg` on the host; if lines of EngineCore or"
             " Worker are missing above, diagnose the whole log",
        source="vLLM 0.26 log of a killed engine",
        rank=Rank.CONSEQUENCE,
        levels=frozenset({"", "WARNING", "ERROR", "CRITICAL"}),
    ),
)  # fmt: skip

EXIT_CODES = {
    125: ("Docker could not start the container", "read Docker's own message above"),
    126: ("the container's command may not be executed",
          "check entrypoint and command against the image"),
    127: ("the container's command does not exist in the image",
          "the command of nvcr.io/nvidia/vllm begins with `vllm serve`; that of vllm/vllm-openai"
          " has the flags only"),
    132: ("the image uses instructions that this processor lacks (SIGILL)",
          "use an image built for this processor"),
    134: ("the process aborted itself (SIGABRT)", "read the last lines; use another image"),
    135: ("the process was ended by SIGBUS: /dev/shm is too small",
          "set container.ipc: host (docker --ipc=host), or --shm-size=8g"),
    136: ("an arithmetic fault ended the process (SIGFPE)", "use another image"),
    137: ("killed (SIGKILL) without a word in the log: most likely for memory", _OUT_OF_MEMORY),
    139: ("a segmentation fault ended the process (SIGSEGV)",
          "look at `dmesg` on the host; use another image; remove packages installed over it"),
}  # fmt: skip
"""What an exit code means when the log itself gives no cause: cause and fix."""

KILLED_FOR_MEMORY = ("killed for memory (the container's limit or the host's)", _OUT_OF_MEMORY)
"""When Docker says OOMKilled."""
