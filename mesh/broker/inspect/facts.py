"""NATS's answers about a mesh as plain values: its server, its stores, its consumers. Pure.

Source: the JetStream API's STREAM.INFO, CONSUMER.INFO and INFO.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from mesh.protocol.subjects import Names

NS_PER_MS = 1_000_000
SILENT_NS = 5_000_000_000  # a replica answers its leader every second; this detects its loss long before `offline`
OBJECTS_PREFIX, BUCKET_PREFIX = "OBJ_", "KV_"

Kind = Literal["stream", "bucket", "objects"]


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The connected server, and this account's use of its JetStream."""

    name: str
    version: str
    cluster: str = ""  # "": no cluster
    domain: str = ""  # JetStream domain; "": none
    max_payload_bytes: int = 0  # header and payload of one message together
    rtt_ms: float = 0.0  # of one PING
    storage_bytes: int = 0  # this account's use of file storage
    max_storage_bytes: int = 0  # 0: no limit
    memory_bytes: int = 0  # this account's use of memory storage
    max_memory_bytes: int = 0  # 0: no limit


class PeerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A server with a replica of a stream that is not the leader."""

    name: str
    is_current: bool  # the replica is up to date
    is_offline: bool  # the cluster reports it offline, or the leader has not heard from it for SILENT_NS
    lag: int = 0  # operations behind the leader


class StoreFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, key-value bucket or object store."""

    name: str  # as in `nats stream`, `nats kv` and `nats object`
    kind: Kind
    messages: int
    bytes: int
    max_messages: int = 0  # 0: no limit
    max_bytes: int = 0  # 0: no limit
    max_per_subject: int = 0  # messages; 0: no limit
    max_age_ms: int = 0  # 0: no limit
    storage: str = "file"
    replicas: int = 1  # as configured
    leader: str = ""  # "": no leader at present; then only the name is known
    peers: list[PeerFacts] = []
    last_sequence: int = 0  # of the last stored message


class LaneFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer: the queue of one lane of one model and tier."""

    name: str
    model: str
    tier: str
    lane: str
    pending: int = 0  # jobs never delivered to any worker
    in_flight: int = 0  # jobs delivered and not acknowledged: they run, or wait for redelivery
    redelivered: int = 0  # jobs in flight that were delivered more than once
    pulls: int = 0  # open pulls of workers with a free slot
    deliveries: int = 0  # deliveries ever made
    delivered_sequence: int = 0  # every job of the lane up to this stream sequence was delivered at least once
    pause_left_ms: int = 0  # 0: not paused


def read_server(info: Mapping[str, Any], account: Mapping[str, Any], rtt_ms: float) -> ServerFacts:
    """Read the server's greeting and JetStream's account information."""
    limits = account.get("limits") or {}
    return ServerFacts(
        name=str(info.get("server_name", "")),
        version=str(info.get("version", "")),
        cluster=str(info.get("cluster", "")),
        domain=str(account.get("domain", "")),
        max_payload_bytes=int(info.get("max_payload", 0)),
        rtt_ms=round(rtt_ms, 3),
        storage_bytes=int(account.get("storage", 0)),
        max_storage_bytes=_limit(limits.get("max_storage")),
        memory_bytes=int(account.get("memory", 0)),
        max_memory_bytes=_limit(limits.get("max_memory")),
    )


def read_store(answer: Mapping[str, Any]) -> StoreFacts:
    """Read a stream's information."""
    config, state, cluster = answer["config"], answer["state"], answer.get("cluster") or {}
    name, kind = _kind_of(str(config["name"]))
    return StoreFacts(
        name=name,
        kind=kind,
        messages=int(state["messages"]),
        bytes=int(state["bytes"]),
        max_messages=_limit(config.get("max_msgs")),
        max_bytes=_limit(config.get("max_bytes")),
        max_per_subject=_limit(config.get("max_msgs_per_subject")),
        max_age_ms=int(config.get("max_age", 0)) // NS_PER_MS,
        storage=str(config.get("storage", "file")),
        replicas=int(config.get("num_replicas", 1)),
        leader=str(cluster.get("leader", "")),
        peers=[_peer(each) for each in cluster.get("replicas") or ()],
        last_sequence=int(state["last_seq"]),
    )


def silent_store(stream: str) -> StoreFacts:
    """Return the facts of a stream that does not answer, because it has no leader."""
    name, kind = _kind_of(stream)
    return StoreFacts(name=name, kind=kind, messages=0, bytes=0)


def read_lane(names: Names, name: str, answer: Mapping[str, Any]) -> LaneFacts | None:
    """Read a consumer's information; None: the consumer is not a lane of this mesh."""
    address = names.read_request(str((answer.get("config") or {}).get("filter_subject", "")))
    if address is None or name != names.consumer(address.model, address.tier, address.lane):
        return None
    delivered = answer.get("delivered") or {}
    return LaneFacts(
        name=name,
        model=address.model,
        tier=address.tier,
        lane=address.lane,
        pending=int(answer.get("num_pending", 0)),
        in_flight=int(answer.get("num_ack_pending", 0)),
        redelivered=int(answer.get("num_redelivered", 0)),
        pulls=int(answer.get("num_waiting", 0)),
        deliveries=int(delivered.get("consumer_seq", 0)),
        delivered_sequence=int(delivered.get("stream_seq", 0)),
        pause_left_ms=int(answer.get("pause_remaining", 0)) // NS_PER_MS if answer.get("paused") else 0,
    )


def _peer(answer: Mapping[str, Any]) -> PeerFacts:
    return PeerFacts(
        name=str(answer.get("name", "")),
        is_current=bool(answer.get("current", False)),
        is_offline=bool(answer.get("offline", False)) or int(answer.get("active", 0)) > SILENT_NS,
        lag=int(answer.get("lag", 0)),
    )


def _kind_of(stream: str) -> tuple[str, Kind]:
    if stream.startswith(BUCKET_PREFIX):
        return stream.removeprefix(BUCKET_PREFIX), "bucket"
    if stream.startswith(OBJECTS_PREFIX):
        return stream.removeprefix(OBJECTS_PREFIX), "objects"
    return stream, "stream"


def _limit(value: Any) -> int:
    """Return a limit, with 0 for none; JetStream uses -1 or 0."""
    return max(0, int(value or 0))
