"""Bounds the load of one front door. Pure.

It counts the bodies that are not stored yet and the requests that wait for an answer. So a flood is refused, and
costs no memory.
"""

from dataclasses import dataclass, field

from mesh.errors import QuotaExceededError, UnavailableError


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one front door's process."""

    open_requests: int = 4096  # a few kilobytes each: a handle, and a subscription on the server
    of_one_tenant: int = 2048  # open requests of one tenant, so that it cannot shut out all others
    pending_bytes: int = 64 << 20  # of held bodies: those not in the queue yet, and those of requests with an id


@dataclass
class Admission:
    """The load of one front door."""

    limits: Limits = field(default_factory=Limits)
    _open: dict[str, int] = field(default_factory=dict)  # by tenant; none is kept at 0
    _total: int = 0
    _bytes: int = 0

    @property
    def open(self) -> int:
        """The number of requests that are not answered yet."""
        return self._total

    @property
    def tenants(self) -> int:
        """The number of tenants with open requests."""
        return len(self._open)

    def enter(self, tenant: str, size_bytes: int) -> None:
        """Admit a request; later call `stored` with the same number of bytes, and `leave`, once each.

        Raises:
            QuotaExceededError: this tenant has too many open requests.
            UnavailableError: all tenants together have too many requests or bytes.
        """
        limits, mine = self.limits, self._open.get(tenant, 0)
        if self._total >= limits.open_requests:
            raise UnavailableError(f"this front door holds {self._total} requests, its limit; try again later")
        if mine >= limits.of_one_tenant:
            raise QuotaExceededError(f"tenant {tenant} has {mine} requests open here, the limit; wait for some to end")
        if self._bytes + size_bytes > limits.pending_bytes:
            raise UnavailableError(f"this front door holds {self._bytes} bytes of requests, its limit; try again later")
        self._open[tenant] = mine + 1
        self._total += 1
        self._bytes += size_bytes

    def stored(self, size_bytes: int) -> None:
        """Release the bytes of a body that is no longer held."""
        self._bytes -= size_bytes

    def leave(self, tenant: str) -> None:
        """Count a request of the tenant as answered or given up."""
        left = self._open[tenant] - 1
        if left:
            self._open[tenant] = left
        else:
            del self._open[tenant]
        self._total -= 1
