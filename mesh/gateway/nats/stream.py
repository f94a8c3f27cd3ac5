"""Forwards a job's events from the journal up to its Result: each once, in order, without gaps.

Each live event names the one before it. So a gap shows at once, and is filled from the journal. No event is kept, so
a requester costs the same for a stream of any length.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mesh.broker.stores.journal import Entry
from mesh.errors import BrokerError, BrokerTimeoutError
from mesh.protocol.messages import Result
from mesh.protocol.timing import LAG_S

PAGE = 200  # events read at once
PATIENCE_S = 5.0  # for the journal to show an event that was received live
FINISH_S = 30.0  # for the last events of a job that has ended, also while NATS is away

Read = Callable[[int, int], Awaitable[list[Entry]]]  # arguments: read after this sequence, this many at most
Send = Callable[[bytes], None]


class EventStream:
    """One requester's position in a job's journal. `heard` is called for each live event, `finish` once."""

    def __init__(self, send: Send) -> None:
        """`send` may raise a BrokerError; the event is then read again."""
        self._send = send
        self._after = 0  # sequence of the last event that was forwarded
        self._newest = 0  # sequence of the newest event that was received live
        self._is_behind = False
        self._changed = asyncio.Event()
        self.is_over = False  # True: every event before the Result was forwarded

    def missed(self) -> None:
        """Read the journal: live events may be lost, or older than the subscription."""
        self._is_behind = True
        self._changed.set()

    def heard(self, entry: Entry, previous: int) -> None:
        """Forward a live event, or read the journal after a gap. The usual case is one comparison and one publish."""
        self._newest = max(self._newest, entry.sequence)
        if not self._is_behind and previous == self._after:
            try:
                self._pass_on(entry)
            except BrokerError:
                self.missed()
        elif entry.sequence > self._after:
            self.missed()

    async def run(self, read: Read) -> None:
        """Fill gaps until cancelled, or until the Result is reached."""
        while not self.is_over:
            await self._changed.wait()
            self._changed.clear()
            await self._catch_up(read)

    async def finish(self, read: Read) -> None:
        """Forward the remaining events of a job that has ended. The caller then sends its Result.

        Raises:
            BrokerTimeoutError: NATS was away for too long.
        """
        self._is_behind = True
        try:
            async with asyncio.timeout(FINISH_S):
                await self._catch_up(read)
        except TimeoutError:
            raise BrokerTimeoutError(f"its events could not be read within {FINISH_S:g} s") from None
        self.is_over = True  # a journal without the Result has expired, or was never written

    async def _catch_up(self, read: Read) -> None:
        """Read until no live event is missing, or the journal has not shown it for PATIENCE_S."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + PATIENCE_S
        while self._is_behind and not self.is_over:
            before = self._after
            try:
                for entry in await read(before, PAGE):
                    self._pass_on(entry)
            except BrokerError:
                end_s = loop.time() + PATIENCE_S  # NATS is away, which says nothing of the journal
                await asyncio.sleep(LAG_S)
                continue
            if self._after > before:
                end_s = loop.time() + PATIENCE_S
            elif self._after >= self._newest or loop.time() > end_s:
                self._is_behind = False
            else:
                await asyncio.sleep(LAG_S)

    def _pass_on(self, entry: Entry) -> None:
        """Forward the next event.

        Raises:
            BrokerError: it was not sent, and remains the next.
        """
        if isinstance(entry.event, Result):
            self.is_over = True
        elif not self.is_over and (entry.event is not None or entry.later is not None):
            self._send(entry.body)
        self._after = entry.sequence
        if self.is_over:
            self._changed.set()
