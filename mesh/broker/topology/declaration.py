"""Compares a mesh's wanted streams, buckets and consumers with the existing ones, and creates the missing ones.

`mesh init` and `mesh up` plan and apply; workers and clients only read. A worker creates the missing consumers of its
own model, with the operator's settings. Existing objects are never changed silently: differences are reported. Only
settings that an operator turns on and off by name (audit, recording) are changed in place.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec

from mesh.broker.topology.streams import (
    NS,
    RECORD_BYTES,
    Kind,
    MeshSettings,
    consumers,
    events,
    idle_record,
    quota,
    streams,
)
from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mapping import NO_CONSUMER, NO_STREAM, read_api
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import TopologyError
from mesh.protocol.messages import TIERS
from mesh.protocol.version import METADATA, check_mesh, parse

MIN_SERVER = (2, 12, 0)  # the first with prioritized consumers

# The values for a mesh that was declared before these settings existed.
_UNSET = {"mesh.audit": "on", "mesh.record_days": "0", "mesh.record_bytes": str(RECORD_BYTES)}


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a plan."""

    verb: Literal["create", "change", "keep", "differs"]
    kind: Literal["stream", "bucket", "consumer"]
    name: str
    detail: str = ""
    request: tuple[str, dict[str, Any]] | None = field(default=None, repr=False)  # API subject, body


async def read_settings(link: MeshLink) -> MeshSettings:
    """Read the operator's settings from the request stream.

    Raises:
        TopologyError: there is no mesh here; the message says how to create one.
        VersionError: the mesh has another major version of the protocol than this program.
    """
    live = await _stream(link, link.names.requests_stream)
    if live is None:
        raise TopologyError(
            f"no mesh on this NATS: stream {link.names.requests_stream} is missing; "
            "declare it with `mesh init --nats URL --apply`, or start everything with `mesh up`"
        )
    metadata = _UNSET | (live.get("metadata") or {})
    try:
        protocol = parse(metadata[METADATA])
        if protocol is None:
            raise ValueError(f"{METADATA} = {metadata[METADATA][:40]!r}")
        check_mesh(protocol)  # first: another major may have other settings
        return MeshSettings(
            replicas=int(live.get("num_replicas", 1)),
            storage=live["storage"],
            events_storage=metadata["mesh.events_storage"],
            lanes=int(metadata["mesh.lanes"]),
            ack_wait_s=int(metadata["mesh.ack_wait_ms"]) / 1000,
            max_deliver=int(metadata["mesh.max_deliver"]),
            queue_limit=int(live.get("max_msgs_per_subject", 1)),
            events_bytes=int(metadata["mesh.events_bytes"]),
            events_age_s=int(metadata["mesh.events_age_ms"]) / 1000,
            duplicate_window_s=int(live["duplicate_window"]) / NS,
            audit=metadata["mesh.audit"] != "off",
            record_days=int(metadata["mesh.record_days"]),
            record_bytes=int(metadata["mesh.record_bytes"]),
            protocol=protocol,
        )
    except (KeyError, ValueError) as error:
        raise TopologyError(
            f"stream {link.names.requests_stream} was not made by `mesh init`: missing or invalid metadata: {error}"
        ) from None


async def plan(link: MeshLink, settings: MeshSettings, models: Iterable[str] = ()) -> list[Change]:
    """Return the changes that `apply` would make, and the differences from `settings`, in order of dependence."""
    changes = []
    for kind, wanted in streams(link.names, settings):
        changes += _changes(kind, wanted, await _stream(link, wanted["name"]))
    if not settings.record_days:
        left = await _stream(link, link.names.record_stream)
        changes += _changes("stream", idle_record(link.names), left) if left is not None else []
    changes += [change for change in await plan_quota(link, settings) if change.verb != "create"]
    for model in models:
        changes += await plan_consumers(link, settings, model)
    return changes


async def plan_quota(link: MeshLink, settings: MeshSettings) -> list[Change]:
    """Return the changes for tenants' limits. A mesh has their bucket and stream only once a tenant has a limit."""
    changes = []
    for kind, wanted in quota(link.names, settings):
        changes += _changes(kind, wanted, await _stream(link, wanted["name"]))
    return changes


