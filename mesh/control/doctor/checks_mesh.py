"""Checks the configuration of a mesh and the reports of its workers. Pure."""

import re
from collections.abc import Iterable, Iterator

from mesh.broker.inspect.server_info import GreetingFacts
from mesh.control.doctor.facts import Advice, DriftFacts, Level, MeshFacts, SettingsFacts
from mesh.control.status import versions
from mesh.control.status.checks import findings
from mesh.control.status.depth import Snapshot, WorkerSeen
from mesh.figures import many
from mesh.protocol.subjects import DEFAULT_NAMESPACE, Names
from mesh.protocol.version import UPGRADE, parse

# Wrong values here lose, duplicate or never deliver jobs. Other settings are the operator's choice.
ESSENTIAL = {
    "subjects",
    "retention",
    "discard",
    "discard_new_per_subject",
    "max_msgs_per_subject",
    "allow_direct",
    "allow_msg_ttl",
    "deny_delete",
    "subject_transform",
    "republish",
    "ack_policy",
    "deliver_policy",
    "filter_subject",
    "priority_groups",
    "priority_policy",
}
HARMLESS = {"description"}
# These are checked in another way here, or would repeat other advice.
SAID_ELSEWHERE = {"missing", "old_server", "no_leader", "mixed_protocol"}
OTHER_CLOCK_MS = 1000
_KEY = re.compile(r"(?:^|; )(\w+): ")


def judge(mesh: MeshFacts, namespace: str, greeting: GreetingFacts | None) -> Iterator[Advice]:
    """Yields advice on the mesh of this namespace."""
    names = Names(namespace)
    if mesh.settings is None and names.requests_stream not in mesh.leaderless:
        yield _no_mesh(mesh, names)
    yield from _of_drifts(mesh, names)
    for name in mesh.leaderless:
        text = f"{name} has no leader: too many servers of its cluster are away"
        fix = "bring them back; `nats server report jetstream` shows which are missing"
        yield Advice(level="error", code="no_leader", text=text, fix=fix)
    if mesh.settings is not None:
        yield from _of_settings(mesh.settings, greeting)
        yield from _of_lanes(mesh, mesh.settings, names)
    if mesh.look_error:
        fix = "ask again; if it stays, `nats stream report` and nats-server's log say more"
        yield Advice(level="error", code="unreadable", text=f"the mesh cannot be read: {mesh.look_error}", fix=fix)
    for worker in mesh.silent:
        text = f"worker {worker} does not answer: it is suspended, overloaded or cut off"
        fix = "look at its process and its log; its jobs go on elsewhere when their leases end"
        yield Advice(level="warning", code="worker_silent", text=text, fix=fix)
    if mesh.snapshot is not None:
        yield from _of_workers(mesh.snapshot.workers)
        yield from _of_versions(mesh, mesh.snapshot, names)
        yield from _of_findings(mesh.snapshot, names)


def in_words(mesh: MeshFacts) -> str:
    """Describes the mesh in one line."""
    if mesh.settings is None or mesh.snapshot is None:
        return "none that can be read"
    seen = mesh.snapshot
    models = {each.model for each in seen.queues}
    doors = [(len(mesh.doors), "door")] if mesh.doors else []
    counts = [
        (len(models), "model"),
        (len(seen.workers), "worker"),
        *doors,
        (sum(each.jobs for each in seen.queues), "job"),
    ]
    return ", ".join(many(count, word) for count, word in counts) + f", protocol {mesh.settings.protocol}"


def _init(names: Names) -> str:
    return "mesh init" if names.ns == DEFAULT_NAMESPACE else f"mesh init --namespace {names.ns}"


def _no_mesh(mesh: MeshFacts, names: Names) -> Advice:
    if not mesh.exists:
        text = f"no mesh called {names.ns} is declared on this NATS"
        return Advice(level="error", code="no_mesh", text=text, fix=f"`{_init(names)} --apply`")
    if mesh.is_other_version:
        text, _, fix = mesh.why_not.partition("; ")
        return Advice(level="error", code="other_protocol", text=text, fix=fix)
    fix = "it belongs to another program or an older mesh: use another --namespace, or empty, delete and redeclare it"
    return Advice(level="error", code="old_mesh", text=mesh.why_not or "the mesh cannot be read", fix=fix)


