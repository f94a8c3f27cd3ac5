"""The request queue: submit a job, find it, remove it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec

from mesh.broker.stores.delivery import StoredRequest, read_stored
from mesh.broker.stores.reads import PAGE, StoredMessage, get_batch, get_from_leader, read_pages
from mesh.broker.transport.mapping import PubAck, read_api, read_puback
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import BrokerError, UnavailableError
from mesh.job_key import JobKey
from mesh.protocol import headers, version
from mesh.protocol.codec import Encoding
from mesh.protocol.subjects import RequestAddress


class RequestQueue:
    """The request stream of one mesh."""

    def __init__(self, link: MeshLink) -> None:
        self._connection = link.connection
        self._names = link.names
        self._stream = link.names.requests_stream
        self._everything = f"{link.names.ns}.req.>"

    async def submit(
        self,
        subject: str,
        body: bytes,
        message_id: str,
        encoding: Encoding,
        traceparent: str,
        timeout_s: float,
    ) -> PubAck:
        """Store a request, which is a job from then on. `message_id` collapses repeated submits.

        Raises:
            QuotaExceededError: the queue is full.
            TooLargeError: more than a message holds.
            UnavailableError: no stream takes this subject.
            DisconnectedError, BrokerTimeoutError: unknown whether it was stored; submit again with the same id.
        """
        pairs: list[tuple[str, str | int]] = [("Nats-Msg-Id", message_id)]
        if encoding == "msgpack":
            pairs.append(("Content-Type", headers.MSGPACK))
        if traceparent:
            pairs.append(("traceparent", traceparent))
        try:
            header = headers.block(*pairs, rest=version.OWN_LINE)
            _, payload = await self._connection.request(subject, body, header, timeout_s)
        except UnavailableError:
            raise UnavailableError(
                f"no stream takes {subject}: there is no mesh on this NATS (`mesh init --nats URL --apply`), "
                "or its stream has no leader just now"
            ) from None
        return read_puback(payload, f"submit to {subject}")

    async def get(self, sequence: int) -> StoredRequest | None:
        """A stored request by its stream sequence, from the leader; None if it is gone.

        Raises:
            BrokerError: NATS did not answer.
        """
        message = await get_from_leader(self._connection, self._stream, {"seq": sequence})
        return self._read(message) if message is not None else None

    async def find(self, key: JobKey) -> StoredRequest | None:
        """The stored request of a job, None if it is not in the queue. Reads the tenant's queue: rare use only.

        Raises:
            BrokerError: NATS did not answer.
        """
        if key.id[:1] == "s" and key.id[1:].isdigit():
            found = await self.get(int(key.id[1:]))
            if found and found.job == key.id and found.address and found.address.tenant == key.tenant:
                return found
        at, after = RequestAddress("*", "*", key.tenant, "*"), 0
        while True:
            async for page in self.pages(after, at):
                for stored in page:
                    if stored.job == key.id:
                        return stored
                after = page[-1].sequence
            newer = await self._next(after, self._subject(at))  # a replica may lag: its leader knows
            if newer is None:
                return None
            stored = self._read(newer)
            if stored.job == key.id:
                return stored
            after = stored.sequence

    async def pages(
        self, after: int = 0, at: RequestAddress | None = None, *, last: int | None = None, most: int = PAGE.messages
    ) -> AsyncIterator[list[StoredRequest]]:
        """The requests after stream sequence `after`, in stream order, in lists of one to `most`.

        May lag behind the newest by a moment on a replicated stream: `has_after` asks the leader.

        Args:
            at: which; "*" for any. None: all of them, those outside the protocol's subjects too.
            last: stream sequence; later requests are not read.

        Raises:
            BrokerError: NATS did not answer.
        """
        size = replace(PAGE, messages=min(most, PAGE.messages))
        subject = self._everything if at is None else self._subject(at)
        async for page in read_pages(self._connection, self._stream, subject, after=after, last=last, size=size):
            yield [self._read(message) for message in page]

    async def has_after(self, after: int) -> bool:
        """Whether there is a request after stream sequence `after`, as the leader knows.

        Raises:
            BrokerError: NATS did not answer.
        """
        return await self._next(after, self._everything) is not None

    async def count_after(self, after: int, at: RequestAddress) -> int:
        """How many requests at `at` ("*" for any) there are after stream sequence `after`.

        Raises:
            BrokerError: NATS did not answer.
        """
        ask = {"seq": after + 1, "next_by_subj": self._subject(at), "batch": 1}
        found = await get_batch(self._connection, self._stream, ask)
        if not found:
            return 0
        pending = headers.parse(found[0].header).get("Nats-Num-Pending", "")
        if not pending.isdigit():
            raise BrokerError("a direct get answered without Nats-Num-Pending")
        return 1 + int(pending)

    async def subjects(self) -> list[str]:
        """Every subject that has requests.

        Raises:
            BrokerError: NATS did not answer.
        """
        body = msgspec.json.encode({"subjects_filter": self._everything})
        _, payload = await self._connection.request(f"$JS.API.STREAM.INFO.{self._stream}", body, timeout_s=10.0)
        return list(read_api(payload, "queued subjects")["state"].get("subjects") or ())

    async def depth(self, tenant: str) -> int:
        """How many jobs of a tenant wait or run.

        Raises:
            BrokerError: NATS did not answer.
        """
        body = msgspec.json.encode({"subjects_filter": self._names.request("*", "*", tenant, "*")})
        _, payload = await self._connection.request(f"$JS.API.STREAM.INFO.{self._stream}", body)
        return sum((read_api(payload, f"depth of {tenant}")["state"].get("subjects") or {}).values())

    async def oldest(self, subject: str) -> int | None:
        """The stream sequence of a subject's oldest request, None if it has none.

        Raises:
            BrokerError: NATS did not answer.
        """
        message = await self._next(0, subject)
        return message.sequence if message is not None else None

    async def remove(self, sequence: int) -> bool:
        """Take a request out of the queue; whether it was there. Its Result must exist already.

        Raises:
            BrokerError: NATS did not answer.
        """
        subject = f"$JS.API.STREAM.MSG.DELETE.{self._stream}"
        body = msgspec.json.encode({"seq": sequence, "no_erase": True})
        _, payload = await self._connection.request(subject, body)
        answer: dict[str, Any] = msgspec.json.decode(payload)
        return not answer.get("error")

    async def _next(self, after: int, subject: str) -> StoredMessage | None:
        """The first message on `subject` after stream sequence `after`, from the leader."""
        ask = {"seq": after + 1, "next_by_subj": subject}
        return await get_from_leader(self._connection, self._stream, ask)

    def _subject(self, at: RequestAddress) -> str:
        return self._names.request(at.model, at.tier, at.tenant, at.lane)

    def _read(self, message: StoredMessage) -> StoredRequest:
        m = message
        return read_stored(self._names, m.subject, m.sequence, m.body, m.header, m.unix_ms)
