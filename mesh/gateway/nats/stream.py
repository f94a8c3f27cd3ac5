"""Passes a job's events on as they stand in the journal, up to its Result: each once, in order, none left out.

Each live event names the one before it, so a gap shows at once, and is filled from the journal. Nothing is kept
meanwhile: a requester costs the same however long its stream is. Used by gateway/nats/service.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mesh.broker.stores.journal import Entry
from mesh.errors import BrokerError, BrokerTimeoutError
from mesh.protocol.messages import Result
from mesh.protocol.timing import LAG_S

PAGE = 200  # events read at once
PATIENCE_S = 5.0  # for the journal to show what was heard
FINISH_S = 30.0  # for the last events of a job that has ended, also while NATS is away

Read = Callable[[int, int], Awaitable[list[Entry]]]  # after which sequence, and how many at most
Send = Callable[[bytes], None]


class EventStream:
    """One requester's way through a job's journal. `heard` is called for each live event, `finish` once."""

    def __init__(self, send: Send) -> None:
        """`send` may raise a BrokerError; the event is then read again."""
        self._send = send
        self._after = 0  # sequence of the last event passed on
        self._newest = 0  # of those heard and not passed on
        self._is_behind = False
        self._changed = asyncio.Event()
        self.is_over = False  # all before the Result was passed on

    def missed(self) -> None:
        """Live events may be lost, or were there before we listened."""
        self._is_behind = True
        self._changed.set()

    def heard(self, entry: Entry, previous: int) -> None:
        """A live event; called for each, so the usual case is one comparison and one publish."""
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
        """The job has ended: pass on what is left. Its Result is then the caller's to send.

        Raises:
            BrokerTimeoutError: NATS was away for too long.
        """
        self._is_behind = True
        try:
            async with asyncio.timeout(FINISH_S):
                await self._catch_up(read)
        except TimeoutError:
            raise BrokerTimeoutError(f"its events could not be read within {FINISH_S:g} s") from None
        self.is_over = True  # if the journal does not show it, its events are kept no longer, or were never written

    async def _catch_up(self, read: Read) -> None:
        """Read on until nothing that was heard is missing, or the journal has not shown it for PATIENCE_S."""
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
        """The next event.

        Raises:
            BrokerError: it was not sent, and still is the next.
        """
        if isinstance(entry.event, Result):
            self.is_over = True
        elif not self.is_over and (entry.event is not None or entry.later is not None):
            self._send(entry.body)
        self._after = entry.sequence
        if self.is_over:
            self._changed.set()
