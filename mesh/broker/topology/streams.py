"""A mesh's settings, and the JetStream configuration of its streams, buckets and consumers."""

from dataclasses import dataclass
from typing import Any, Literal

from mesh.errors import ConfigError
from mesh.protocol.messages import MAX_RESULT_TTL_MS, TIERS
from mesh.protocol.subjects import Names
from mesh.protocol.timing import PRESENCE_BEAT_S, PRESENCE_BEATS
from mesh.protocol.version import METADATA, PROTOCOL, ProtocolVersion

GROUP = "w"  # the one priority group of every consumer (ADR-42)
NS = 1_000_000_000
RECORD_BYTES = 1 << 30

Kind = Literal["stream", "bucket"]

_WEEK = {"max_age": 7 * 86_400 * NS, "discard": "old", "allow_direct": True}


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """The operator's settings of `mesh init` and `mesh up`, stored in the request stream's metadata."""

    replicas: int = 1
    storage: Literal["file", "memory"] = "file"  # of requests and results
    events_storage: Literal["file", "memory"] = "file"  # choose memory where the server fsyncs every write
    lanes: int = 4  # cache-affinity partitions of each model's queue
    ack_wait_s: float = 10.0  # the visibility timeout; workers renew it
    # A backstop, far more deliveries than restarts and hand-backs use: beyond it JetStream keeps a message for ever
    # and never delivers it. Attempts are counted in the job's own events.
    max_deliver: int = 10_000
    queue_limit: int = 10_000  # jobs per model, tier, tenant and lane; more are refused at once
    events_bytes: int = 1 << 30
    events_age_s: float = 900.0
    duplicate_window_s: float = 120.0
    audit: bool = True  # whether the audit trail of every job is kept
    record_days: int = 0  # days to keep copies of requests, prompts included; 0: no copies
    record_bytes: int = RECORD_BYTES  # limit of all copies; the oldest are deleted first
    protocol: ProtocolVersion = PROTOCOL  # every worker and front door supports it, or a later minor

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
            ("record_days", 0, 365),
            ("record_bytes", 1 << 20, 1 << 50),
        ):
            value = getattr(self, key)
            if not low <= value <= high:
                raise ConfigError(f"{key} = {value} is not between {low} and {high}", key=key)


def streams(names: Names, settings: MeshSettings) -> list[tuple[Kind, dict[str, Any]]]:
    """Return the JetStream configuration of every stream and bucket. Source: ADR-8 for the buckets."""
    base = _base(settings)
    results = base | _bucket(names.results_bucket, "Results by <tenant>.<job>", MAX_RESULT_TTL_MS / 1000)
    workers = base | _bucket(
        names.workers_bucket,
        "Workers alive, by id; gone when they miss three beats",
        PRESENCE_BEAT_S * PRESENCE_BEATS,
    )
    workers["storage"] = "file"  # a restart deletes streams in memory entirely, not just their messages
    found: list[tuple[Kind, dict[str, Any]]] = [
        ("stream", _requests(names, settings)),
        ("stream", events(names, settings)),
        ("stream", _dead(names, settings)),
        ("stream", _audit(names, settings)),
        ("bucket", results),
        ("bucket", workers),
    ]
    if settings.record_days:
        found.append(("stream", record(names, settings)))
    return found


def _requests(names: Names, settings: MeshSettings) -> dict[str, Any]:
    ns = names.ns
    return _base(settings) | {
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
        # A notice of every stored request, without its body. It reveals requests for models without a queue. Where
        # requests are recorded, the notice has the body. A mirror or a source would be a consumer of the work queue,
        # and would miss jobs that end before it reads them.
        "republish": {"src": f"{ns}.req.>", "dest": f"{ns}.sys.queued.>", "headers_only": not settings.record_days},
        "metadata": _metadata(settings),
    }