async def plan_volatile(link: MeshLink, settings: MeshSettings) -> list[Change]:
    """Return the changes that restore streams in memory: a restart of a single server deletes them entirely."""
    if settings.events_storage != "memory":
        return []
    return _changes("stream", events(link.names, settings), await _stream(link, link.names.events_stream))


async def plan_consumers(link: MeshLink, settings: MeshSettings, model: str) -> list[Change]:
    """Return the changes for one model's consumers."""
    stream = link.names.requests_stream
    live = {name: each["config"] for name, each in (await consumer_states(link.connection, stream)).items()}
    changes = []
    for wanted in consumers(link.names, model, settings):
        name = wanted["durable_name"]
        found = live.get(name)
        if found is None:
            subject = f"$JS.API.CONSUMER.CREATE.{stream}.{name}.{wanted['filter_subject']}"
            body = {"stream_name": stream, "config": wanted, "action": "create"}
            changes.append(Change("create", "consumer", name, "", (subject, body)))
        else:
            detail = _difference(wanted, found)
            changes.append(Change("differs" if detail else "keep", "consumer", name, detail))
    return changes


async def apply(connection: Connection, changes: Iterable[Change]) -> int:
    """Apply a plan's changes; return the number of created objects.

    Raises:
        BrokerError: JetStream refused a change; the earlier ones stay applied.
    """
    created = 0
    for change in changes:
        if change.request is None:
            continue
        subject, body = change.request
        _, payload = await connection.request(subject, msgspec.json.encode(body), timeout_s=10.0)
        read_api(payload, f"{change.verb} {change.kind} {change.name}")
        created += change.verb == "create"
    return created


def check_server(version: str) -> None:
    """Refuse a server that is too old for the mesh.

    Raises:
        TopologyError: the server is older than MIN_SERVER; the message names both versions.
    """
    parts = version.split("-")[0].split(".")
    found = tuple(int(part) if part.isdigit() else 0 for part in parts[:3])
    if found < MIN_SERVER:
        raise TopologyError(
            f"nats-server {version} is too old; the mesh needs {'.'.join(map(str, MIN_SERVER))} or newer"
        )


def _changes(kind: Kind, wanted: dict[str, Any], live: dict[str, Any] | None) -> list[Change]:
    """Return one line of the plan; two, where a switch must be changed and another setting differs."""
    name = wanted["name"].removeprefix("KV_") if kind == "bucket" else wanted["name"]
    if live is None:
        return [Change("create", kind, name, "", (f"$JS.API.STREAM.CREATE.{wanted['name']}", wanted))]
    switched = _switched(wanted, live)
    turned, detail = _difference(switched, live), _difference(wanted, switched)
    changes = [Change("change", kind, name, turned, (f"$JS.API.STREAM.UPDATE.{name}", switched))] if turned else []
    if detail or not turned:
        changes.append(Change("differs" if detail else "keep", kind, name, detail))
    return changes


def _switched(wanted: dict[str, Any], live: dict[str, Any]) -> dict[str, Any]:
    """Return the live configuration with the wanted switches: the settings that an operator turns on and off."""
    new = dict(live)
    metadata = live.get("metadata") or {}
    if "metadata" in wanted and METADATA in metadata:
        new["metadata"] = metadata | {key: wanted["metadata"][key] for key in _UNSET}
        if not _speaks(wanted["metadata"][METADATA], metadata[METADATA]):
            new["metadata"][METADATA] = wanted["metadata"][METADATA]
        new["republish"] = (live.get("republish") or {}) | {"headers_only": wanted["republish"]["headers_only"]}
    if wanted["name"].endswith("_RECORD"):
        new |= {key: wanted[key] for key in ("subjects", "max_age", "max_bytes") if key in wanted}
    return new


