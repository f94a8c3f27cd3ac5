"""Places for the running jobs of one tenant, over all workers: one key for each job that it may run at once.

The first worker that writes a free key has the place; the server refuses the second. A place is renewed while its job
runs. The place of a dead worker expires, so that none is lost.
Source: ADR-8 (key-value), `Nats-Expected-Last-Subject-Sequence`.
"""

import logging
import random
from dataclasses import dataclass

from mesh.broker.stores.reads import get_batch
from mesh.broker.transport.mapping import read_puback
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import DisconnectedError, MeshError, SequenceError
from mesh.protocol import headers

log = logging.getLogger("mesh.broker")

TRIES = 4  # free places to try, since others may take them meanwhile


@dataclass(slots=True, eq=False)
class Slot:
    """One place, from `take` to `release`."""

    key: str
    sequence: int  # of our last write
    is_lost: bool = False  # it expired, and another worker has it


class Slots:
    """The places of every tenant of one mesh."""

    def __init__(self, link: MeshLink, worker: str) -> None:
        self._connection = link.connection
        self._names = link.names
        self._stream = f"KV_{link.names.workers_bucket}"
        self._worker = worker.encode()

    async def take(self, tenant: str, most: int) -> Slot | None:
        """Take one of the tenant's `most` places; None: all are taken.

        Raises:
            BrokerError: NATS did not answer.
        """
        ask = {"seq": 1, "next_by_subj": self._names.slot_key(tenant, "*"), "batch": 2 * most}
        last = {message.subject: message for message in await get_batch(self._connection, self._stream, ask)}
        free: list[tuple[str, int]] = []
        for number in range(most):
            key = self._names.slot_key(tenant, number)
            message = last.get(key)
            if message is None or not message.body:
                free.append((key, message.sequence if message is not None else 0))
        random.shuffle(free)  # workers that look at once should not all want the same
        for key, sequence in free[:TRIES]:
            try:
                return Slot(key, await self._write(key, sequence))
            except SequenceError:
                continue
        return None

    async def renew(self, slot: Slot) -> None:
        """Renew a place.

        Raises:
            BrokerError: NATS did not answer; try again soon.
        """
        try:
            slot.sequence = await self._write(slot.key, slot.sequence)
        except SequenceError as error:
            # 0: it lapsed while we were away, and nobody has it. Ours: the answer to the last renewal was lost.
            if error.last == 0:
                slot.sequence = 0
            else:
                slot.is_lost = True

    def release(self, slot: Slot) -> None:
        """Release a place, unless another worker has it. Without a connection it expires."""
        if slot.is_lost:
            return
        try:
            self._connection.call(
                slot.key, b"", headers.expecting(slot.sequence, b"KV-Operation: DEL\r\n"), _ignored, 2.0
            )
        except DisconnectedError:
            log.debug("place %s lapses by itself", slot.key)

    async def _write(self, key: str, last: int) -> int:
        _, payload = await self._connection.request(key, self._worker, headers.expecting(last), 2.0)
        return read_puback(payload, f"take {key}").seq


def _ignored(error: MeshError | None, header: bytes, payload: bytes) -> None:
    """Ignore the answer: a place that was not released expires."""
