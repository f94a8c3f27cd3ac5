"""Answers requests that no consumer will ever take: an unknown model or tier, a subject outside the grammar.

The stream keeps whatever `<ns>.req.>` receives, and would keep a request for a misspelt model for ever. It
republishes a notice of every stored request; one worker of the mesh reads each notice, and ends what nobody
serves, within milliseconds.
"""

import asyncio
import logging

from mesh.broker import topology
from mesh.broker.connection import Connection
from mesh.control.endings import Endings
from mesh.errors import BrokerError
from mesh.protocol import headers
from mesh.protocol.messages import TIERS, ErrorInfo
from mesh.protocol.subjects import Names, is_token
from mesh.worker.runner import now_unix_ms

log = logging.getLogger("mesh.control")

QUEUE = "mesh-strays"
MAX_AT_ONCE = 64  # strays being ended; further ones wait in the stream for the next worker that looks


class Strays:
    """Watches the notices of one mesh, in one process."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._endings = Endings(connection, names)
        self._served: set[tuple[bytes, bytes]] = set()  # (model, tier) that have consumers
        self._skip = len(names.system("queued")) + 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscription = connection.subscribe(names.system("queued", ">"), self._heard, QUEUE)

    async def close(self) -> None:
        """Watch no more."""
        self._subscription.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _heard(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        """A request was stored. Called for every one, so the usual case is one look into a set."""
        parts = subject[self._skip :].split(b".")
        if len(parts) == 4 and (parts[0], parts[1]) in self._served:
            return
        if len(self._tasks) >= MAX_AT_ONCE:
            return
        task = asyncio.create_task(self._look(parts, header), name="mesh-stray")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self, parts: list[bytes], header: bytes) -> None:
        tokens = [part.decode("utf-8", "replace") for part in parts]
        sequence = headers.parse(header).get("Nats-Sequence", "")
        try:
            reason = await self._reason(tokens)
            if reason is None:
                self._served.add((parts[0], parts[1]))
            elif sequence.isdigit():
                await self._end(int(sequence), tokens, reason)
        except BrokerError as error:
            log.warning("a stray request was left in the queue: %s", error, extra={"event": "stray_left"})

    async def _reason(self, tokens: list[str]) -> ErrorInfo | None:
        """Why nobody will serve this address; None if somebody may."""
        if len(tokens) != 4:
            return ErrorInfo(code="invalid_request", message="the subject needs model, tier, tenant and affinity")
        model, tier, tenant, _ = tokens
        if not is_token(model) or not is_token(tenant):
            return ErrorInfo(code="invalid_request", message="model and tenant must be of the form [A-Za-z0-9_-]{1,64}")
        if tier not in TIERS:
            return ErrorInfo(code="invalid_request", message=f"tier: {tier!r} is not one of {', '.join(TIERS)}")
        if await topology.has_model(self._connection, self._names, model):
            return None
        return ErrorInfo(code="model_not_found", message=f"no model {model!r} is deployed on this mesh")

    async def _end(self, sequence: int, tokens: list[str], reason: ErrorInfo) -> None:
        stored = await self._endings.queue.get(sequence)
        if stored is None:
            return
        if stored.address is None or not is_token(stored.address.tenant):
            # No tenant, so no name under which a Result could be found: the subject itself is the fault.
            log.warning(
                "request %d on %s was removed: %s",
                sequence,
                ".".join(tokens)[:200],
                reason.message,
                extra={"event": "stray_removed"},
            )
            await self._endings.queue.remove(sequence)
            return
        if reason.code == "model_not_found" and stored.error is not None:
            reason = ErrorInfo(code=stored.error.code, message=str(stored.error))
        await self._endings.end(stored, "failed", reason, now_unix_ms())
