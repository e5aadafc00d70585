"""What the kernel says about processes: CPU time, memory, sockets."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of a process and its living descendants."""

    user: float
    system: float

    @property
    def total(self) -> float:
        """User and system time."""
        return self.user + self.system

    def __sub__(self, earlier: "Cpu") -> "Cpu":
        return Cpu(self.user - earlier.user, self.system - earlier.system)


def tree(pid: int) -> list[int]:
    """Return `pid` and all its living descendants."""
    found = [pid]
    for parent in found:
        found.extend(_children(parent))
    return found


def cpu(pid: int) -> Cpu:
    """CPU time of `pid` and its living descendants, threads included."""
    user = system = 0
    for member in tree(pid):
        fields = _read(member, "stat").rpartition(")")[2].split()
        if fields:
            user += int(fields[11])
            system += int(fields[12])
    return Cpu(user / _TICKS, system / _TICKS)


def rss(pid: int) -> int:
    """Resident memory in bytes of `pid` and its descendants."""
    total = 0
    for member in tree(pid):
        for line in _read(member, "status").splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


def socket_memory() -> int:
    """Bytes all TCP sockets of this machine hold in the kernel."""
    for line in Path("/proc/net/sockstat").read_text("ascii").splitlines():
        words = line.split()
        if words[0] == "TCP:":
            return int(words[words.index("mem") + 1]) * _PAGE
    return 0


def settled(pid: int, quiet: float = 0.3, limit: float = 10.0) -> None:
    """Wait until the processes have used next to no CPU for `quiet` seconds."""
    end = time.monotonic() + limit
    before = cpu(pid).total
    while time.monotonic() < end:
        time.sleep(quiet)
        now = cpu(pid).total
        if now - before <= 0.05 * quiet + 1 / _TICKS:
            return
        before = now


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            yield from map(int, task.read_text("ascii").split())
        except OSError:  # the thread has just ended
            continue


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text("ascii", errors="replace")
    except OSError:  # the process has just ended
        return ""
