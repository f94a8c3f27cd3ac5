"""The streams, buckets and consumers of a mesh, as data: what should be, what is, and the way from one to the other.

`mesh init` and `mesh up` plan and apply; workers and clients read what is there. A worker adds the consumers
of its own model when they are missing, with the settings the operator chose; nothing that exists is changed
behind anybody's back, differences are reported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec

from mesh.broker.connection import Connection
from mesh.broker.mapping import NO_CONSUMER, NO_STREAM, read_api
from mesh.errors import ConfigError, TopologyError
from mesh.protocol.messages import MAX_RESULT_TTL_MS, TIERS
from mesh.protocol.subjects import Names

GROUP = "w"  # the one priority group of every consumer (ADR-42)
NS = 1_000_000_000
MIN_SERVER = (2, 12, 0)  # the first with prioritized consumers
PRESENCE_BEAT_S = 2.0
PRESENCE_BEATS = 3  # a worker is gone after missing this many


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """What the operator chooses with `mesh init` and `mesh up`; kept in the request stream's metadata."""

    replicas: int = 1
    storage: Literal["file", "memory"] = "file"  # of requests and results
    events_storage: Literal["file", "memory"] = "file"  # memory where the server fsyncs every write
    lanes: int = 4  # cache-affinity partitions of each model's queue
    ack_wait_s: float = 10.0  # the visibility timeout; workers renew it
    # A coarse backstop, far above what restarts and hand-backs use up: JetStream keeps a message beyond it for ever
    # and delivers it no more. Attempts are counted in the job's own events.
    max_deliver: int = 10_000
    queue_limit: int = 10_000  # jobs per model, tier, tenant and lane; more are refused at once
    events_bytes: int = 1 << 30
    events_age_s: float = 900.0
    duplicate_window_s: float = 120.0

    def __post_init__(self) -> None:
        for key, low, high in (
            ("replicas", 1, 5),
            ("lanes", 1, 1024),
            ("ack_wait_s", 1, 3600),
            ("max_deliver", 100, 1_000_000),
            ("queue_limit", 1, 100_000_000),
            ("events_bytes", 1 << 20, 1 << 50),
            ("events_age_s", 60, 86_400),
            ("duplicate_window_s", 1, 86_400),
        ):
            value = getattr(self, key)
            if not low <= value <= high:
                raise ConfigError(f"{key} = {value} is not between {low} and {high}", key=key)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a plan."""

    verb: Literal["create", "keep", "differs"]
    kind: Literal["stream", "bucket", "consumer"]
    name: str
    detail: str = ""
    request: tuple[str, dict[str, Any]] | None = field(default=None, repr=False)  # API subject, body


def streams(names: Names, settings: MeshSettings) -> list[tuple[Literal["stream", "bucket"], dict[str, Any]]]:
    """Every stream of the mesh as JetStream's own configuration. Source: ADR-8 for the buckets."""
    ns = names.ns
    base = {"num_replicas": settings.replicas, "storage": settings.storage, "retention": "limits"}
    requests = base | {
        "name": names.requests_stream,
        "description": "Queued and running inference requests; one message is one job until it has its Result",
        "subjects": [f"{ns}.req.>"],
        "retention": "workqueue",
        "discard": "new",
        "discard_new_per_subject": True,
        "max_msgs_per_subject": settings.queue_limit,
        "duplicate_window": int(settings.duplicate_window_s * NS),
        "allow_direct": True,
        "subject_transform": {
            "src": f"{ns}.req.*.*.*.*",
            "dest": f"{ns}.req.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{{{{wildcard(3)}}}}."
            f"{{{{partition({settings.lanes},4)}}}}",
        },
        # A notice of every stored request, without its body: how a request for a model nobody deployed is seen.
        "republish": {"src": f"{ns}.req.>", "dest": f"{ns}.sys.queued.>", "headers_only": True},
        "metadata": _metadata(settings),
    }
    events = base | {
        "name": names.events_stream,
        "description": "The events of each job (started, delta, result), kept so that readers and workers can resume",
        "subjects": [f"{ns}.out.>", f"{ns}.sys.attempts.>", f"{ns}.sys.notes.>", f"{ns}.sys.life.*"],
        "storage": settings.events_storage,
        "discard": "old",
        "max_age": int(settings.events_age_s * NS),
        "max_bytes": settings.events_bytes,
        "allow_direct": True,
        # What readers hear is what was kept: a publish that is refused reaches those who listen on its own subject.
        "republish": {"src": f"{ns}.out.>", "dest": f"{ns}.live.>"},
    }
    week = {"max_age": 7 * 86_400 * NS, "discard": "old", "allow_direct": True}
    dead = (
        base
        | week
        | {
            "name": names.dead_stream,
            "description": "Dead letters: requests that used up their attempts, with the reason",
            "subjects": [f"{ns}.dead.>"],
        }
    )
    audit = (
        base
        | week
        | {
            "name": names.audit_stream,
            "description": "What happened to every job, without prompts or outputs",
            "subjects": [f"{ns}.audit.>"],
        }
    )
    results = base | _bucket(names.results_bucket, "Results by <tenant>.<job>", MAX_RESULT_TTL_MS / 1000)
    workers = base | _bucket(
        names.workers_bucket,
        "Workers alive, by id; gone when they miss three beats",
        PRESENCE_BEAT_S * PRESENCE_BEATS,
    )
    workers["storage"] = "file"  # a server that restarts forgets streams in memory altogether, not their messages only
    return [
        ("stream", requests),
        ("stream", events),
        ("stream", dead),
        ("stream", audit),
        ("bucket", results),
        ("bucket", workers),
    ]


