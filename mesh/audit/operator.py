"""Writes into the audit what an operator does to the mesh, and who that is: the user NATS knows, and the host.

Used by what steers: control/queues/pause, draining and deadletters. What was done is done: that it cannot be written is
logged, and fails nobody. It is written by the operator's own process, so it tells of colleagues, not of intruders.
"""

import asyncio
import logging
import secrets
import socket
from typing import Any

from mesh.audit.writer import message_of
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.transport.mapping import read_puback
from mesh.errors import MeshError
from mesh.protocol import codec
from mesh.protocol.messages import AuditEntry, AuditEvent

log = logging.getLogger("mesh.audit")

WRITE_S = 2.0  # for NATS to take it
LONGEST_USER = 64  # a key's name has 56 characters
WHO = "$SYS.REQ.USER.INFO"  # answered by the server itself, to any user that may ask it


class Operator:
    """Whoever acts through this connection."""

    def __init__(self, broker: Broker) -> None:
        self._clock = broker.clock
        self._broker = broker
        self._is_on: bool | None = None  # None: not known yet
        self._user = ""

    async def did(self, event: AuditEvent, **facts: Any) -> None:
        """Have it written that this was done. Raises nothing.

        Args:
            facts: fields of AuditEntry.
        """
        try:
            async with asyncio.timeout(WRITE_S):
                if self._is_on is None:
                    self._is_on = (await topology.read_settings(self._broker)).audit
                    self._user = await self._whoever() if self._is_on else ""
                if self._is_on:
                    await self._write(event, facts)
        except (MeshError, TimeoutError) as error:
            reason = str(error) or f"no answer within {WRITE_S:g} s"
            log.error("it is done, but not in the audit: %s", reason, extra={"event": "audit_failed"})
            self._is_on = False

    async def _write(self, event: AuditEvent, facts: dict[str, Any]) -> None:
        entry = AuditEntry(
            event=event,
            unix_ms=self._clock.server_unix_ms(),
            by=str(self._broker.connection.link.options.get("name") or "mesh"),
            user=self._user,
            host=socket.gethostname(),
            **facts,
        )
        _, payload = await self._broker.connection.request(
            *message_of(self._broker.names, entry, secrets.token_hex(12))
        )
        read_puback(payload, "audit")

    async def _whoever(self) -> str:
        """Who NATS says we are; where we may not ask it, who we say. "" where it knows nobody."""
        try:
            _, payload = await self._broker.connection.request(WHO, timeout_s=WRITE_S / 2)
            data = codec.decode_json(payload)["data"]
            return str(data["user"])[:LONGEST_USER]
        except (MeshError, LookupError, TypeError):
            return str(self._broker.connection.link.options.get("user") or "")[:LONGEST_USER]
