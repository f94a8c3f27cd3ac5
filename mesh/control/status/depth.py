"""The state of a mesh at one moment, and the rates between two moments. Pure.

The types are also the JSON of `mesh status`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mesh.broker.inspect.facts import LaneFacts, ServerFacts, StoreFacts
from mesh.protocol.messages import TIERS, Presence
from mesh.protocol.subjects import Names


class TenantDepth(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant's share of a queue."""

    tenant: str
    jobs: int  # waiting and running
    fullest: int  # of them, in the tenant's fullest lane, which the queue limit bounds


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of one model and tier."""

    model: str
    tier: str
    jobs: int  # waiting and in flight
    waiting: int  # never delivered
    in_flight: int  # delivered and not ended: running, or moving to another worker
    redelivered: int = 0  # of those in flight, delivered more than once
    pulls: int = 0  # open pull requests of workers with a free slot; one slot may pull from several lanes
    oldest_ms: int | None = None  # age of the oldest job; None: there is none
    oldest_waiting_ms: int | None = None  # the same among those that wait
    pause_left_ms: int = 0  # the longest pause of its lanes; 0: none is paused
    is_declared: bool = True  # it has consumers; without them no job is delivered
    tenants: list[TenantDepth] = []  # most jobs first
    lanes: list[LaneFacts] = []


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One worker, and the time of its last presence record."""

    presence: Presence
    beat_unix_ms: int  # when the server stored the record, by its clock
    age_ms: int  # since then


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A mesh at one moment. Its parts were read within milliseconds of each other, not at once."""

    unix_ms: int  # the server's clock
    server: ServerFacts
    stores: list[StoreFacts]
    missing: list[str]  # streams and buckets that should be there
    queues: list[QueueDepth]  # by model, the highest tier first; those that are empty too
    unroutable: int  # requests on subjects that are no job's
    workers: list[WorkerSeen]  # by model and id
    dead_letters: int

    def store(self, name: str) -> StoreFacts | None:
        """A stream or bucket by its name."""
        return next((each for each in self.stores if each.name == name), None)


class ModelRate(msgspec.Struct, frozen=True, kw_only=True):
    """One model's jobs per second. A redelivered job counts as submitted and ended once more."""

    model: str
    submitted_per_s: float
    ended_per_s: float
    tokens_per_s: float | None  # None: no worker of it reported between the two snapshots