def events(names: Names, settings: MeshSettings) -> dict[str, Any]:
    """Return the configuration of the event stream."""
    ns = names.ns
    return _base(settings) | {
        "name": names.events_stream,
        "description": "The events of each job (started, delta, result), kept so that readers and workers can resume",
        "subjects": [f"{ns}.out.>", f"{ns}.sys.attempts.>", f"{ns}.sys.notes.>", f"{ns}.sys.liveness.*"],
        "storage": settings.events_storage,
        "discard": "old",
        "max_age": int(settings.events_age_s * NS),
        "max_bytes": settings.events_bytes,
        "allow_direct": True,
        # Readers subscribe to the republished subject, so they only get stored events. A refused publish still reaches
        # subscribers of its own subject.
        "republish": {"src": f"{ns}.out.>", "dest": f"{ns}.live.>"},
    }


def _dead(names: Names, settings: MeshSettings) -> dict[str, Any]:
    return (
        _base(settings)
        | _WEEK
        | {
            "name": names.dead_stream,
            "description": "Dead letters: requests that used up their attempts, with the reason",
            "subjects": [f"{names.ns}.dead.>"],
        }
    )


def _audit(names: Names, settings: MeshSettings) -> dict[str, Any]:
    return (
        _base(settings)
        | _WEEK
        | {
            "name": names.audit_stream,
            "description": "What happened to every job, without prompts or outputs",
            "subjects": [f"{names.ns}.audit.>"],
        }
    )


def record(names: Names, settings: MeshSettings) -> dict[str, Any]:
    """Return the configuration of the stream of recorded requests."""
    return _base(settings) | {
        "name": names.record_stream,
        "description": "Copies of requests, PROMPTS INCLUDED, because the operator chose to record them",
        "subjects": [names.system("queued", ">")],
        "discard": "old",
        "max_age": settings.record_days * 86_400 * NS,
        "max_bytes": settings.record_bytes,
        "allow_direct": True,
        # The queue has removed duplicates already; a request that it stored twice under one id is recorded twice.
        "duplicate_window": NS // 10,
    }


def idle_record(names: Names) -> dict[str, Any]:
    """Return the configuration of the recording stream after recording ends; its messages expire by age."""
    return {"name": names.record_stream, "subjects": [names.system("unrecorded")]}


def quota(names: Names, settings: MeshSettings) -> list[tuple[Kind, dict[str, Any]]]:
    """Return the bucket of tenants' limits and the stream of their usage counters."""
    limits = _base(settings) | _bucket(names.tenants_bucket, "Limits of tenants, and of all others under `default`", 0)
    usage = _base(settings) | {
        "name": names.usage_stream,
        "description": "What tenants with limits used, by minute and by day: counters, one message each",
        "subjects": [names.system("usage", "*", "*", "*")],
        "max_msgs_per_subject": 1,
        "max_age": 2 * 86_400 * NS,
        "allow_direct": True,
        "allow_msg_counter": True,
        # Each job is counted once, even after a long wait or many deliveries.
        "duplicate_window": 3600 * NS,
    }
    return [("bucket", limits), ("stream", usage)]


def consumers(names: Names, model: str, settings: MeshSettings) -> list[dict[str, Any]]:
    """Return the configuration of one model's consumers, one per tier and lane."""
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


def _metadata(settings: MeshSettings) -> dict[str, str]:
    return {
        METADATA: str(settings.protocol),
        "mesh.lanes": str(settings.lanes),
        "mesh.ack_wait_ms": str(int(settings.ack_wait_s * 1000)),
        "mesh.max_deliver": str(settings.max_deliver),
        "mesh.events_storage": settings.events_storage,
        "mesh.events_bytes": str(settings.events_bytes),
        "mesh.events_age_ms": str(int(settings.events_age_s * 1000)),
        "mesh.audit": "on" if settings.audit else "off",
        "mesh.record_days": str(settings.record_days),
        "mesh.record_bytes": str(settings.record_bytes),
    }


def _base(settings: MeshSettings) -> dict[str, Any]:
    return {"num_replicas": settings.replicas, "storage": settings.storage, "retention": "limits"}


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
        "duplicate_window": int(min(120.0, max_age_s or 120.0) * NS),
    }