def _of_drifts(mesh: MeshFacts, names: Names) -> Iterator[Advice]:
    missing = [each for each in mesh.drifts if not each.detail]
    stores = [each.name for each in missing if each.kind != "consumer"]
    if stores and mesh.exists:
        text = f"{', '.join(stores)}: missing"
        yield Advice(level="error", code="missing", text=text, fix=f"`{_init(names)} --apply`")
    for model in sorted({each.model for each in missing if each.kind == "consumer"}):
        count = sum(1 for each in missing if each.kind == "consumer" and each.model == model)
        are = "consumer is" if count == 1 else "consumers are"
        text = f"{count} {are} missing of {model}: requests for them are never delivered"
        fix = f"`{_init(names)} --model {model} --apply`"
        yield Advice(level="error", code="missing_consumers", text=text, fix=fix)
    for each in mesh.drifts:
        if each.detail:
            yield _drifted(each, names)


def _drifted(drift: DriftFacts, names: Names) -> Advice:
    keys = set(_KEY.findall(drift.detail)) - HARMLESS
    stream = f"KV_{drift.name}" if drift.kind == "bucket" else drift.name
    is_consumer = drift.kind == "consumer"
    edit = f"nats consumer edit {names.requests_stream} {drift.name}" if is_consumer else f"nats stream edit {stream}"
    fix = f"`{edit}`, or delete it once it is empty and run `{_init(names)} --apply`"
    text = f"{drift.kind} {drift.name} is not as it was declared: {drift.detail}"
    level: Level = "error" if keys & ESSENTIAL else "warning" if keys else "note"
    return Advice(level=level, code="drift", text=text, fix=fix)


def _of_settings(settings: SettingsFacts, greeting: GreetingFacts | None) -> Iterator[Advice]:
    if settings.storage == "memory":
        text = "requests and results are kept in memory: a server that restarts loses accepted requests"
        fix = "declare the mesh anew with --storage file; streams cannot change their storage"
        yield Advice(level="error", code="memory_storage", text=text, fix=fix)
    is_cluster = greeting is not None and bool(greeting.cluster)
    if settings.storage == "file" and settings.events_storage == "memory" and settings.replicas == 1 and not is_cluster:
        text = "events are kept in memory, once: when the server restarts, running jobs begin again"
        fix = "right where it syncs every write; else declare the mesh anew with --events-storage file"
        yield Advice(level="note", code="memory_events", text=text, fix=fix)
    if is_cluster and settings.replicas == 1:
        text = "each stream is kept by one server of the cluster: while that one is away, no job runs"
        fix = "`nats stream edit STREAM --replicas 3` for every stream of the mesh"
        yield Advice(level="warning", code="one_copy", text=text, fix=fix)
    if settings.replicas % 2 == 0:
        text = f"{settings.replicas} copies survive no more failures than {settings.replicas - 1}"
        fix = f"`nats stream edit STREAM --replicas {settings.replicas + 1}`, or one fewer"
        yield Advice(level="note", code="even_copies", text=text, fix=fix)


def _of_lanes(mesh: MeshFacts, settings: SettingsFacts, names: Names) -> Iterator[Advice]:
    remove = f"nats consumer rm {names.requests_stream}"
    served = {each.presence.model for each in mesh.snapshot.workers} if mesh.snapshot is not None else set()
    busy = {each.model for each in mesh.snapshot.queues if each.jobs} if mesh.snapshot is not None else set()
    for model in sorted({each.model for each in mesh.lanes} - served - busy):
        text = f"no worker serves {model}, and no job waits for it"
        fix = f"start `mesh worker --name {model}`, or remove its consumers: `{remove}`"
        yield Advice(level="note", code="unserved", text=text, fix=fix)
    beyond = [each.name for each in mesh.lanes if each.lane.isdigit() and int(each.lane) >= settings.lanes]
    if beyond:
        text = f"{', '.join(beyond[:3])}{' …' if len(beyond) > 3 else ''}: no request uses these lanes"
        fix = f"`{remove} NAME` for each: they are left from more lanes than there are now"
        yield Advice(level="note", code="lane_beyond", text=text, fix=fix)