class WorkerRate(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's rates. None: it has not reported between the snapshots, or is new."""

    worker: str
    model: str
    ended_per_s: float | None
    tokens_per_s: float | None


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Rates between two snapshots. Workers report every two seconds, so take snapshots that far apart."""

    span_s: float
    submitted_per_s: float
    ended_per_s: float  # jobs that left the queue for any reason
    tokens_per_s: float | None
    models: list[ModelRate]
    workers: list[WorkerRate]


def read_queues(names: Names, depths: Mapping[str, int], lanes: Iterable[LaneFacts]) -> tuple[list[QueueDepth], int]:
    """Returns the queues, without ages, and the number of requests that belong to none.

    Args:
        depths: stored requests by subject.
        lanes: all consumers of the request stream.
    """
    jobs: dict[tuple[str, str], dict[str, list[int]]] = {}
    unroutable = 0
    for subject, count in depths.items():
        at = names.read_request(subject)
        if at is None:
            unroutable += count
        else:
            jobs.setdefault((at.model, at.tier), defaultdict(list))[at.tenant].append(count)
    served: dict[tuple[str, str], list[LaneFacts]] = {}
    for lane in lanes:
        served.setdefault((lane.model, lane.tier), []).append(lane)
    keys = sorted({*jobs, *served}, key=lambda key: (key[0], _rank(key[1]), key[1]))
    return [_queue(key, jobs.get(key) or {}, served.get(key) or []) for key in keys], unroutable


def rates(before: Snapshot, after: Snapshot, requests_stream: str) -> Rates:
    """Returns the rates between two snapshots of one mesh, `before` the older.

    Args:
        requests_stream: the name of the stream whose messages are jobs.
    """
    span_s = max(0.001, (after.unix_ms - before.unix_ms) / 1000)
    workers = _worker_rates(before, after)
    old, new = before.store(requests_stream), after.store(requests_stream)
    submitted = _grown(old.last_sequence, new.last_sequence) if old and new else 0
    ended = max(0, submitted - (new.messages - old.messages)) if old and new else 0
    models = sorted({each.model for each in after.queues} | {each.presence.model for each in after.workers})
    return Rates(
        span_s=round(span_s, 3),
        submitted_per_s=round(submitted / span_s, 2),
        ended_per_s=round(ended / span_s, 2),
        tokens_per_s=_sum(each.tokens_per_s for each in workers),
        models=[_model_rate(model, before, after, workers, span_s) for model in models],
        workers=workers,
    )


def _rank(tier: str) -> int:
    return TIERS.index(tier) if tier in TIERS else len(TIERS)


def _queue(key: tuple[str, str], tenants: Mapping[str, Sequence[int]], lanes: Sequence[LaneFacts]) -> QueueDepth:
    total = sum(sum(counts) for counts in tenants.values())
    in_flight = sum(each.in_flight for each in lanes)
    depths = [TenantDepth(tenant=name, jobs=sum(counts), fullest=max(counts)) for name, counts in tenants.items()]
    return QueueDepth(
        model=key[0],
        tier=key[1],
        jobs=total,
        waiting=sum(each.pending for each in lanes) if lanes else total,
        in_flight=in_flight,
        redelivered=sum(each.redelivered for each in lanes),
        pulls=sum(each.pulls for each in lanes),
        pause_left_ms=max((each.pause_left_ms for each in lanes), default=0),
        is_declared=bool(lanes),
        tenants=sorted(depths, key=lambda each: (-each.jobs, each.tenant)),
        lanes=list(lanes),
    )


def _model_rate(
    model: str, before: Snapshot, after: Snapshot, workers: Sequence[WorkerRate], span_s: float
) -> ModelRate:
    (jobs_then, seen_then), (jobs_now, seen_now) = _passed(model, before), _passed(model, after)
    submitted = _grown(seen_then, seen_now)
    ended = max(0, submitted - (jobs_now - jobs_then))
    return ModelRate(
        model=model,
        submitted_per_s=round(submitted / span_s, 2),
        ended_per_s=round(ended / span_s, 2),
        tokens_per_s=_sum(each.tokens_per_s for each in workers if each.model == model),
    )


def _passed(model: str, snapshot: Snapshot) -> tuple[int, int]:
    """Returns a model's jobs, and the number its consumers ever saw: delivered and waiting.

    Both come from the consumers, so a job stored between two reads counts in both or in neither.
    """
    lanes = [lane for queue in snapshot.queues if queue.model == model for lane in queue.lanes]
    held = sum(lane.pending + lane.in_flight for lane in lanes)
    return held, sum(lane.pending + lane.deliveries for lane in lanes)


def _worker_rates(before: Snapshot, after: Snapshot) -> list[WorkerRate]:
    earlier = {each.presence.worker: each for each in before.workers}
    return [_worker_rate(earlier.get(each.presence.worker), each) for each in after.workers]


def _worker_rate(before: WorkerSeen | None, after: WorkerSeen) -> WorkerRate:
    name, model = after.presence.worker, after.presence.model
    is_same = before is not None and before.presence.started_unix_ms == after.presence.started_unix_ms
    span_ms = after.beat_unix_ms - before.beat_unix_ms if before is not None else 0
    if before is None or not is_same or span_ms <= 0:
        return WorkerRate(worker=name, model=model, ended_per_s=None, tokens_per_s=None)
    return WorkerRate(
        worker=name,
        model=model,
        ended_per_s=round(_grown(before.presence.finished, after.presence.finished) * 1000 / span_ms, 2),
        tokens_per_s=round(_grown(before.presence.tokens, after.presence.tokens) * 1000 / span_ms, 2),
    )


def _grown(before: int, after: int) -> int:
    """Returns the growth of a counter; a counter that shrank was restarted from 0."""
    return max(0, after - before)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known), 2) if known else None
