"""Finds the queued requests that are past their deadline. Pure.

Requests are noted once, in stream order, and come due in order of their deadlines.
"""

import heapq

from mesh.protocol.timing import EXPIRY_GRACE_MS


class Deadlines:
    """The deadlines of requests by stream sequence; about 120 bytes each."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def note(self, sequence: int, deadline_unix_ms: int) -> None:
        """Add a queued request."""
        heapq.heappush(self._heap, (deadline_unix_ms, sequence))

    def due(self, now_unix_ms: int, first: int, most: int) -> list[int]:
        """Up to `most` sequences past their deadline, earliest first. Those before `first` are gone, and left out."""
        found: list[int] = []
        while self._heap and len(found) < most and self._heap[0][0] + EXPIRY_GRACE_MS <= now_unix_ms:
            _, sequence = heapq.heappop(self._heap)
            if sequence >= first:
                found.append(sequence)
        return found
