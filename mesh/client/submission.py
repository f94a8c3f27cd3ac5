"""Submits a request to the queue, and compares it with an earlier request of the same id.

The hot path is one publish and its PubAck. The two requests are compared only if the PubAck says `duplicate`, or the
job's events name another stored request. One id is one request: a second one with other contents is refused, and never
answered with the first one's output.
"""

import asyncio

import msgspec

from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import StoredRequest
from mesh.broker.transport.mapping import PubAck
from mesh.client.requests import difference, is_same
from mesh.errors import BrokerTimeoutError, DisconnectedError, InvalidRequestError, UnavailableError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Result
from mesh.protocol.timing import RETRY_S

TRY_S = 2.0  # one try; repeated with the same id, which cannot run twice


class SentRequest(msgspec.Struct, frozen=True):
    """One request as it was sent."""

    job: str
    model: str
    body: bytes
    encoding: Encoding

    def check_same(self, stored: StoredRequest) -> None:
        """Refuse a stored request of the same id that asks for something else.

        Raises:
            InvalidRequestError: with field `id`.
        """
        model = stored.address.model if stored.address is not None else None
        if stored.body == self.body and model == self.model:
            return
        ours = codec.decode_request(self.body, self.encoding)  # as it arrives, not as it was built
        found = "model" if model != self.model else difference(ours, stored.request)
        if found is not None:
            raise self._conflict(found)

    def check_result(self, result: Result) -> None:
        """The same by the first one's Result, once its request is gone: as far as that tells.

        Raises:
            InvalidRequestError: with field `id`.
        """
        if result.model != self.model:
            raise self._conflict("model")
        ours = codec.decode_request(self.body, self.encoding)
        if not is_same(ours.metadata, result.metadata):
            raise self._conflict("metadata")

    def _conflict(self, field: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"job {self.job} was submitted before with another {field}, and goes on as it was; "
            f"submit this under a new id, or read that one with client.job({self.job!r})",
            field="id",
        )


class Submission:
    """Stores the requests of one tenant, and compares those of one id."""

    def __init__(self, broker: Broker, tenant: str) -> None:
        self._tenant = tenant
        self._queue = broker.queue
        self._journal = broker.journal
        self._loop = asyncio.get_running_loop()

    async def store(
        self, subject: str, asked: SentRequest, traceparent: str, deadline_s: float, mark: str = ""
    ) -> PubAck:
        """Publish until it is surely stored. `deadline_s`: loop time.

        NATS remembers the message ids of a whole stream, from all its clients. `mark` makes the message id unique for
        a job whose own id another client used. The workers then ensure that the job runs once.

        Raises:
            QuotaExceededError, TooLargeError, UnauthorizedError: it was refused.
            BrokerError: not stored by then, as far as is known; the message says how to go on.
        """
        message_id = f"{self._tenant}.{asked.job}{mark}"
        while True:
            left_s = max(RETRY_S, min(TRY_S, deadline_s - self._loop.time()))
            try:
                return await self._queue.submit(subject, asked.body, message_id, asked.encoding, traceparent, left_s)
            except (BrokerTimeoutError, DisconnectedError, UnavailableError) as error:
                if self._loop.time() + RETRY_S >= deadline_s:
                    text = f"{error}; whether job {asked.job} was stored is not known: submit it again with this id"
                    raise type(error)(f"{text}, it runs once", err_code=error.err_code) from error
            await asyncio.sleep(RETRY_S)  # the outcome is unknown, or NATS is away; the id makes it safe

    def is_foreign(self, stored: StoredRequest, job: str) -> bool:
        """Whether a request that NATS takes for ours, by its message id, is another job's."""
        return stored.job != job or stored.address is None or stored.address.tenant != self._tenant

    async def first_of(self, job: str, sequence: int) -> StoredRequest | None:
        """The stored request that is served under this id; None: it left the queue.

        Args:
            sequence: of a request of that id; 0: only the job's events tell.

        Raises:
            MeshError: NATS did not answer.
        """
        stored = await self._queue.get(sequence) if sequence else None
        if stored is not None:
            return stored
        begun = await self._journal.begun(JobKey(self._tenant, job))
        if begun is None or begun.sequence in (0, sequence):
            return None
        return await self._queue.get(begun.sequence)
