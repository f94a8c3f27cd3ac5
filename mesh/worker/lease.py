"""Tells whether a delivery still belongs to this worker. Pure.

JetStream honours an ack, a NAK or an extension from any client at any time, even for a lease lost long ago. So the
worker measures the lease itself: it lasts `ack_wait` from the *sending* of the last extension that the server
confirmed. The worker checks `is_held` before every action. A process that was suspended therefore finds its leases
expired before it acts.
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
        """Whether an action that starts now reaches the server within the lease."""
        return not self.is_lost and now_s < self.confirmed_s + self.ack_wait_s * (1 - LEASE_GUARD)

    def extended(self, sent_s: float) -> None:
        """Record that the server confirmed an extension sent at `sent_s`."""
        self.confirmed_s = max(self.confirmed_s, sent_s)
