"""Tells whether other requesters wait for the same job, at this front door or another.

A requester may ask again with the id of a job, often after its first connection broke. Both requests then wait for
one job, and the front door may notice only later that the first requester is gone.
"""

import contextlib

from mesh.broker.broker import Broker
from mesh.broker.transport.connection import Subscription
from mesh.errors import BrokerTimeoutError, DisconnectedError, UnauthorizedError, UnavailableError
from mesh.job_key import JobKey

ANSWER_S = 1.0


class Waiters:
    """One requester's view of the other requesters of its job, until `close`."""

    def __init__(self, broker: Broker, tenant: str) -> None:
        self._broker = broker
        self._tenant = tenant
        self._joined: Subscription | None = None

    def join(self, job: str) -> None:
        """Answer other front doors that a requester waits here for the job, until `close`."""
        self._joined = self._broker.connection.subscribe(self._subject(job), self._heard)

    def close(self) -> None:
        """Answer no more. Idempotent."""
        if self._joined is not None:
            self._joined.close()
            self._joined = None

    async def shares(self, job: str, sequence: int) -> bool:
        """Whether others wait for the job, or another request than the one at `sequence` began it. Implies `close`.

        Raises:
            BrokerError: NATS did not answer.
        """
        self.close()
        try:
            await self._broker.connection.request(self._subject(job), timeout_s=ANSWER_S)
        except BrokerTimeoutError:
            pass  # a suspended front door: it is connected, and its requester may be waiting
        except (UnavailableError, UnauthorizedError):  # no front door answered, or this one has no right to ask
            return await self._first(job) not in (0, sequence)
        return True

    async def _first(self, job: str) -> int:
        """The sequence of the stored request that is served under this id; 0: not known.

        NATS remembers message ids only for a while, so a second request of the same id may be stored.
        """
        key = JobKey(self._tenant, job)
        begun = await self._broker.journal.begun(key)
        if begun is not None:
            return begun.sequence
        waiting = await self._broker.queue.find(key)
        return waiting.sequence if waiting is not None else 0

    def _subject(self, job: str) -> str:
        return self._broker.names.system("joined", self._tenant, job)

    def _heard(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        to = reply.decode("utf-8", "replace")
        if self._broker.names.may_answer(to):
            with contextlib.suppress(DisconnectedError):
                self._broker.connection.publish(to, b"")
