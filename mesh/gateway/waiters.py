"""Whether others wait for a job too, at this front door or another.

Used by gateway/session, for jobs whose id was given.
Whoever asks again with the id of a job waits for the same job, often after its first connection broke; and that the
first requester went away is noticed only then.
"""

import contextlib

from mesh.broker.broker import Broker
from mesh.broker.transport.connection import Subscription
from mesh.errors import BrokerTimeoutError, DisconnectedError, UnauthorizedError, UnavailableError
from mesh.job_key import JobKey

ANSWER_S = 1.0


class Waiters:
    """What one requester knows of the others, until `close`."""

    def __init__(self, broker: Broker, tenant: str) -> None:
        self._broker = broker
        self._tenant = tenant
        self._joined: Subscription | None = None

    def join(self, job: str) -> None:
        """Somebody waits here for a job: say so to whoever asks, until `close`."""
        self._joined = self._broker.connection.subscribe(self._subject(job), self._heard)

    def close(self) -> None:
        """Nobody waits here any more. Idempotent."""
        if self._joined is not None:
            self._joined.close()
            self._joined = None

    async def shares(self, job: str, sequence: int) -> bool:
        """Whether a job is not to be ended by whoever stored the request `sequence`: others wait for it, or began it.

        Raises:
            BrokerError: NATS did not answer.
        """
        self.close()
        try:
            await self._broker.connection.request(self._subject(job), timeout_s=ANSWER_S)
        except BrokerTimeoutError:
            pass  # a front door that is suspended: it is connected, and its requester may be
        except (UnavailableError, UnauthorizedError):  # not every front door may ask
            return await self._first(job) not in (0, sequence)
        return True

    async def _first(self, job: str) -> int:
        """The stored request that is served under this id; 0: that cannot be told.

        NATS remembers message ids for a while only, so a second request of the same id may have been stored.
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
