"""How much one front door takes on. Pure.

Everything a requester can make it hold is counted here, so that a flood is refused and costs no memory: the bodies
that are not stored yet, and the requests that wait for their answer.
"""

from dataclasses import dataclass, field

from mesh.errors import QuotaExceededError, UnavailableError


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one process."""

    open_requests: int = 4096  # a few kilobytes each: a handle, and a subscription on the server
    of_one_tenant: int = 2048  # so that one cannot shut out all others
    pending_bytes: int = 64 << 20  # of bodies that are held: those on their way into the queue, and those with an id


@dataclass
class Admission:
    """The books of one front door."""

    limits: Limits = field(default_factory=Limits)
    _open: dict[str, int] = field(default_factory=dict)  # by tenant; none is kept at 0
    _total: int = 0
    _bytes: int = 0

    @property
    def open(self) -> int:
        """Requests that are not answered yet."""
        return self._total

    @property
    def tenants(self) -> int:
        """Tenants that have any."""
        return len(self._open)

    def enter(self, tenant: str, size_bytes: int) -> None:
        """Take a request on; then call `stored` with as many bytes, and `leave`, once each.

        Raises:
            QuotaExceededError: what this tenant asks is too much. UnavailableError: what all ask is.
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
        """So many bytes are held no longer."""
        self._bytes -= size_bytes

    def leave(self, tenant: str) -> None:
        """One is answered, or given up."""
        left = self._open[tenant] - 1
        if left:
            self._open[tenant] = left
        else:
            del self._open[tenant]
        self._total -= 1
