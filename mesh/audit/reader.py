"""Reads the audit: the newest entries, or new ones as they are stored.

The server filters by tenant and event, which are in the subject. This module filters by model and job. Memory is
bounded by one page and the entries to show.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.reads import PageSize, StoredMessage, get_batch, read_pages
from mesh.errors import BrokerError, ProtocolError
from mesh.protocol import codec
from mesh.protocol.messages import AuditEntry
from mesh.protocol.subjects import check_token

PAGE = PageSize(messages=500, bytes=1 << 20)
WINDOW = 4096  # entries to read first, from the end of the stream; each further window is four times as large
LOOK_S = 1.0  # between reads of the stream while no live entry arrives
STORE_S = 0.02  # a published entry is stored a moment after subscribers receive it


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Selects entries. None matches all."""

    tenant: str | None = None
    event: str | None = None
    job: str | None = None
    model: str | None = None
    since_unix_ms: int | None = None  # compared with the server's time of storage
    until_unix_ms: int | None = None


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry as the stream holds it."""

    sequence: int
    unix_ms: int  # when the server stored it
    body: bytes  # as it was written
    entry: AuditEntry


class AuditLog:
    """The selected audit entries of one mesh."""

    def __init__(self, broker: Broker, selection: AuditFilter) -> None:
        """
        Raises:
            InvalidRequestError: a name in `selection` is no subject token.
        """
        self._connection = broker.connection
        self._stream = broker.names.audit_stream
        self._selection = selection
        tokens = {"tenant": selection.tenant, "event": selection.event}
        tenant, event = ("*" if value is None else check_token(name, value) for name, value in tokens.items())
        self._subject = broker.names.audit(tenant, event)

    async def newest(self, limit: int) -> tuple[list[StoredEntry], int]:
        """Returns the newest `limit` entries, oldest first, and the last sequence of the stream.

        Reads from the end of the stream, in growing windows, until it has enough entries.

        Raises:
            TopologyError: there is no audit stream.
            BrokerError: NATS did not answer.
        """
        first, end, last = await self._bounds()
        found: list[StoredEntry] = []
        size = WINDOW
        while end > first and len(found) < limit:
            start = max(first, end - size)
            part: deque[StoredEntry] = deque(maxlen=limit - len(found))
            async for page in self._pages(start - 1, end - 1):
                part.extend(page)
            found = [*part, *found]
            end, size = start, size * 4
        return found, last

    async def pages(self) -> AsyncIterator[list[StoredEntry]]:
        """Yields all stored entries, oldest first, in lists of one or more.

        Raises:
            TopologyError, BrokerError: as `newest`.
        """
        first, end, _ = await self._bounds()
        async for page in self._pages(first - 1, end - 1):
            yield page

    async def follow(self, after: int) -> AsyncGenerator[list[StoredEntry], None]:
        """Yields the entries after stream sequence `after`, as they are stored. Does not end.

        While NATS is away it yields nothing, and then the missed entries.
        """
        heard = asyncio.Event()
        subscription = self._connection.subscribe(self._subject, lambda *_: heard.set())
        try:
            while True:
                heard.clear()
                with contextlib.suppress(BrokerError):
                    async for messages in self._read(after):
                        after = messages[-1].sequence
                        page = self._chosen(messages)
                        if page:
                            yield page
                try:
                    async with asyncio.timeout(LOOK_S):
                        await heard.wait()
                    await asyncio.sleep(STORE_S)
                except TimeoutError:
                    continue
        finally:
            subscription.close()

    async def _bounds(self) -> tuple[int, int, int]:
        """Returns the first selected sequence, the one after the last selected, and the last of the stream."""
        state = await topology.stream_state(self._connection, self._stream)
        first, last = int(state["first_seq"]), int(state["last_seq"])
        end = last + 1
        if self._selection.since_unix_ms is not None:
            first = max(first, await self._place_of(self._selection.since_unix_ms, end))
        if self._selection.until_unix_ms is not None:
            end = await self._place_of(self._selection.until_unix_ms, end)
        return first, end, last

    async def _pages(self, after: int, last: int) -> AsyncIterator[list[StoredEntry]]:
        """Yields the selected entries after sequence `after`, up to and including `last`."""
        async for messages in self._read(after, last):
            page = self._chosen(messages)
            if page:
                yield page

    def _read(self, after: int, last: int | None = None) -> AsyncIterator[list[StoredMessage]]:
        return read_pages(self._connection, self._stream, self._subject, after=after, last=last, size=PAGE)

    async def _place_of(self, unix_ms: int, otherwise: int) -> int:
        """Returns the sequence of the first entry stored at this instant or later; else `otherwise`."""
        start = datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat()
        found = await get_batch(
            self._connection, self._stream, {"start_time": start, "next_by_subj": ">", "batch": 1}, timeout_s=10.0
        )
        return found[0].sequence if found else otherwise

    def _chosen(self, messages: list[StoredMessage]) -> list[StoredEntry]:
        wanted, found = self._selection, []
        for message in messages:
            try:
                entry = codec.decode_audit(message.body)
            except ProtocolError:
                continue  # a client with the permission to publish there can publish any bytes
            if wanted.job in (None, entry.job) and wanted.model in (None, entry.model):
                found.append(StoredEntry(message.sequence, message.unix_ms, message.body, entry))
        return found
