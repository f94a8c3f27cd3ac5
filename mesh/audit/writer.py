"""Writes the audit entries of one process in the background, so that jobs never wait for the audit.

Callers only queue an entry; that never blocks and never fails. A task publishes the queued entries in batches and
awaits the last acknowledgement of each batch. A batch without one is published again under the same message ids, and
the stream drops the repeats. While NATS is away, entries are kept up to a bound. Entries beyond it are counted, and a
"gap" entry reports the count.
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

MAX_WAITING = 20_000  # unwritten entries of some 300 bytes each: one hour of a busy worker without NATS
MAX_REFUSALS = 1_000  # different refusals within GATHER_S
# Time to gather entries before a write, so that one acknowledgement serves many. A killed process loses the entries
# of this time.
GATHER_S = 0.1
BATCH = 32  # entries published in one turn of the loop, so that no token waits for them
RETRY_S = 0.5
CLOSE_S = 1.0  # for the last entries to be written
_TOLD = JobDelivered | AttemptStarted | JobEnded | JobBuried | JobReturned | RequestRefused

Message = tuple[str, bytes, bytes]  # subject, body, header


class Auditor:
    """The audit writer of one process, until `close`. `observe` is an Observer. Only `close` may raise."""

    def __init__(self, broker: Broker, host: str, observer: Observer = ignore) -> None:
        """Starts the writing task.

        Args:
            host: the name of this worker or process; becomes the entries' `by`.
            observer: receives the signals that no worker sends: front-door requests and jobs ended without a run.
        """
        self._clock = broker.clock
        self._observer = observer
        self._broker = broker
        self._host = host
        self._is_on = True
        self._waiting: deque[tuple[Signal | AuditEntry, int]] = deque()
        self._refusals: dict[AuditEntry, int] = {}
        self._batch: list[Message] = []  # published, not yet acknowledged
        self._mark, self._count = secrets.token_hex(6), 0
        self._missing = 0  # dropped entries that no "gap" entry has reported yet
        self.written = 0  # entries
        self.dropped = 0
        self._told = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="mesh-audit")

    @property
    def is_on(self) -> bool:
        """True while entries are kept; False once the mesh is known to have no audit, and after `close`."""
        return self._is_on

    def observe(self, signal: Signal) -> None:
        """Queues a worker's signal if it is audited. Called for each signal, so it does no more."""
        if isinstance(signal, _TOLD):
            self.tell(signal)

    def tell(self, item: Signal | AuditEntry) -> None:
        """Queues a signal or an entry for the next write."""
        if isinstance(item, AuditEntry):
            self._show(item)
        if not self._is_on:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._drop()
            return
        self._waiting.append((item, self._clock.server_unix_ms()))
        if not self._told.is_set():
            self._told.set()

    def accepted(self, ref: JobRef) -> None:
        """Queues the "accepted" entry of a request. Its worker writes it too; the stream keeps the first."""
        now_unix_ms = self._clock.server_unix_ms()
        entry = AuditEntry(
            event="accepted",
            unix_ms=now_unix_ms,
            by=self._host,
            tenant=ref.tenant,
            job=ref.id,
            model=ref.model,
            tier=ref.tier,
            sequence=ref.sequence,
        )
        self.tell(entry)

    def refused(self, error: MeshError, tenant: str = "", model: str = "") -> None:
        """Queues the entry of a request refused before it became a job. Equal refusals share one entry with a count."""
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
        """Writes the remaining entries, for CLOSE_S at most. Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._is_on:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                while await self._write():
                    pass
        except (MeshError, TimeoutError) as error:
            log.debug("the last audit entries were not written: %s", error)
        self._is_on = False

    def _show(self, entry: AuditEntry) -> None:
        """Passes the entry's signal to the observer. An exception of the observer is logged."""
        signal = signal_of(entry)
        if signal is not None and self._observer is not ignore:
            try:
                self._observer(signal)
            except Exception:  # an observer must not change the flow
                log.exception("an observer failed", extra={"event": "observer_failed"})

    def _drop(self) -> None:
        if not self._missing:
            log.warning(
                "NATS does not store audit entries and their queue is full; entries are dropped, jobs continue",
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
                log.warning(
                    "NATS refused this process's audit entries; they are not written: %s",
                    error,
                    extra={"event": "audit_refused"},
                )
                self._is_on = False
                break
            except MeshError as error:
                log.debug("audit entries are written later: %s", error)
                self._told.set()
                await asyncio.sleep(RETRY_S)
            except Exception:  # callers must not fail because of the audit
                log.exception("audit entries were lost", extra={"event": "audit_failed"})
                self._batch.clear()
        self._waiting.clear()
        self._refusals.clear()

    async def _write(self) -> bool:
        """Writes the next batch. Returns False if there was none.

        Raises:
            MeshError: NATS did not acknowledge the batch; the next call repeats it.
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
            item, unix_ms = self._waiting.popleft()
            entry = item if isinstance(item, AuditEntry) else entry_of(item, self._host, unix_ms)
            found += [] if entry is None else [entry]
        while self._refusals and len(found) < BATCH:
            entry, count = self._refusals.popitem()
            found.append(replace(entry, unix_ms=now_unix_ms, by=self._host, count=count))
        if self._missing and len(found) < BATCH:
            found.append(AuditEntry(event="gap", unix_ms=now_unix_ms, by=self._host, count=self._missing))
            self._missing = 0
        return found

    def _message(self, entry: AuditEntry) -> Message:
        self._count += 1
        return message_of(self._broker.names, entry, f"{self._mark}-{self._count}")


def message_of(names: Names, entry: AuditEntry, mark: str) -> Message:
    """Returns an entry as it is published. `mark` is as for `message_id`."""
    header = headers.block(("Nats-Msg-Id", message_id(entry, mark)))
    return names.audit(tenant_token(entry), entry.event), codec.encode(entry), header


@contextlib.asynccontextmanager
async def auditing(
    broker: Broker, host: str, given: Auditor | None = None, observer: Observer = ignore
) -> AsyncIterator[Auditor]:
    """Yields this process's audit writer, closed at the end; or `given`, which its owner closes."""
    if given is not None:
        yield given
        return
    auditor = Auditor(broker, host, observer)
    try:
        yield auditor
    finally:
        await auditor.close()
