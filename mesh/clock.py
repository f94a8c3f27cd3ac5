"""The only reader of clocks. Each part of the mesh that needs time gets a `Clock`.

A `Clock` has three times. Monotonic seconds measure durations. The server's time decides deadlines, ages and the
instants in events, because the server stamps every request and machines' clocks disagree. This machine's wall time is
for display, and `mesh doctor` compares it with the server's.
"""

import sys
import time
from collections.abc import Callable

# A quartz oscillator drifts by less than 100 ppm, so a measurement loses that much precision each second.
DRIFT_MS_PER_S = 0.1


def _uptime_s() -> float:
    """Return seconds that include the machine's sleep, where the system counts it."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Clock:
    """Monotonic seconds, the server's time, and this machine's wall time.

    Before the first `observe`, the server's time is this machine's wall time. Afterwards it is the last good
    measurement plus the time that passed since, and a change of the wall time does not affect it.
    """

    __slots__ = ("_error_ms", "_measured_s", "_monotonic_s", "_server_ms", "_uptime_s", "_wall_ns")

    def __init__(
        self,
        monotonic_s: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        uptime_s: Callable[[], float] = _uptime_s,
    ) -> None:
        """Read the three given sources; a simulation passes its own."""
        self._monotonic_s = monotonic_s
        self._wall_ns = wall_ns
        self._uptime_s = uptime_s
        self._server_ms: float | None = None  # the server's time at `_measured_s`; None: never measured
        self._measured_s = 0.0
        self._error_ms = 0.0

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary instant; never decreases. Only differences are meaningful."""
        return self._monotonic_s()

    def uptime_s(self) -> float:
        """Monotonic seconds that include the machine's sleep; the time base of `observe`."""
        return self._uptime_s()

    def wall_ns(self) -> int:
        """Unix nanoseconds by this machine's clock."""
        return self._wall_ns()

    def wall_unix_ms(self) -> int:
        """Unix milliseconds by this machine's clock."""
        return self._wall_ns() // 1_000_000

    def server_unix_ms(self) -> int:
        """Unix milliseconds by the server's clock; by this machine's clock until `observe` was called."""
        if self._server_ms is None:
            return self._wall_ns() // 1_000_000
        return int(self._server_ms + (self._uptime_s() - self._measured_s) * 1000)

    @property
    def is_measured(self) -> bool:
        """Whether the server's time was ever measured."""
        return self._server_ms is not None

    def observe(self, server_unix_ms: float, sent_s: float, heard_s: float) -> None:
        """Take a measurement: the server reported `server_unix_ms` between two readings of `uptime_s`.

        A measurement is kept if it is at least as precise as the current estimate, or contradicts it. It contradicts
        it, for example, after another server with another clock became the leader.
        """
        error_ms, measured_s = (heard_s - sent_s) * 500, (heard_s + sent_s) / 2
        if self._server_ms is not None:
            expected_ms = self._server_ms + (measured_s - self._measured_s) * 1000
            known_ms = self._error_ms + DRIFT_MS_PER_S * max(0.0, measured_s - self._measured_s)
            if error_ms > known_ms and abs(server_unix_ms - expected_ms) <= error_ms + known_ms:
                return
        self._server_ms, self._measured_s, self._error_ms = server_unix_ms, measured_s, error_ms


SYSTEM = Clock()  # this machine's clock, for code without a connection to a server
