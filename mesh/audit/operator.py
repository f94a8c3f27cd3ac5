"""Writes operators' commands to the audit, with the NATS user and the host.

A failed write is logged and never fails the command, which is already done. The operator's own process writes the
entry, so the audit records honest operators; an intruder can leave the entry out.
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

WRITE_S = 2.0  # for the whole write, until NATS acknowledges it
LONGEST_USER = 64  # a key's name has 56 characters
USER_INFO = "$SYS.REQ.USER.INFO"  # nats-server answers it for every user with the permission


class Operator:
    """Audits the commands that an operator gives through one connection."""

    def __init__(self, broker: Broker) -> None:
        self._clock = broker.clock
        self._broker = broker
        self._is_on: bool | None = None  # None: not known yet
        self._user = ""

    async def did(self, event: AuditEvent, **facts: Any) -> None:
        """Writes that a command was done. Raises nothing.

        Args:
            facts: fields of AuditEntry.
        """
        try:
            async with asyncio.timeout(WRITE_S):
                if self._is_on is None:
                    self._is_on = (await topology.read_settings(self._broker)).audit
                    self._user = await self._read_user() if self._is_on else ""
                if self._is_on:
                    await self._write(event, facts)
        except (MeshError, TimeoutError) as error:
            reason = str(error) or f"no answer within {WRITE_S:g} s"
            log.error("the command is done, but not in the audit: %s", reason, extra={"event": "audit_failed"})
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

    async def _read_user(self) -> str:
        """Returns the NATS user; without the permission to ask NATS, the configured one. "" without a user."""
        try:
            _, payload = await self._broker.connection.request(USER_INFO, timeout_s=WRITE_S / 2)
            data = codec.decode_json(payload)["data"]
            return str(data["user"])[:LONGEST_USER]
        except (MeshError, LookupError, TypeError):
            return str(self._broker.connection.link.options.get("user") or "")[:LONGEST_USER]
