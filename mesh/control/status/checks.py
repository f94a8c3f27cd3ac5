"""Finds the problems in a snapshot of a mesh, each with a remedy. Pure."""

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from mesh.broker.inspect.facts import PeerFacts, StoreFacts
from mesh.control.status import versions
from mesh.control.status.depth import QueueDepth, Snapshot, WorkerSeen
from mesh.figures import many, span
from mesh.protocol.subjects import Names
from mesh.protocol.timing import PRESENCE_SILENT_S

ADVISED_SERVER = (2, 14, 3)
FULL = 0.9  # of a limit
FAR_MS = 365 * 86_400_000  # a longer pause counts as one without an end
SLOW_MS = 250.0  # every token takes this round trip

# broken: jobs stand still or are refused. notice: worth a look.
Level = Literal["broken", "notice"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One problem of a mesh."""

    level: Level
    code: str  # a stable word for programs
    text: str
    next: str = ""  # a command that helps, or shows more


def findings(snapshot: Snapshot, names: Names) -> list[Finding]:
    """Returns all problems, the broken ones first."""
    found = [
        *_of_stores(snapshot, names),
        *_of_queues(snapshot, names),
        *_backlogs(snapshot),
        *_of_workers(snapshot.workers),
        *_of_versions(snapshot.workers),
        *_of_server(snapshot),
    ]
    return sorted(found, key=lambda each: each.level != "broken")


def _of_stores(snapshot: Snapshot, names: Names) -> Iterator[Finding]:
    for name in snapshot.missing:
        yield Finding(level="broken", code="missing", text=f"{name} is missing", next="mesh init")
    for store in snapshot.stores:
        if not store.leader:
            text = f"{store.name} has no leader: nothing is stored or read"
            yield Finding(level="broken", code="no_leader", text=text)
        yield from _fullness(store, names)
    yield from _of_copies(snapshot.stores)
    if snapshot.dead_letters:
        text = f"{many(snapshot.dead_letters, 'job was', 'jobs were')} given up and not redriven"
        yield Finding(level="notice", code="dead_letters", text=text, next="mesh dlq ls")


def _of_versions(workers: Iterable[WorkerSeen]) -> Iterator[Finding]:
    speakers = versions.of_workers([each.presence for each in workers])
    if len(versions.protocols(speakers)) > 1:
        text = f"the workers speak different versions of the protocol: {versions.in_words(speakers)}"
        yield Finding(level="notice", code="mixed_protocol", text=text, next="mesh doctor")


def _of_copies(stores: Iterable[StoreFacts]) -> Iterator[Finding]:
    """Yields one finding for each server of a cluster that is away or behind."""
    bad: dict[str, list[tuple[str, PeerFacts]]] = {}
    for store in stores:
        for peer in store.peers:
            if peer.is_offline or not peer.is_current:
                bad.setdefault(peer.name, []).append((store.name, peer))
    for name, copies in sorted(bad.items()):
        if any(peer.is_offline for _, peer in copies):
            text = f"server {name} is away, with its copies of {many(len(copies), 'stream', 'streams')}"
        else:
            lag = max(peer.lag for _, peer in copies)
            which = ", ".join(store for store, _ in copies)
            text = f"server {name} is up to {many(lag, 'operation', 'operations')} behind in {which}"
        yield Finding(level="notice", code="replica", text=text)


def _fullness(store: StoreFacts, names: Names) -> Iterator[Finding]:
    used = [(store.bytes, store.max_bytes), (store.messages, store.max_messages)]
    if not any(limit and value >= FULL * limit for value, limit in used):
        return
    if store.name == names.events_stream:  # this stream drops its oldest messages
        text = f"{store.name} is full: events are dropped before their time, and late readers miss them"
        yield Finding(level="notice", code="full", text=text, next="mesh init")
    elif store.name in (names.requests_stream, names.results_bucket):
        text = f"{store.name} is full or nearly so: more is refused"
        yield Finding(level="broken", code="full", text=text)


def _of_queues(snapshot: Snapshot, names: Names) -> Iterator[Finding]:
    requests = snapshot.store(names.requests_stream)
    limit = requests.max_per_subject if requests is not None else 0
    for queue in snapshot.queues:
        name = f"{queue.model}/{queue.tier}"
        if queue.jobs:
            yield from _service(queue, name, [each for each in snapshot.workers if each.presence.model == queue.model])
        for tenant in queue.tenants:
            if limit and tenant.fullest >= FULL * limit:
                is_full = tenant.fullest >= limit
                text = f"the queue of {name} is {'' if is_full else 'nearly '}full for {tenant.tenant}"
                level: Level = "broken" if is_full else "notice"
                yield Finding(level=level, code="queue_full", text=f"{text}: {limit} jobs a lane, more are refused")
        if queue.redelivered:
            text = f"{many(queue.redelivered, 'job')} of {name} came back from a worker that was lost or stopped"
            yield Finding(level="notice", code="redelivered", text=text, next="mesh jobs --state running")
    if snapshot.unroutable:
        text = f"{many(snapshot.unroutable, 'request', 'requests')} on no job's subject: any worker removes them"
        yield Finding(level="notice", code="unroutable", text=text)


def _backlogs(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields models with no free slot and more waiting than running jobs."""
    for model in sorted({each.presence.model for each in snapshot.workers}):
        capacity = sum(each.presence.capacity for each in snapshot.workers if each.presence.model == model)
        queues = [each for each in snapshot.queues if each.model == model and not each.pause_left_ms]
        waiting = sum(each.waiting for each in queues)
        if waiting > capacity and not any(each.pulls for each in queues if each.waiting):
            oldest_ms = max((each.oldest_waiting_ms or 0 for each in queues), default=0)
            text = f"{many(waiting, 'job')} of {model} wait, one for {span(oldest_ms)}: "
            yield Finding(level="notice", code="busy", text=text + f"{many(capacity, 'slot')} are too few just now")


def _service(queue: QueueDepth, name: str, workers: list[WorkerSeen]) -> Iterator[Finding]:
    """Yields a finding if no worker can take the waiting jobs of a queue."""
    jobs = many(queue.jobs, "job")
    if not queue.is_declared:
        text = f"{jobs} for {name}, which no consumer serves: a worker of any model ends them as failed"
        yield Finding(level="broken", code="undeclared", text=text, next=f"mesh worker --name {queue.model}")
    elif not workers:
        text = f"{jobs} of {name} and no worker of that model"
        yield Finding(level="broken", code="no_worker", text=text, next=f"mesh worker --name {queue.model}")
    elif not any(each.presence.state == "ready" for each in workers):
        states = ", ".join(sorted({each.presence.state for each in workers}))
        text = f"{jobs} of {name}, and its workers are all {states}"
        yield Finding(level="notice", code="not_ready", text=text, next="mesh workers")
    if queue.pause_left_ms and queue.jobs:
        rest = f" for another {span(queue.pause_left_ms)}" if queue.pause_left_ms < FAR_MS else ""
        text = f"{name} is paused{rest}, with {many(queue.waiting, 'job')} waiting"
        yield Finding(level="notice", code="paused", text=text, next=f"mesh resume {name}")


def _of_workers(workers: Iterable[WorkerSeen]) -> Iterator[Finding]:
    workers = list(workers)
    for each in workers:
        if each.age_ms > PRESENCE_SILENT_S * 1000:
            text = f"worker {each.presence.worker} was last heard {each.age_ms / 1000:.1f} s ago"
            yield Finding(level="notice", code="silent", text=text, next="mesh workers")
    newest = max((version_key(each.presence.version) for each in workers), default=())
    old = [each for each in workers if version_key(each.presence.version) < newest]
    if old:
        versions = ", ".join(sorted({each.presence.version for each in old}, key=version_key))
        text = f"{many(len(old), 'worker runs', 'workers run')} an older mesh ({versions}) than the others"
        yield Finding(level="notice", code="old_version", text=text, next="mesh workers --json")


def _of_server(snapshot: Snapshot) -> Iterator[Finding]:
    server = snapshot.server
    if version_key(server.version)[:3] < ADVISED_SERVER:
        advised = ".".join(map(str, ADVISED_SERVER))
        text = f"nats-server {server.version}: {advised} or newer is advised for its fixes"
        yield Finding(level="notice", code="old_server", text=text)
    if server.rtt_ms > SLOW_MS:
        text = f"NATS answers this command after {server.rtt_ms:.0f} ms"
        yield Finding(level="notice", code="slow", text=text)
    for what, used, limit in (
        ("files", server.storage_bytes, server.max_storage_bytes),
        ("memory", server.memory_bytes, server.max_memory_bytes),
    ):
        if limit and used >= FULL * limit:
            text = f"this account's JetStream {what} are {100 * used // limit} % used: more will be refused"
            yield Finding(level="broken", code="account_full", text=text)


def version_key(version: str) -> tuple[int, ...]:
    """A version to compare by: `2.14.3-beta` as (2, 14, 3). A part that is no number counts as 0."""
    parts = version.split("+")[0].split("-")[0].split(".")
    return tuple(int(part) if part.isascii() and part.isdigit() and len(part) < 10 else 0 for part in parts)