def _of_workers(workers: Iterable[WorkerSeen]) -> Iterator[Advice]:
    engines: dict[str, set[str]] = {}
    for each in workers:
        seen = each.presence
        engines.setdefault(seen.model, set()).add(f"{seen.engine} {seen.engine_version}")
        offset_ms = seen.beat_unix_ms - each.beat_unix_ms
        if abs(offset_ms) > OTHER_CLOCK_MS:
            way = "ahead of" if offset_ms > 0 else "behind"
            text = f"the clock of {seen.host} (worker {seen.worker}) is {abs(offset_ms) / 1000:.1f} s {way} NATS's"
            fix = "synchronize it with NTP: `timedatectl set-ntp true`; deadlines depend on it"
            yield Advice(level="warning", code="worker_clock", text=text, fix=fix)
    for model, found in sorted(engines.items()):
        if len(found) > 1:
            text = f"workers of {model} run different engines: {', '.join(sorted(found))}"
            fix = "bring them to one version: a job that moves between them may restart with different text"
            yield Advice(level="warning", code="engines_differ", text=text, fix=fix)


def _of_versions(mesh: MeshFacts, snapshot: Snapshot, names: Names) -> Iterator[Advice]:
    """Yields advice on workers and front doors of several versions, as during a rolling upgrade."""
    workers = versions.of_workers([each.presence for each in snapshot.workers])
    speakers = [*workers, *mesh.doors]
    found = versions.protocols(speakers)
    declared = parse(mesh.settings.protocol) if mesh.settings is not None else None
    spoken = [parse(each) for each in found]
    if versions.is_divided(speakers):
        text = f"processes of this mesh speak incompatible protocol versions: {versions.in_words(speakers)}"
        fix = f"end those of one major, and bring them to the other: `{UPGRADE}`"
        yield Advice(level="error", code="divided_protocol", text=text, fix=fix)
    elif len(found) > 1:
        text = f"this mesh speaks several versions of the protocol: {versions.in_words(speakers)}"
        fix = f"finish the upgrade where the older ones run (`{UPGRADE}`), then `{_init(names)} --apply`"
        yield Advice(level="warning", code="mixed_protocol", text=text, fix=fix)
    elif len(versions.programs(speakers)) > 1 >= len(versions.programs(workers)):  # `old_version` reports workers
        text = f"processes of this mesh run several versions of the program: {versions.in_words(speakers)}"
        fix = f"bring them to one version when it suits: `{UPGRADE}`"
        yield Advice(level="note", code="mixed_versions", text=text, fix=fix)
    elif declared is not None and spoken and all(each is not None and each > declared for each in spoken):
        text = f"the mesh is declared for protocol {declared}, and all of its processes speak {min(found)}"
        fix = f"`{_init(names)} --apply` declares it, and clients use the new features"
        yield Advice(level="note", code="protocol_behind", text=text, fix=fix)
    elif declared is not None and any(each is not None and each < declared for each in spoken):
        text = f"the mesh is declared for protocol {declared}, and runs {versions.in_words(speakers)}"
        yield Advice(level="warning", code="protocol_ahead", text=text, fix=f"upgrade them: `{UPGRADE}`")


def _of_findings(snapshot: Snapshot, names: Names) -> Iterator[Advice]:
    """Converts the findings of `mesh status` to advice, with its levels."""
    for each in findings(snapshot, names):
        if each.code not in SAID_ELSEWHERE:
            fix = f"`{each.next}`" if each.next else "`mesh status` shows more"
            level: Level = "error" if each.level == "broken" else "warning"
            yield Advice(level=level, code=each.code, text=each.text, fix=fix)