def consumers(names: Names, model: str, settings: MeshSettings) -> list[dict[str, Any]]:
    """The consumers of one model's queue, one per tier and lane."""
    return [
        {
            "durable_name": names.consumer(model, tier, lane),
            "name": names.consumer(model, tier, lane),
            "description": f"{model}: {tier} requests of lane {lane}",
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "ack_wait": int(settings.ack_wait_s * NS),
            "max_deliver": settings.max_deliver,
            "filter_subject": f"{names.ns}.req.{model}.{tier}.*.{lane}",
            "max_ack_pending": 100_000,
            "max_waiting": 10_000,
            "priority_groups": [GROUP],
            "priority_policy": "prioritized",
        }
        for tier in TIERS
        for lane in range(settings.lanes)
    ]


async def read_settings(connection: Connection, names: Names) -> MeshSettings:
    """What the operator chose, from the request stream.

    Raises:
        TopologyError: there is no mesh here; the message says how to make one.
    """
    live = await _stream(connection, names.requests_stream)
    if live is None:
        raise TopologyError(
            f"no mesh on this NATS: stream {names.requests_stream} is missing; "
            "declare it with `mesh init --nats URL --apply`, or start everything with `mesh up`"
        )
    metadata = live.get("metadata") or {}
    try:
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
        )
    except (KeyError, ValueError) as error:
        raise TopologyError(
            f"stream {names.requests_stream} was not made by `mesh init`: its metadata lacks or garbles {error}"
        ) from None


async def plan(
    connection: Connection, names: Names, settings: MeshSettings, models: Iterable[str] = ()
) -> list[Change]:
    """What `apply` would do, and what differs from `settings`, in the order of dependence."""
    changes = [
        _change(kind, wanted, await _stream(connection, wanted["name"])) for kind, wanted in streams(names, settings)
    ]
    for model in models:
        changes += await plan_consumers(connection, names, settings, model)
    return changes


async def plan_volatile(connection: Connection, names: Names, settings: MeshSettings) -> list[Change]:
    """What a restart of a lone server has taken away: a stream in memory goes with it, configuration and all."""
    if settings.events_storage != "memory":
        return []
    wanted = next(stream for _, stream in streams(names, settings) if stream["name"] == names.events_stream)
    return [_change("stream", wanted, await _stream(connection, names.events_stream))]


async def plan_consumers(connection: Connection, names: Names, settings: MeshSettings, model: str) -> list[Change]:
    """The same for one model's consumers."""
    stream = names.requests_stream
    live = {name: each["config"] for name, each in (await consumer_states(connection, stream)).items()}
    changes = []
    for wanted in consumers(names, model, settings):
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
    """Create what the plan says is missing; returns how many things were created.

    Raises:
        BrokerError: JetStream refused one; what was created before it stays.
    """
    created = 0
    for change in changes:
        if change.request is None:
            continue
        subject, body = change.request
        _, payload = await connection.request(subject, msgspec.json.encode(body), timeout_s=10.0)
        read_api(payload, f"create {change.kind} {change.name}")
        created += 1
    return created


def check_server(version: str) -> None:
    """Refuse a server that lacks what the mesh is built on.

    Raises:
        TopologyError: naming the version and the one needed.
    """
    parts = version.split("-")[0].split(".")
    found = tuple(int(part) if part.isdigit() else 0 for part in parts[:3])
    if found < MIN_SERVER:
        raise TopologyError(
            f"nats-server {version} is too old; the mesh needs {'.'.join(map(str, MIN_SERVER))} or newer"
        )