def _difference(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> str:
    """Return the differing settings as `key: live, wanted …`; "" if there are none."""
    found = []
    for key, value in wanted.items():
        have = live.get(key)
        if isinstance(value, dict) and isinstance(have, dict):
            # The server adds its own keys, and leaves out keys that are not set.
            names = [name for name in value if not _is_met(name, value[name], have.get(name, _UNSET.get(name)))]
            have, value = {name: have.get(name) for name in names}, {name: value[name] for name in names}
        if not _is_same(value, have):
            found.append(f"{key}: {_brief(have)}, wanted {_brief(value)}")
    return "; ".join(found)


def _is_met(name: str, wanted: Any, have: Any) -> bool:
    return _speaks(wanted, have or "") if name == METADATA else _is_same(wanted, have)


def _speaks(wanted: str, have: str) -> bool:
    """Whether a mesh declared for protocol `have` has all that one for `wanted` has."""
    needed, found = parse(wanted), parse(have)
    return needed is not None and found is not None and found.major == needed.major and found >= needed


def _is_same(wanted: Any, have: Any) -> bool:
    return bool(have == wanted) or (have is None and wanted in (0, False, ""))


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


async def _info(link: MeshLink, name: str) -> dict[str, Any]:
    """Return a stream's information. The clock takes the server's time from the answer.

    Raises:
        TopologyError: the stream does not exist.
    """
    sent_s = link.clock.uptime_s()
    _, payload = await link.connection.request(f"$JS.API.STREAM.INFO.{name}")
    heard_s = link.clock.uptime_s()
    answer: dict[str, Any] = read_api(payload, f"stream {name}")
    link.clock.observe(_unix_ms(answer), sent_s, heard_s)
    return answer


def _unix_ms(answer: dict[str, Any]) -> float:
    return datetime.fromisoformat(answer["ts"]).timestamp() * 1000


async def _stream(link: MeshLink, name: str) -> dict[str, Any] | None:
    """Return a stream's live configuration; None: the stream does not exist."""
    try:
        return dict((await _info(link, name))["config"])
    except TopologyError as error:
        if error.err_code == NO_STREAM:
            return None
        raise


async def consumer_states(connection: Connection, stream: str) -> dict[str, dict[str, Any]]:
    """Return every consumer's information by its name: `config`, `num_pending`, `num_ack_pending`, …

    In a cluster, a consumer without a leader is missing.

    Raises:
        BrokerError: NATS did not answer.
    """
    found: dict[str, dict[str, Any]] = {}
    offset = 0  # of the next page; consumers under `missing` count too
    while True:
        body = msgspec.json.encode({"offset": offset})
        _, payload = await connection.request(f"$JS.API.CONSUMER.LIST.{stream}", body)
        try:
            page = read_api(payload, f"consumers of {stream}")
        except TopologyError as error:
            if error.err_code == NO_STREAM:
                return {}
            raise
        listed, missing = page.get("consumers") or [], page.get("missing") or []
        found |= {each["name"]: each for each in listed}
        offset += len(listed) + len(missing)
        if not (listed or missing) or offset >= page.get("total", 0):
            return found


async def stream_state(connection: Connection, name: str) -> dict[str, Any]:
    """Return a stream's counters: `messages`, `bytes`, `first_seq`, `last_seq`, …

    Raises:
        TopologyError: the stream does not exist.
    """
    _, payload = await connection.request(f"$JS.API.STREAM.INFO.{name}")
    return dict(read_api(payload, f"stream {name}")["state"])


async def stream_clock(link: MeshLink, name: str) -> tuple[dict[str, Any], int]:
    """Return a stream's counters as `stream_state` does, and the server's time in Unix ms.

    Raises:
        TopologyError: the stream does not exist.
    """
    answer = await _info(link, name)
    return dict(answer["state"]), int(_unix_ms(answer))


async def has_model(link: MeshLink, model: str) -> bool:
    """Return whether this model's queue exists.

    Raises:
        UnavailableError: this account has no JetStream API; the gateway will refuse jobs for an unknown model.
    """
    subject = f"$JS.API.CONSUMER.INFO.{link.names.requests_stream}.{link.names.consumer(model, TIERS[0], 0)}"
    _, payload = await link.connection.request(subject)
    try:
        read_api(payload, f"model {model}")
    except TopologyError as error:
        if error.err_code == NO_CONSUMER:
            return False
        raise
    return True
