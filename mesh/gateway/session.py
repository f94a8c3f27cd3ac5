"""One request at the front door: submitted as a job, followed, answered."""

import asyncio
import contextlib
from collections.abc import Callable

from mesh.broker.stores.journal import Entry
from mesh.broker.transport.service import ServiceRequest
from mesh.client.internal import ClientCore, JobHandle
from mesh.errors import MeshError
from mesh.gateway.nats.requester import Requester
from mesh.gateway.nats.stream import EventStream
from mesh.gateway.waiters import Waiters
from mesh.protocol import codec, headers, version
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Request, Result
from mesh.protocol.validate import validate

SUBMIT_S = 5.0  # short, because a requester waits and can try again
CANCEL_S = 10.0  # for the job of a requester that went away
_MSGPACK = headers.block(("Content-Type", headers.MSGPACK))


class Session:
    """One request at the front door. Call `submit`, then `answer`, and in any case `close`."""

    def __init__(
        self, request: ServiceRequest, model: str, client_of: Callable[[Encoding], ClientCore], waiters: Waiters
    ) -> None:
        """Read the request, then get a client from `client_of`, which the caller must release.

        Raises:
            InvalidRequestError, UnsupportedError, TooLargeError: the request cannot be served.
        """
        fields = {key.lower(): value for key, value in headers.parse(request.header).items()}
        self.encoding = codec.encoding_of(headers.media_type(fields.get("content-type", "")))
        version.check_request(fields.get("mesh-protocol", ""))
        asked, self.manner = codec.decode_rpc(request.payload, self.encoding)
        validate(asked)
        self._asked: Request | None = asked
        self.is_named = asked.id is not None  # a request with an id is held until its answer: the id may be in use
        self.job: JobHandle | None = None
        self._request = request
        self._model = model
        self._waiters = waiters
        self._traceparent = fields.get("traceparent", "")[:128]
        self._header = _MSGPACK if self.encoding == "msgpack" else b""
        self._follower = EventStream(self._pass_on)
        self._requester: Requester | None = None
        self._client = client_of(self.encoding)

    @property
    def asked(self) -> Request:
        """The request, until it is submitted."""
        assert self._asked is not None
        return self._asked

    async def submit(self) -> None:
        """Put the request into the queue; from then on it is a job.

        Raises:
            MeshError: as `ClientCore.submit`.
        """
        self.job = await self._client.submit(
            self._model,
            self.asked,
            tier=self.manner.tier,
            traceparent=self._traceparent,
            timeout_s=SUBMIT_S,
            on_entry=self._follower.heard if self.manner.stream else None,
        )
        self._asked = None  # the queue has it
        if self.is_named:
            self._follower.missed()  # it may have been submitted before, and have events already
            self._waiters.join(self.job.id)

    async def answer(self, on_gone: Callable[[], None]) -> Result:
        """Wait for the job's end, and send its Result; `on_gone` is called if the requester goes away.

        Raises:
            MeshError: there is no Result: the job is no longer known, or NATS was away for too long.
        """
        assert self.job is not None
        self._requester = Requester(self._request.connection, self._request.reply, on_gone)
        result = await (self._followed() if self.manner.stream else self.job.ended())
        await self._request.respond_last(codec.encode(result, self.encoding), self._header)
        if self.manner.stream:
            await self._request.respond_last(b"", self._header)
        return result

    async def _followed(self) -> Result:
        """Send the job's events until it has ended; its Result."""
        assert self.job is not None
        following = asyncio.create_task(self._follower.run(self._read), name=f"mesh-follow-{self.job.id}")
        try:
            result = await self.job.ended()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await self._follower.finish(self._read)
        return result

    def missed(self) -> None:
        """The connection was interrupted: events may be lost."""
        self._follower.missed()

    async def abandon(self) -> None:
        """Cancel the job, unless its request says `finish`, or other requesters wait for it."""
        if self.job is None or self.job.is_joined or self.manner.on_disconnect == "finish":
            return
        with contextlib.suppress(MeshError):  # without a cancel, it ends at its deadline
            if self.is_named and await self._waiters.shares(self.job.id, self.job.sequence):
                return
            await self._client.cancel_job(self.job.id, CANCEL_S)

    def close(self) -> None:
        """Stop following the job and the requester. Idempotent."""
        self._waiters.close()
        if self._requester is not None:
            self._requester.close()
        if self.job is not None:
            self.job.close()

    def _pass_on(self, body: bytes) -> None:
        if self._requester is None:  # heard before the submit was acknowledged
            self._request.respond(body, self._header)
        else:
            self._requester.send(body, self._header)

    async def _read(self, after: int, limit: int) -> list[Entry]:
        assert self.job is not None
        return await self._client.read_journal(self.job.id, after, limit)
