"""Tells whether a message may have waited in its socket while the process was suspended. Pure.

A side task ticks at a steady period. A long gap between two ticks is a suspension. The event loop then runs the
overdue tick before it reads the socket. So the tick that ends the gap proves nothing; only the next one does.
"""


class Suspension:
    """The gaps between the ticks of one process. All times are seconds of one monotonic clock."""

    def __init__(self, limit_s: float) -> None:
        """Tolerates a gap of up to `limit_s`."""
        self._limit_s = limit_s
        self._ticked_s: float | None = None  # None: no tick yet
        self._gap_s = 0.0  # before that tick

    def ticked(self, now_s: float) -> None:
        """Record a tick of the side task."""
        self._gap_s = now_s - self._ticked_s if self._ticked_s is not None else 0.0
        self._ticked_s = now_s

    def is_suspected(self, now_s: float) -> bool:
        """Whether a message read now may have waited unread for longer than `limit_s`."""
        if self._ticked_s is None:
            return False
        return max(self._gap_s, now_s - self._ticked_s) > self._limit_s