def _metadata(settings: MeshSettings) -> dict[str, str]:
    return {
        "mesh.protocol": "1",
        "mesh.lanes": str(settings.lanes),
        "mesh.ack_wait_ms": str(int(settings.ack_wait_s * 1000)),
        "mesh.max_deliver": str(settings.max_deliver),
        "mesh.events_storage": settings.events_storage,
        "mesh.events_bytes": str(settings.events_bytes),
        "mesh.events_age_ms": str(int(settings.events_age_s * 1000)),
    }


def _bucket(name: str, description: str, max_age_s: float) -> dict[str, Any]:
    return {
        "name": f"KV_{name}",
        "description": description,
        "subjects": [f"$KV.{name}.>"],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "deny_delete": True,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "max_age": int(max_age_s * NS),
        "duplicate_window": int(min(120.0, max_age_s) * NS),
    }


def _change(kind: Literal["stream", "bucket"], wanted: dict[str, Any], live: dict[str, Any] | None) -> Change:
    name = wanted["name"].removeprefix("KV_") if kind == "bucket" else wanted["name"]
    if live is None:
        return Change("create", kind, name, "", (f"$JS.API.STREAM.CREATE.{wanted['name']}", wanted))
    detail = _difference(wanted, live)
    return Change("differs" if detail else "keep", kind, name, detail)


def _difference(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> str:
    """The settings that are not as wanted, as `key: live, wanted …`; "" if all are."""
    found = []
    for key, value in wanted.items():
        have = live.get(key)
        if isinstance(value, dict) and isinstance(have, dict):
            have = {name: have.get(name) for name in value}  # the server adds keys of its own
        if have != value and not (have is None and value in (0, False, "")):
            found.append(f"{key}: {_brief(have)}, wanted {_brief(value)}")
    return "; ".join(found)


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


async def _stream(connection: Connection, name: str) -> dict[str, Any] | None:
    """A stream's live configuration, None if there is none."""
    _, payload = await connection.request(f"$JS.API.STREAM.INFO.{name}")
    try:
        return dict(read_api(payload, f"stream {name}")["config"])
    except TopologyError as error:
        if error.err_code == NO_STREAM:
            return None
        raise


async def consumer_states(connection: Connection, stream: str) -> dict[str, dict[str, Any]]:
    """What JetStream says of every consumer of a stream, by name: `config`, `num_pending`, `num_ack_pending`, …

    Raises:
        BrokerError: NATS did not answer.
    """
    found: dict[str, dict[str, Any]] = {}
    while True:
        body = msgspec.json.encode({"offset": len(found)})
        _, payload = await connection.request(f"$JS.API.CONSUMER.LIST.{stream}", body)
        try:
            page = read_api(payload, f"consumers of {stream}")
        except TopologyError as error:
            if error.err_code == NO_STREAM:
                return {}
            raise
        for each in page.get("consumers") or ():
            found[each["name"]] = each
        if not page.get("consumers") or len(found) >= page.get("total", 0):
            return found


async def stream_state(connection: Connection, name: str) -> dict[str, Any]:
    """A stream's counters: `messages`, `bytes`, `first_seq`, `last_seq`, …

    Raises:
        TopologyError: there is no such stream.
    """
    _, payload = await connection.request(f"$JS.API.STREAM.INFO.{name}")
    return dict(read_api(payload, f"stream {name}")["state"])


async def stream_clock(connection: Connection, name: str) -> tuple[dict[str, Any], int]:
    """A stream's counters as `stream_state`, and what the server's clock says, in Unix ms.

    Raises:
        TopologyError: there is no such stream.
    """
    _, payload = await connection.request(f"$JS.API.STREAM.INFO.{name}")
    answer = read_api(payload, f"stream {name}")
    return dict(answer["state"]), int(datetime.fromisoformat(answer["ts"]).timestamp() * 1000)


async def has_model(connection: Connection, names: Names, model: str) -> bool:
    """Whether anybody declared this model's queue.

    Raises:
        UnavailableError: this account cannot ask JetStream; then the mesh itself refuses the job.
    """
    subject = f"$JS.API.CONSUMER.INFO.{names.requests_stream}.{names.consumer(model, TIERS[0], 0)}"
    _, payload = await connection.request(subject)
    try:
        read_api(payload, f"model {model}")
    except TopologyError as error:
        if error.err_code == NO_CONSUMER:
            return False
        raise
    return True
