"""The calls that wait for an answer; they share one inbox, one table and one timer.

Every call is answered exactly once: by the peer, by its timeout, or by `fail`.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.errors import BrokerTimeoutError, MeshError, UnavailableError
from mesh.protocol import headers

log = logging.getLogger("mesh.broker")

SWEEP_S = 0.1  # resolution of timeouts; one timer for all calls costs less than one for each

# error (None if answered), header block, payload. Called once, on the loop, never inside `call` itself.
OnReply = Callable[[MeshError | None, bytes, bytes], None]
IsLast = Callable[[bytes, bytes], bool]  # header block, payload: whether no more answers come


@dataclass(slots=True)
class _Call:
    subject: str
    on_reply: OnReply
    expires: float  # loop time
    many: bool  # several answers may come, so the call stays in the table after one


class Calls:
    """The table of one connection. `prefix` is the inbox's subject with a final dot."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._skip = len(prefix)
        self._table: dict[bytes, _Call] = {}
        self._next = 0
        self._loop = asyncio.get_running_loop()
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._table)

    @property
    def wildcard(self) -> str:
        """The subject to subscribe to, with `heard` as the handler."""
        return self._prefix + "*"

    def enter(self, subject: str, on_reply: OnReply, timeout_s: float, many: bool = False) -> str:
        """Add a call that expects an answer, or several if `many`; return the answer's subject."""
        self._next += 1
        token = b"%x" % self._next
        self._table[token] = _Call(subject, on_reply, self._loop.time() + timeout_s, many)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        return self._prefix + token.decode()

    def leave(self, inbox: str) -> None:
        """Remove a call; its `on_reply` is not called."""
        self._table.pop(inbox[self._skip :].encode(), None)

    def heard(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        """Handle a message for the inbox."""
        token = subject[self._skip :]
        call = self._table.get(token)
        if call is None:
            return  # the call was answered already, or timed out
        if not call.many:
            del self._table[token]
        if header and not payload and headers.status(header) == 503:
            call.on_reply(UnavailableError(f"nobody answers on {call.subject}"), b"", b"")
        else:
            call.on_reply(None, header, payload)

    def fail(self, error: Callable[[str], MeshError], only: Callable[[str], bool] = lambda subject: True) -> None:
        """End the calls on the subjects that `only` selects; `error` makes each one's error from its subject."""
        self._end([token for token, call in self._table.items() if only(call.subject)], error)

    def close(self) -> None:
        """Stop the timer."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        late = [token for token, call in self._table.items() if call.expires <= now]
        self._end(late, lambda subject: BrokerTimeoutError(f"no answer from {subject} in time"))
        if self._table:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _end(self, tokens: list[bytes], error: Callable[[str], MeshError]) -> None:
        for token in tokens:
            call = self._table.pop(token, None)
            if call is None:
                continue
            try:
                call.on_reply(error(call.subject), b"", b"")
            except Exception:  # one caller's bug must not keep the others waiting
                log.exception("a reply handler failed", extra={"event": "handler_failed"})


@dataclass(slots=True)
class Collector:
    """Collects the answers of one `collect`."""

    done: asyncio.Future[None]
    is_last: IsLast
    found: list[tuple[bytes, bytes]] = field(default_factory=list)

    def on_reply(self, error: MeshError | None, header: bytes, payload: bytes) -> None:
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
            return
        self.found.append((header, payload))
        if self.is_last(header, payload):
            self.done.set_result(None)
