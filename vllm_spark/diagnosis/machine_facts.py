"""What a log says of the machine around the server: exit codes, kills, reboots, waits.

These lines come from Docker, systemd, Kubernetes and the kernel, in a journal or pasted beside the
server's own log. They show that a server ended where its own log just breaks off.
"""

from __future__ import annotations

import re

_EXIT = re.compile(
    r"^# exit (-?\d{1,5}) after|^Exited \((\d{1,5})\)"
    r"|\b(?:exited|terminated) with (?:exit )?code:? (\d{1,5})$"
    r"|Main process exited, code=(?:exited|killed|dumped), status=(\d{1,5})/"
    r"|^\s*\"?Exit ?Code\"?:\s+(\d{1,5}),?$"
)
_SIGNALLED = re.compile(r"Main process exited, code=(?:killed|dumped)")
_OOM_KILLED = re.compile(
    r"\"?OOMKilled\"?: true|^\s*Reason:\s+OOMKilled|Failed with result 'oom-kill'"
    r"|killed by the OOM killer"
)
_BOOT = re.compile(r"-- (?:Boot [0-9a-f]{32}|Reboot) --$")
_KERNEL_BOOT = re.compile(r"^(?:Linux version \d|Booting Linux on physical CPU)")
_SHUTDOWN = re.compile(
    r"systemd-shutdown|Reached target (?:\S+ - )?(?:System )?(?:Reboot|Power.?Off|Shutdown)"
    r"|System is (?:rebooting|powering down)|The system will (?:reboot|power off)"
    r"|reboot: (?:Restarting|Power down)|Shutting down\.$|Journal stopped"
)
# Not "Waiting for 1 local core engine proc(s) to start", which every slow start prints.
_WAITS = re.compile(
    r"No available (?:shared memory broadcast )?block found in \d+ ?s"
    r"|[Ww]aiting for (?:other |all |\d+ )?(?:remote )?(?:nodes?|ranks?|workers?)\b"
)


class MachineFacts:
    """Collects them. `exit_code` has signals as 128 + n, and is None where no line tells it."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.oom_killed = False
        self.rebooted = ""
        """The line that shows the boot of the machine after the server's lines."""
        self.shut_down = False
        """Whether the machine was shut down in an orderly way before that."""
        self.waits = 0
        """How many times in a row the log says that a process waits for another."""
        self.wait = ""
        self._lines = 0

    def read(self, text: str, of_kernel: bool) -> None:
        """Takes in a line without a level."""
        self._lines += 1
        if exited := _EXIT.search(text):
            code = int(next(group for group in exited.groups() if group))
            if _SIGNALLED.search(text):
                code += 128
            self.exit_code = 128 - code if code < 0 else code
        if _OOM_KILLED.search(text):
            self.oom_killed = True
        if _SHUTDOWN.search(text):
            self.shut_down = True
        if self._lines > 1 and (_BOOT.search(text) or (of_kernel and _KERNEL_BOOT.match(text))):
            self.rebooted = self.rebooted or text

    def read_message(self, text: str) -> None:
        """Takes in a line of level INFO or WARNING."""
        self._lines += 1
        if _WAITS.search(text):
            self.waits, self.wait = self.waits + 1, text
        else:
            self.waits = 0
