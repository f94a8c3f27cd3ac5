"""Whether a delivery is still this worker's. Pure.

JetStream honours an ack, a NAK or an extension from anybody at any time, and confirms a heartbeat of a lease
long lost. So the worker keeps its own clock: a lease holds for `ack_wait` after the last extension was *sent*
that the server confirmed, and before every effect the worker asks `is_held`. A process that was suspended
finds its leases expired before it does anything else.
"""

from dataclasses import dataclass

from mesh.protocol.timing import LEASE_GUARD


@dataclass(slots=True)
class Lease:
    """One delivery's lease. All times are seconds of `Clock.uptime_s`, in which a sleeping machine counts."""

    ack_wait_s: float
    confirmed_s: float  # when the last confirmed extension was sent; at first, when the delivery was received
    is_lost: bool = False  # given up for another reason: a refused publish, a closed connection

    def is_held(self, now_s: float) -> bool:
        """Whether an effect that starts now is surely within the lease."""
        return not self.is_lost and now_s < self.confirmed_s + self.ack_wait_s * (1 - LEASE_GUARD)

    def extended(self, sent_s: float) -> None:
        """The server confirmed an extension sent at `sent_s`."""
        self.confirmed_s = max(self.confirmed_s, sent_s)
