"""Publishes the events of one attempt to the journal: numbered, coalesced, fenced.

One publish is in flight at a time, because the next one must name the sequence that the server gave the last. Tokens
gather until the answer comes, and leave together. So the first token goes at once, and load makes chunks larger
instead of slower. There is no task and no future per token: the answer's callback sends the next chunk. A window
makes chunks larger still, and bounds their delay. Load sets it (policies/pacing), or the operator does. The first
token and the end never wait for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh.broker.stores.journal import Entry, Journal
from mesh.broker.transport.mapping import read_puback
from mesh.clock import Clock
from mesh.errors import MeshError, SequenceError, TooLargeError
from mesh.job_key import JobKey
from mesh.policies import pacing
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Delta, Started, Usage
from mesh.protocol.timing import RETRY_S
from mesh.signals import Tally, When

log = logging.getLogger("mesh.worker")

PUBLISH_TIMEOUT_S = 2.0
CHECKPOINT_S = 0.5  # between two checkpoints of a job that streams nothing
CHUNK_SHARE = 0.5  # the part of a message's size that gathered output may fill
CHAR_BYTES, TOKEN_BYTES = 6, 12  # the most that a character and a token id take, encoded


class LostError(Exception):
    """The job is lost: its lease ran out, or another process wrote to its journal."""


@dataclass(frozen=True, slots=True)
class Streaming:
    """How output is published."""

    streams: bool = True  # False: readers get the result event alone, and progress is kept every CHECKPOINT_S
    window_s: float = 0.0  # tokens gather at least so long after each publish
    tally: Tally | None = None  # counts each event and each output; None: nothing is counted


@dataclass(frozen=True, slots=True)
class PublisherHooks:
    """The callbacks from a publisher to its runner."""

    is_held: Callable[[], bool]  # asked before every publish
    on_lost: Callable[[], None]  # the job is lost; called once at most
    on_begun: Callable[[], None]  # `started` is in the journal; called once at most
    step: Callable[[str, When], None] | None = None  # called before and after each delta


class Publisher:
    """Publishes one attempt's events. Call all methods on the loop's thread."""

    def __init__(
        self,
        journal: Journal,
        key: JobKey,
        encoding: Encoding,
        streaming: Streaming,
        hooks: PublisherHooks,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._id = key.id
        self._public = journal.subject(key)
        self._subject = self._public if streaming.streams else journal.attempts_subject(key)
        self._streaming = streaming
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None  # the end of a window in which output waits
        self._sent_tokens = 0  # in the delta in flight
        self._encoding: Encoding = encoding
        self._is_held = hooks.is_held
        self._on_lost = hooks.on_lost
        self._on_begun = hooks.on_begun
        self._step = hooks.step
        self._loop = asyncio.get_running_loop()
        self._last = 0  # stream sequence of the subject's last event
        self._attempt = 0
        self._index = 0  # output tokens published or in flight
        self._pieces: deque[tuple[str, Sequence[int]]] = deque()  # output not yet published
        self._budget_bytes = int(journal.max_bytes * CHUNK_SHARE)
        self._finish: tuple[str, Usage] | None = None
        self._in_flight: bytes | None = None
        self._sent_s = 0.0  # when it was sent, loop time
        self._asked_s = 0.0  # the same by a finer clock
        self._rest_s = 0.0  # the window that load makes
        self._gathers = True  # until `wait_idle`
        self._is_lost = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._recovery: asyncio.Task[None] | None = None
        self._is_beginning = False
        self._is_announcing = False
        self._is_last = False
        self.has_grown = False  # output of this attempt is in the journal
        self.is_refused_first = False  # the first publish met a journal that was not empty

    @property
    def last(self) -> int:
        """The fence: the stream sequence of the job's last event."""
        return self._last

    def begin(self, event: Started, last: int) -> None:
        """Publish `started`, expecting the journal to end at `last`; later deltas follow it."""
        self._last = last
        self._attempt = event.attempt
        self._index = event.index
        self._is_beginning = True
        self._send(codec.encode(event, self._encoding))

    def add(self, text: str, token_ids: Sequence[int]) -> None:
        """Publish new output, at once or together with later output."""
        self._pieces.append((text, token_ids))
        if self._in_flight is None and not self._is_lost:
            self._send_or_wait()

    def finish(self, finish_reason: str, usage: Usage, text: str, token_ids: Sequence[int]) -> None:
        """Publish the last output, with its finish reason and usage."""
        if self._streaming.streams:
            self._finish = (finish_reason, usage)
            self.add(text, token_ids)
        else:
            self._pieces.clear()

    async def wait_idle(self, patience_s: float | None = None) -> None:
        """Return when all output is in the journal. Output no longer gathers.

        Raises:
            LostError: the job is lost, or the output was not stored within `patience_s`. Nothing more is published.
        """
        self._gathers = False
        if self._streaming.streams and self._in_flight is None and not self._is_lost:
            self._send_delta()
        if not self._idle.is_set():
            timer = self._loop.call_later(patience_s, self._lose) if patience_s is not None else None
            try:
                await self._idle.wait()
            finally:
                if timer is not None:
                    timer.cancel()
        if self._is_lost:
            raise LostError

    async def fence(self, event: Started) -> None:
        """Publish a closing `started` event after the end of the journal that `follow` set.

        Raises:
            LostError: another process wrote since.
        """
        self._is_announcing = True
        self._send(codec.encode(event, self._encoding))
        await self.wait_idle()

    async def announce(self, body: bytes) -> bool:
        """Publish the encoded Result as the last event; False: another process wrote since, and must announce it."""
        await self._idle.wait()
        if self._is_lost:
            return False
        self._pieces.clear()
        if self._subject != self._public:
            self._subject, self._last = self._public, 0
        self._is_announcing = True
        self._send(body)
        await self._idle.wait()
        return not self._is_lost

    def follow(self, last: int) -> None:
        """Announce after a journal that ends at `last`, without a `started` event of this attempt."""
        self._subject, self._last = self._public, last

    def close(self) -> None:
        """Publish nothing more."""
        self._is_lost = True
        if self._recovery is not None:
            self._recovery.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._idle.set()

    def _send_or_wait(self) -> None:
        """Send output now or at the end of the window; for a job that streams nothing, every CHECKPOINT_S."""
        if not self._streaming.streams:
            if self._loop.time() - self._sent_s >= CHECKPOINT_S:
                self._send_delta()
        elif not (window_s := self._window()):
            self._send_delta()
        elif self._timer is None and self._pieces:
            ends_s = pacing.end_s(self._sent_s, window_s)
            if ends_s <= self._loop.time():
                self._send_delta()
            else:
                self._timer = self._loop.call_at(ends_s, self._window_over)

    def _window(self) -> float:
        """How long output gathers, in seconds from the last publish; 0 for the first token and the end."""
        if self._finish is not None or not self.has_grown or not self._gathers:
            return 0.0
        return max(self._streaming.window_s, self._rest_s)

    def _window_over(self) -> None:
        self._timer = None
        if self._in_flight is None and not self._is_lost:
            self._guarded(self._send_delta)

    def _send_delta(self) -> None:
        if self._finish is None and not any(ids for _, ids in self._pieces):
            return  # text without tokens waits for them
        text, ids = self._gather()
        if not ids and not text:
            return  # an end without new output is in the Result
        reason, usage = (None, None) if self._finish is None or self._pieces else self._finish
        event = Delta(
            id=self._id,
            attempt=self._attempt,
            index=self._index,
            text=text,
            token_ids=ids,
            finish_reason=reason,
            usage=usage,
        )
        self._index += len(ids)
        self._sent_tokens = len(ids)
        if self._step is not None:
            self._step("last" if reason is not None else "delta", "before")
        self._is_last = reason is not None
        self._send(codec.encode(event, self._encoding))

    def _gather(self) -> tuple[str, list[int]]:
        """Take the waiting output that fits one event, oldest first; at least one piece."""
        texts: list[str] = []
        ids: list[int] = []
        room = self._budget_bytes
        while self._pieces and (room > 0 or not ids):
            text, new_ids = self._pieces.popleft()
            texts.append(text)
            ids.extend(new_ids)
            room -= CHAR_BYTES * len(text) + TOKEN_BYTES * len(new_ids)
        return "".join(texts), ids

    def _send(self, body: bytes) -> None:
        self._idle.clear()
        self._in_flight = body
        self._sent_s, self._asked_s = self._loop.time(), self._clock.monotonic_s()
        if not self._is_held():
            self._lose()
            return
        try:
            self._journal.publish(self._subject, body, self._last, self._answered, PUBLISH_TIMEOUT_S)
        except MeshError:
            self._recover()

    def _answered(self, error: MeshError | None, header: bytes, payload: bytes) -> None:
        """Handle the server's answer to the publish in flight: send the next chunk, or find out the outcome."""
        self._guarded(lambda: self._heed(error, payload))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a callback that no task awaits: a fault ends the attempt, which would else wait or leave a gap."""
        try:
            work()
        except Exception:
            log.exception("job %s met a fault on its way to the journal", self._id, extra={"event": "emitter_failed"})
            self._lose()

    def _heed(self, error: MeshError | None, payload: bytes) -> None:
        if self._is_lost or self._in_flight is None:
            return
        if error is not None:
            self._recover()
            return
        try:
            ack = read_puback(payload, self._subject)
        except SequenceError:  # refused, or stored before and repeated: the journal tells which
            self._recover()
        except MeshError:  # JetStream cannot take it just now
            self._recover(RETRY_S)
        else:
            self._landed(ack.seq)

    def _landed(self, sequence: int) -> None:
        self._last = sequence
        self._in_flight = None
        self._rest_s = pacing.window_s(self._clock.monotonic_s() - self._asked_s)
        if self._is_beginning:
            self._is_beginning = False
            self._on_begun()
        elif not self._is_announcing:
            self.has_grown = True
            if self._streaming.tally is not None:
                self._streaming.tally.published(self._sent_tokens)
            if self._step is not None:
                self._step("last" if self._is_last else "delta", "after")
        self._send_or_wait()
        if self._in_flight is None:
            self._idle.set()

    def _recover(self, pause_s: float = 0.0) -> None:
        if self._recovery is None or self._recovery.done():
            self._recovery = self._loop.create_task(self._find_out(pause_s), name=f"mesh-recover-{self._id}")

    async def _find_out(self, pause_s: float) -> None:
        """Read the journal's end until the outcome of the publish in flight is known."""
        await asyncio.sleep(pause_s)
        while not self._is_lost:
            if not self._is_held():
                self._lose()
                return
            try:
                entry = await self._journal.last(self._subject)
            except MeshError:
                await asyncio.sleep(RETRY_S)  # no answer: the lease bounds this loop
                continue
            if self._judge(entry):
                return
            await asyncio.sleep(RETRY_S)

    def _judge(self, entry: Entry | None) -> bool:
        """Act on the journal's last event; False: read it again."""
        assert self._in_flight is not None
        if entry is not None and entry.body == self._in_flight:
            self._landed(entry.sequence)
            return True
        if (entry.sequence if entry is not None else 0) == self._last:
            if not self._is_held():
                self._lose()
                return True
            try:
                self._journal.publish(self._subject, self._in_flight, self._last, self._answered, PUBLISH_TIMEOUT_S)
            except TooLargeError:
                self._lose()
            except MeshError:
                return False
            return True
        self.is_refused_first = self._is_beginning
        self._lose()
        return True

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._idle.set()
            self._on_lost()
