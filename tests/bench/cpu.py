"""CPU time of processes that run: of one of ours by its id, children not counted."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, that the process has used so far; nan where nobody tells."""
    if pid == os.getpid():
        return time.process_time()
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _by_psutil(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime, see proc(5)


def _by_psutil(pid: int) -> float:
    try:
        import psutil  # type: ignore[import-untyped]  # its stubs are not worth a dependency
    except ImportError:
        return float("nan")
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return float("nan")
    return float(times.user + times.system)


class Meter:
    """CPU seconds spent from its making on, by the name of a process, or of several together."""

    def __init__(self, pids: Mapping[str, int | tuple[int, ...]]) -> None:
        self._pids = {name: pid if isinstance(pid, tuple) else (pid,) for name, pid in pids.items()}
        self._before = self._read()

    def spent_s(self) -> dict[str, float]:
        """By name."""
        now = self._read()
        return {name: now[name] - self._before[name] for name in self._pids}

    def _read(self) -> dict[str, float]:
        return {name: sum(map(cpu_s, pids)) for name, pids in self._pids.items()}
