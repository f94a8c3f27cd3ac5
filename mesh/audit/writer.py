"""Writes the audit: what happened to every job of this process, off the way of the jobs.

Whoever tells something only leaves it here, and cannot be held up or fail by it. A moment later all that was left is
published to the audit's stream, and the last of it awaited: so it was stored, or it is published again, under ids by
which the stream tells repeats. While NATS is away what is told is kept, up to a bound; what is beyond is counted, and
the audit says that it has a gap. Hosted by workers, front doors and `mesh reconcile`.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator

from msgspec.structs import replace

from mesh.audit.entries import entry_of, message_id, refusal_of, signal_of, tenant_token
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.transport.mapping import read_puback
from mesh.errors import MeshError, UnauthorizedError
from mesh.job_key import JobRef
from mesh.protocol import codec, headers
from mesh.protocol.messages import AuditEntry
from mesh.protocol.subjects import Names
from mesh.signals import (
    AttemptStarted,
    JobBuried,
    JobDelivered,
    JobEnded,
    JobReturned,
    Observer,
    RequestRefused,
    Signal,
    ignore,
)

log = logging.getLogger("mesh.audit")

MAX_WAITING = 20_000  # entries not written yet, some 300 bytes each; an hour of a busy worker's without NATS
MAX_REFUSALS = 1_000  # kinds of refusals in one moment
# How long entries are gathered before they are written, with one answer awaited for all of them. Who is killed takes
# with it what it told in that time.
GATHER_S = 0.1
BATCH = 32  # entries published in one turn of the loop, so that no token waits for them
RETRY_S = 0.5
CLOSE_S = 1.0  # for what is left to be written at the end
_TOLD = JobDelivered | AttemptStarted | JobEnded | JobBuried | JobReturned | RequestRefused

Message = tuple[str, bytes, bytes]  # subject, body, header


class Auditor:
    """The audit of one process, until `close`. `observe` is an Observer; nothing here raises but for `close`."""

    def __init__(self, broker: Broker, who: str, observer: Observer = ignore) -> None:
        """`who` tells it: the name of a worker, or of another process.

        `observer` is told of what no worker tells: requests at the front door, and jobs that were ended unrun.
        """
        self._clock = broker.clock
        self._observer = observer
        self._broker = broker
        self._who = who
        self._is_on = True
        self._waiting: deque[tuple[Signal | AuditEntry, int]] = deque()
        self._refusals: dict[AuditEntry, int] = {}
        self._batch: list[Message] = []  # on its way
        self._mark, self._count = secrets.token_hex(6), 0
        self._missing = 0  # entries that found no room, and are not told of yet
        self.written = 0  # entries
        self.dropped = 0
        self._told = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="mesh-audit")

    @property
    def is_on(self) -> bool:
        """Whether what is told is kept; False once the mesh is known to want none, and after `close`."""
        return self._is_on

    def observe(self, signal: Signal) -> None:
        """Something happened in the worker. Called for each signal, so it is only kept."""
        if isinstance(signal, _TOLD):
            self.tell(signal)

    def tell(self, what: Signal | AuditEntry) -> None:
        """Have it written a moment later."""
        if isinstance(what, AuditEntry):
            self._show(what)
        if not self._is_on:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._drop()
            return
        self._waiting.append((what, self._clock.server_unix_ms()))
        if not self._told.is_set():
            self._told.set()

    def accepted(self, ref: JobRef) -> None:
        """A request became a job here. The worker that gets it says so too; the first of the two stays."""
        now_unix_ms = self._clock.server_unix_ms()
        entry = AuditEntry(
            event="accepted",
            unix_ms=now_unix_ms,
            by=self._who,
            tenant=ref.tenant,
            job=ref.id,
            model=ref.model,
            tier=ref.tier,
            sequence=ref.sequence,
        )
        self.tell(entry)

    def refused(self, error: MeshError, tenant: str = "", model: str = "") -> None:
        """A request was refused before it was a job; like ones of one moment are counted, so that a flood is little."""
        entry = refusal_of(error, tenant, model)
        self._show(entry)
        if not self._is_on:
            return
        if entry not in self._refusals and len(self._refusals) >= MAX_REFUSALS:
            self._drop()
            return
        self._refusals[entry] = self._refusals.get(entry, 0) + 1
        self._told.set()

    async def close(self) -> None:
        """Write what is left, if NATS takes it at once. Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._is_on:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                while await self._write():
                    pass
        except (MeshError, TimeoutError) as error:
            log.debug("the end of the audit was not written: %s", error)
        self._is_on = False

    def _show(self, entry: AuditEntry) -> None:
        """Tell the observer too; nobody suffers from what it does."""
        signal = signal_of(entry)
        if signal is not None and self._observer is not ignore:
            try:
                self._observer(signal)
            except Exception:  # who watches cannot change the flow
                log.exception("an observer failed", extra={"event": "observer_failed"})

    def _drop(self) -> None:
        if not self._missing:
            log.warning(
                "NATS has not taken the audit for so long that entries are left out from here on; jobs go on",
                extra={"event": "audit_dropped"},
            )
        self._missing += 1
        self.dropped += 1

    async def _run(self) -> None:
        has_looked = False
        while True:
            await self._told.wait()
            await asyncio.sleep(GATHER_S)
            try:
                if not has_looked:
                    self._is_on = (await topology.read_settings(self._broker)).audit
                    has_looked = True
                if not self._is_on:
                    break
                self._told.clear()
                while await self._write():
                    pass
            except UnauthorizedError as error:
                log.warning("there is no audit of this process: %s", error, extra={"event": "audit_refused"})
                self._is_on = False
                break
            except MeshError as error:
                log.debug("the audit was put off: %s", error)
                self._told.set()
                await asyncio.sleep(RETRY_S)
            except Exception:  # whoever tells must not suffer from it
                log.exception("a part of the audit is lost", extra={"event": "audit_failed"})
                self._batch.clear()
        self._waiting.clear()
        self._refusals.clear()

    async def _write(self) -> bool:
        """Write the next batch; False: there was nothing.

        Raises:
            MeshError: NATS did not take it, as far as is known; the next call tries it again.
        """
        if not self._batch:
            self._batch = [self._message(entry) for entry in self._next()]
        if not self._batch:
            return False
        *before, last = self._batch
        for subject, body, header in before:
            self._broker.connection.publish(subject, body, header)
        _, payload = await self._broker.connection.request(*last)
        read_puback(payload, "audit")
        self.written += len(self._batch)
        self._batch = []
        return True

    def _next(self) -> list[AuditEntry]:
        found: list[AuditEntry] = []
        now_unix_ms = self._clock.server_unix_ms()
        while self._waiting and len(found) < BATCH:
            what, unix_ms = self._waiting.popleft()
            entry = what if isinstance(what, AuditEntry) else entry_of(what, self._who, unix_ms)
            found += [] if entry is None else [entry]
        while self._refusals and len(found) < BATCH:
            entry, count = self._refusals.popitem()
            found.append(replace(entry, unix_ms=now_unix_ms, by=self._who, count=count))
        if self._missing and len(found) < BATCH:
            found.append(AuditEntry(event="gap", unix_ms=now_unix_ms, by=self._who, count=self._missing))
            self._missing = 0
        return found

    def _message(self, entry: AuditEntry) -> Message:
        self._count += 1
        return message_of(self._broker.names, entry, f"{self._mark}-{self._count}")


def message_of(names: Names, entry: AuditEntry, mark: str) -> Message:
    """An entry as it is published; `mark` as for `message_id`."""
    header = headers.block(("Nats-Msg-Id", message_id(entry, mark)))
    return names.audit(tenant_token(entry), entry.event), codec.encode(entry), header


@contextlib.asynccontextmanager
async def auditing(
    broker: Broker, who: str, given: Auditor | None = None, observer: Observer = ignore
) -> AsyncIterator[Auditor]:
    """The audit of this process for as long as the context lasts; `given`, if it has one already."""
    if given is not None:
        yield given
        return
    auditor = Auditor(broker, who, observer)
    try:
        yield auditor
    finally:
        await auditor.close()
