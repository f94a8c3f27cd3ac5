"""`mesh status`: two looks at a mesh, as tables and findings."""

import asyncio
from collections.abc import Iterator, Sequence

import msgspec

from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.table import TableColumn, TextTable, show_table
from mesh.cli.terminal.text import cells, clip, one_line, wrap
from mesh.cli.workers.workers_action import ranges
from mesh.control.status import snapshot as status
from mesh.control.status.checks import FAR_MS, Finding, findings
from mesh.control.status.depth import QueueDepth, Rates, Snapshot, WorkerSeen

LOOK_S = 1.0  # between the two looks
BEAT_S = 2.2  # the same while jobs run: every worker has beaten once more by then
MOST_ROWS = 40  # of one table in a terminal; a pipe and the JSON get all of them
MOST_TENANTS = 4  # named in one row
HANG = " " * 3  # before what is left of a line that was too long

_QUEUES = (
    TableColumn("model/tier", least=12),
    TableColumn("waiting", is_number=True),
    TableColumn("given", is_number=True),
    TableColumn("oldest", is_number=True),
    TableColumn("pulls", is_number=True),
    TableColumn("tenants", least=12, is_prose=True),
    TableColumn("state", is_state=True),
)
_WORKERS = (
    TableColumn("worker", least=8),
    TableColumn("model", least=5),
    TableColumn("state", is_state=True),
    TableColumn("engine", least=6),
    TableColumn("jobs", is_number=True),
    TableColumn("tokens", is_number=True),
    TableColumn("lanes", least=5),
    TableColumn("mesh", least=5),
    TableColumn("host", least=4),
    TableColumn("heard", is_number=True),
)
_STORES = (
    TableColumn("store", least=12),
    TableColumn("messages", is_number=True),
    TableColumn("size", is_number=True),
    TableColumn("limit", is_number=True),
    TableColumn("keeps", is_number=True),
    TableColumn("copies", is_number=True),
    TableColumn("leader", least=6),
)


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of `mesh status`."""

    snapshot: Snapshot
    rates: Rates | None  # None: not measured
    findings: list[Finding]


async def show(nats: Nats, is_measured: bool, as_json: bool) -> bool:
    """Print the mesh as it is; whether anything is broken.

    Raises:
        TopologyError: there is no mesh on this NATS.
    """
    async with open_mesh(nats) as broker:
        seen = await status.snapshot(broker)
        rates = None
        if is_measured:
            before = seen
            is_busy = any(each.presence.running for each in before.workers) or any(q.jobs for q in before.queues)
            await asyncio.sleep(BEAT_S if is_busy and before.workers else LOOK_S)
            seen = await status.snapshot(broker)
            rates = status.rates(before, seen, broker.names)
    report = StatusReport(snapshot=seen, rates=rates, findings=findings(seen, broker.names))
    if as_json:
        render.say_json(msgspec.json.encode(report).decode())
    else:
        for part in parts(report, render.width()):
            if isinstance(part, TextTable):
                show_table(part.columns, part.rows)
            else:
                render.say(render.harmless(part))
    return any(each.level == "broken" for each in report.findings)


def parts(report: StatusReport, width: int) -> Iterator[str | TextTable]:
    """The report for a terminal of so many columns: lines, and tables. Pure."""
    seen = report.snapshot
    yield from (clip(line, width) for line in _head(report))
    yield ""
    shown = _worth_showing(seen.queues)
    tables = (
        (_QUEUES, [_queue(each) for each in shown]),
        (_WORKERS, [_worker(each, report.rates) for each in seen.workers]),
        (_STORES, [*_stores(seen)]),
    )
    for columns, rows in tables:
        if rows:
            most = MOST_ROWS if width < render.UNLIMITED else len(rows)
            yield TextTable(columns, rows[:most])
            yield from _more(len(rows) - most)
            yield ""
    yield from _wrong(report.findings, width)


def _head(report: StatusReport) -> Iterator[str]:
    seen, rates = report.snapshot, report.rates
    server = seen.server
    where = [f"{server.name}, nats-server {server.version}"]
    where += [f"{word} {name}" for word, name in (("cluster", server.cluster), ("domain", server.domain)) if name]
    where.append(f"answers in {server.rtt_ms:.1f} ms")
    yield f"nats     {', '.join(where)}"
    waiting, given = sum(q.waiting for q in seen.queues), sum(q.in_flight for q in seen.queues)
    yield f"jobs     {waiting:,} waiting, {given:,} given, {seen.dead_letters:,} dead letters"
    capacity = sum(each.presence.capacity for each in seen.workers)
    running = sum(each.presence.running for each in seen.workers)
    models = figures.many(len({each.presence.model for each in seen.workers}), "model")
    yield f"workers  {len(seen.workers)} of {models}, {running:,} of {figures.many(capacity, 'slot')} taken"
    if rates is not None:
        flow = f"{figures.rate(rates.submitted_per_s)} in, {figures.rate(rates.ended_per_s)} out"
        yield f"rates    {flow}, tokens {figures.rate(rates.tokens_per_s)} (over {rates.span_s:.1f} s)"


def _worth_showing(queues: Sequence[QueueDepth]) -> list[QueueDepth]:
    """Queues that hold jobs or are paused; of a model without any, the first."""
    busy = [each for each in queues if each.jobs or each.pause_left_ms]
    models = {each.model for each in busy}
    idle = {each.model: each for each in reversed(queues) if each.model not in models}
    return sorted([*busy, *idle.values()], key=lambda each: each.model)


def _queue(queue: QueueDepth) -> tuple[str, ...]:
    oldest = queue.oldest_waiting_ms
    named = [f"{each.tenant} {figures.count(each.jobs)}" for each in queue.tenants[:MOST_TENANTS]]
    if len(queue.tenants) > MOST_TENANTS:
        named.append(f"{len(queue.tenants) - MOST_TENANTS} more")
    return (
        f"{queue.model}/{queue.tier}" if queue.jobs or queue.pause_left_ms else queue.model,
        figures.count(queue.waiting),
        figures.count(queue.in_flight),
        "-" if oldest is None else figures.span(oldest),
        figures.count(queue.pulls),
        one_line(", ".join(named)) or "-",
        _state(queue),
    )


def _state(queue: QueueDepth) -> str:
    if not queue.is_declared:
        return "unknown"
    if queue.pause_left_ms:
        return "paused" if queue.pause_left_ms >= FAR_MS else f"paused {figures.span(queue.pause_left_ms)}"
    return "open"


def _worker(seen: WorkerSeen, rates: Rates | None) -> tuple[str, ...]:
    worker = seen.presence
    rate = next((each for each in rates.workers if each.worker == worker.worker), None) if rates is not None else None
    shown = (
        worker.worker,
        worker.model,
        worker.state,
        f"{worker.engine} {worker.engine_version}",
        f"{worker.running}/{worker.capacity}",
        figures.rate(rate.tokens_per_s) if rate is not None else "-",
        ranges(worker.lanes),
        worker.version,
        worker.host,
        figures.span(seen.age_ms),
    )
    return tuple(one_line(each) for each in shown)


def _stores(seen: Snapshot) -> Iterator[tuple[str, ...]]:
    for store in seen.stores:
        current = sum(each.is_current and not each.is_offline for each in store.peers)
        yield (
            store.name,
            figures.count(store.messages),
            figures.size(store.bytes),
            figures.size(store.max_bytes) if store.max_bytes else "-",
            figures.span(store.max_age_ms) if store.max_age_ms else "-",
            f"{current + bool(store.leader)}/{store.replicas}",
            store.leader or "none",
        )


def _wrong(found: Sequence[Finding], width: int) -> Iterator[str]:
    """Each finding with what to do next, below it where both are too long for one line."""
    if not found:
        yield "Nothing is wrong."
    for each in found:
        text = f"{'!!' if each.level == 'broken' else ' !'} {one_line(each.text)}"
        step = f"->  {each.next}" if each.next else ""
        if cells(f"{text}  {step}") <= width:
            yield f"{text}  {step}".rstrip()
            continue
        first, *rest = wrap(text, width - len(HANG))
        yield from (first, *(HANG + line for line in rest), *([HANG + step] if step else []))


def _more(count: int) -> list[str]:
    return [f"… and {count} more; --json has them all"] if count > 0 else []
