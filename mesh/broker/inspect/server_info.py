"""What a server says of itself to whoever connects, and what an account may have, as plain values. Pure.

Read by broker/inspect/examine, judged by control/doctor/checks. Source: the INFO of NATS's client protocol, and the
JetStream API's INFO.
"""

from collections.abc import Mapping
from typing import Any

import msgspec


class GreetingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself to whoever connects."""

    version: str
    cluster: str = ""  # "": it stands alone
    max_payload_bytes: int = 1 << 20
    has_tls: bool = False  # this connection is encrypted
    has_jetstream: bool = True  # on the server; this account may have none
    server_id: str = ""


class AccountFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What this account may have of JetStream; 0: as much as it likes."""

    streams: int = 0  # there are now
    max_streams: int = 0
    consumers: int = 0
    max_consumers: int = 0


class ServiceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of the mesh answers through NATS's service discovery."""

    id: str
    version: str = ""  # of the program
    metadata: dict[str, str] = {}


def read_service(payload: bytes) -> ServiceFacts | None:
    """A service's answer to `$SRV.PING` as facts; None: it is none. Source: ADR-32."""
    try:
        return msgspec.json.decode(payload, type=ServiceFacts)
    except msgspec.MsgspecError:
        return None


def read_greeting(info: Mapping[str, Any], has_tls: bool) -> GreetingFacts:
    """A server's greeting as facts."""
    return GreetingFacts(
        version=str(info.get("version", "")),
        cluster=str(info.get("cluster", "")),
        max_payload_bytes=int(info.get("max_payload", 0)),
        has_tls=has_tls,
        has_jetstream=bool(info.get("jetstream", False)),
        server_id=str(info.get("server_id", "")),
    )


def read_account(answer: Mapping[str, Any]) -> AccountFacts:
    """JetStream's account information as facts."""
    limits = answer.get("limits") or {}
    return AccountFacts(
        streams=int(answer.get("streams", 0)),
        max_streams=max(0, int(limits.get("max_streams") or 0)),
        consumers=int(answer.get("consumers", 0)),
        max_consumers=max(0, int(limits.get("max_consumers") or 0)),
    )
