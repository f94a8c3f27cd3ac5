"""The state of one job's handle: events come in, a reader takes output from it, a wait ends with the Result.

Live events go into a small bounded inbox. A reader that is too slow for it loses nothing, because the handle reads
missed events from the journal. A handle without a reader costs the same few kilobytes. This module is private to the
client: programs use client/job, and other rooms use client/internal.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from mesh.broker.stores.journal import Entry, events_of
from mesh.broker.transport.connection import Subscription
from mesh.client.assembly import Assembly, Restarted
from mesh.errors import BrokerError, DisconnectedError, MeshError, WaitTimeoutError
from mesh.job_key import JobKey
from mesh.protocol.messages import Delta, Event, JobStatus, Result, Started
from mesh.protocol.timing import RETRY_S
from mesh.telemetry.client_tracing import RequestTrace

INBOX_EVENTS = 256  # live events kept for a reader; beyond, it reads the journal
PAGE_EVENTS = 200  # events read from the journal at once: what a slow reader holds at most


class JobBackend(Protocol):
    """The calls from a handle to its client."""

    async def read_journal(self, job: str, after: int, limit: int) -> list[Entry]: ...
    async def load_result(self, result: Result) -> Result: ...
    async def cancel_job(self, job: str, timeout_s: float) -> str: ...
    async def job_status(self, job: str, timeout_s: float) -> JobStatus: ...
    def outlook(self) -> str: ...
    def forget(self, job: "JobHandle") -> None: ...


@dataclass(frozen=True, slots=True)
class HandleStatistics:
    """How a handle stands at one moment."""

    shown_tokens: int  # assembled so far, in order
    inbox_events: int  # heard live, not assembled yet
    ready: int  # assembled, not read yet
    waits: int  # reads and waits for the Result that wait now
    journal_sequence: int  # of the last event read from the journal; 0: none was
    has_reader: bool  # an iteration has begun
    is_complete: bool  # the Result is there, and all output before it was assembled
    bound_in_s: float  # until its waits end by themselves


class JobHandle:
    """See the module's docstring. Made by client/poller."""

    def __init__(self, backend: JobBackend, key: JobKey, bound_s: float, is_new: bool, index: int = 0) -> None:
        """`bound_s`: the longest that any wait on this handle lasts, in seconds from now.

        `index`: output tokens its reader has had already.
        """
        self.key = key
        self.id = key.id
        self.backend = backend
        self.model: str | None = None  # None: not known before the Result
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Event] = deque()
        self._has_missed = not is_new  # events before or between those in the inbox
        self._assembly = Assembly()
        self._from = index
        self._ready: deque[Delta | Restarted] = deque()  # assembled, not read yet: one page at most
        self._reader: object | None = None  # the iteration that reads now
        self._sequence = 0  # of the last event read from the journal
        self._result: Result | None = None
        self._has_reread = False  # the journal was read again because the Result says more
        self._is_complete = False  # the Result is there, and everything before it is in `_ready` or was read
        self._error: MeshError | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._subscription: Subscription | None = None
        self._is_new = is_new
        self._first: Event | None = None  # the first live event, until its request is known
        self._is_told_apart = not is_new
        self._bound_s = bound_s
        self._timer = self._loop.call_later(bound_s, self._bound_reached)

        # Kept by the client.
        self.sequence = 0  # of the stored request, once it is known
        self.is_joined = not is_new  # another submit of this id was first
        self.on_other: Callable[[int], None] | None = None  # told once, if another request of this id is served
        self.is_doubtful = not is_new  # it may not exist, or its Result may have come and gone unheard
        self.heard_s = self._loop.time()  # loop time of the last sign of life
        self.look_s = 0.0  # loop time of the next look at the store
        self.ask_s = 0.0  # loop time of the next inquiry, if it is doubtful then
        self.trace: RequestTrace | None = None  # its spans here, if somebody traces

    def __repr__(self) -> str:
        state = self._result.status if self._result is not None else "open"
        return f"<Job {self.id} {state}, {self._assembly.index} tokens shown, {len(self._inbox)} events waiting>"

    def statistics(self) -> HandleStatistics:
        """How the handle stands now."""
        return HandleStatistics(
            shown_tokens=self._assembly.index,
            inbox_events=len(self._inbox),
            ready=len(self._ready),
            waits=len(self._waiters),
            journal_sequence=self._sequence,
            has_reader=self._reader is not None,
            is_complete=self._is_complete,
            bound_in_s=self._timer.when() - self._loop.time(),
        )

    # Reading and waiting: as client/job documents it.

    async def result(self, timeout: float | None = None) -> Result:
        """The job's Result, whole."""
        if timeout is None:
            return await self._whole()
        try:
            async with asyncio.timeout(timeout):
                return await self._whole()
        except TimeoutError:
            raise WaitTimeoutError(
                f"job {self.id} has no Result after {timeout:g} s; {self.backend.outlook()}"
            ) from None

    async def _whole(self) -> Result:
        self._result = result = await self.backend.load_result(await self.ended())
        return result

    async def ended(self) -> Result:
        """The job's Result as it is stored: one too large for a message names the object in place of its text.

        Raises:
            As `result`, without a `timeout`.
        """
        while self._result is None:
            await self._wait()
        return self._result

    async def deltas(self, timeout: float | None = None) -> AsyncGenerator[Delta | Restarted, None]:
        """The output as it is made, from where the last iteration was left."""
        self._reader = me = object()
        self._wake()  # a reader that waits is told that it is one no more
        while True:
            while self._ready and self._reader is me:
                yield self._ready.popleft()
            if self._reader is not me:
                raise RuntimeError(f"job {self.id} is read elsewhere by this handle; client.job(id) makes another")
            if self._is_complete:
                return
            if timeout is None:
                await self._advance()
                continue
            try:
                async with asyncio.timeout(timeout):
                    while not self._ready and not self._is_complete and self._reader is me:
                        await self._advance()
            except TimeoutError:
                text = f"job {self.id} has shown nothing new for {timeout:g} s"
                raise WaitTimeoutError(f"{text}; {self.backend.outlook()}") from None

    def close(self) -> None:
        """Hear no more of the job, which goes on. Idempotent; done by itself once the Result is there."""
        if self._result is None and self._error is None:
            self._error = DisconnectedError(f"this handle of job {self.id} was closed; `client.job(id)` makes another")
            self._wake()
        self._timer.cancel()
        if self.trace is not None:
            self.trace.closed()
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        self.backend.forget(self)

    # Told by the client.

    @property
    def is_closed(self) -> bool:
        """Nothing more will come of it."""
        return self._result is not None or self._error is not None

    def attach(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def stored(self, sequence: int) -> None:
        """The request is in the queue."""
        self.sequence = sequence
        if self.trace is not None:
            self.trace.stored()
        if self._first is not None:
            self._tell_apart(self._first)

    def bound(self, bound_s: float) -> None:
        """Wait `bound_s` seconds from now at most: another deadline counts than was thought."""
        if not self.is_closed:
            self._timer.cancel()
            self._bound_s = bound_s
            self._timer = self._loop.call_later(bound_s, self._bound_reached)

    def heard(self, event: Event) -> None:
        """A live event; called for each, so it only files it."""
        self.heard_s = self._loop.time()
        self.is_doubtful = False
        if not self._is_told_apart:
            self._tell_apart(event)
        if isinstance(event, Result):
            self.settled(event)
        if len(self._inbox) >= INBOX_EVENTS:
            self._has_missed = True
            self._inbox.clear()  # all of them are in the journal
        else:
            self._inbox.append(event)
        self._wake()

    def settled(self, result: Result) -> None:
        """The Result, live or from the store."""
        if self._result is None:
            self._result, self._error = result, None
            self.model = self.model or result.model
            if self.trace is not None:
                self.trace.ended(result)
            self.close()
            self._wake()

    def missed(self) -> None:
        """The connection was away: live events may be lost."""
        self._has_missed = self.is_doubtful = True
        self._wake()

    def failed(self, error: MeshError) -> None:
        """No wait on this handle can succeed any more."""
        if self._result is None and self._error is None:
            self._error = error
            if self.trace is not None:
                self.trace.failed(error)
            self.close()
            self._wake()

    def _tell_apart(self, event: Event) -> None:
        """Whether what is heard first comes of our request, or of another that was stored under this id before."""
        if not self.sequence:
            self._first = event  # faster than the PubAck
            return
        self._is_told_apart, self._first = True, None
        other, self.on_other = self.on_other, None
        if other is None or isinstance(event, Result):
            return
        if not isinstance(event, Started):
            other(0)  # begun before we listened
        elif event.sequence not in (0, self.sequence):
            other(event.sequence)

    def _bound_reached(self) -> None:
        reason = "though its deadline has passed" if self._is_new else f"after {self._bound_s:g} s"
        text = f"job {self.id} has no Result {reason}; is a worker alive? (`mesh workers`)"
        self.failed(WaitTimeoutError(f"{text}; {self.backend.outlook()}"))

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        """Until something changes, at the latest when the bound is reached."""
        if self._error is not None:
            raise self._error
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        if self._error is not None and self._result is None:
            raise self._error

    # Reading.

    async def _advance(self) -> None:
        """One step towards the next output, which goes into `_ready`. Cancelled, it loses nothing."""
        if self._has_missed:
            if self._error is not None:
                raise self._error
            await self._catch_up()
        elif self._inbox:
            self._take(self._inbox.popleft())
        elif self._result is not None:
            await self._complete()
        else:
            await self._wait()

    def _take(self, event: Event, is_read: bool = False) -> None:
        """A live event, or one read from the journal, where a gap is none: nothing more can be read."""
        if isinstance(event, Result):
            self.settled(event)  # missed events before it are shown first
            return
        for shown in self._assembly.take(event):
            if isinstance(shown, Delta | Restarted):
                self._show(shown)
            elif not is_read:
                self._has_missed = True

    def _show(self, shown: Delta | Restarted) -> None:
        if isinstance(shown, Restarted):
            self._from = 0
        elif shown.index < self._from and shown.index + len(shown.token_ids) <= self._from:
            return  # its reader had it before
        self._ready.append(shown)

    async def _catch_up(self) -> None:
        """The next events from the journal; clears the fault once its end is reached."""
        self._has_missed = False  # from here on, what is lost again counts again
        try:
            async with asyncio.timeout_at(self._timer.when() if self._result is None else None):
                page = await self.backend.read_journal(self.id, self._sequence, PAGE_EVENTS)
        except TimeoutError:
            self._has_missed = True
            self._bound_reached()
            return
        except BrokerError:
            if self._result is None:
                self._has_missed = True
                await asyncio.sleep(RETRY_S)  # NATS is away; the bound ends this
            return
        except BaseException:
            self._has_missed = True
            raise
        if page:
            self._sequence = page[-1].sequence
        self._has_missed = self._has_missed or len(page) == PAGE_EVENTS
        for event in events_of(page):
            self._take(event, is_read=True)

    async def _complete(self) -> None:
        """The Result is there: show what its reader has not seen."""
        assert self._result is not None
        self._result = result = await self.backend.load_result(self._result)
        if result.text != self._assembly.text and not self._has_reread:
            self._has_missed = self._has_reread = True
            return
        if self._assembly.index < self._from and result.embeddings is None:  # the events it had are gone
            whole = Delta(id=self.id, attempt=result.attempts, index=0, text=result.text, token_ids=[])
            self._ready.extend((Restarted(result.attempts), whole))
        else:
            for shown in self._assembly.rest_of(result):
                self._show(shown)
        self._is_complete = True
