"""A server's greeting and an account's limits as plain values. Pure.

Source: the INFO of NATS's client protocol, and the JetStream API's INFO.
"""

from collections.abc import Mapping
from typing import Any

import msgspec


class GreetingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A server's greeting to a new connection."""

    version: str
    cluster: str = ""  # "": no cluster
    max_payload_bytes: int = 1 << 20
    has_tls: bool = False  # this connection is encrypted
    has_jetstream: bool = True  # on the server; this account may still have none
    server_id: str = ""


class AccountFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The account's JetStream streams and consumers, and their limits."""

    streams: int = 0  # existing streams
    max_streams: int = 0  # 0: no limit
    consumers: int = 0  # existing consumers
    max_consumers: int = 0  # 0: no limit


class ServiceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A mesh process's answer to NATS's service discovery."""

    id: str
    version: str = ""  # of the mesh package
    metadata: dict[str, str] = {}


def read_service(payload: bytes) -> ServiceFacts | None:
    """Read a service's answer to `$SRV.PING`; None: it is not one. Source: ADR-32."""
    try:
        return msgspec.json.decode(payload, type=ServiceFacts)
    except msgspec.MsgspecError:
        return None


def read_greeting(info: Mapping[str, Any], has_tls: bool) -> GreetingFacts:
    """Read a server's greeting."""
    return GreetingFacts(
        version=str(info.get("version", "")),
        cluster=str(info.get("cluster", "")),
        max_payload_bytes=int(info.get("max_payload", 0)),
        has_tls=has_tls,
        has_jetstream=bool(info.get("jetstream", False)),
        server_id=str(info.get("server_id", "")),
    )


def read_account(answer: Mapping[str, Any]) -> AccountFacts:
    """Read JetStream's account information."""
    limits = answer.get("limits") or {}
    return AccountFacts(
        streams=int(answer.get("streams", 0)),
        max_streams=max(0, int(limits.get("max_streams") or 0)),
        consumers=int(answer.get("consumers", 0)),
        max_consumers=max(0, int(limits.get("max_consumers") or 0)),
    )
