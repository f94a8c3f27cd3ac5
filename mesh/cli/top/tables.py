"""The tables of `mesh top`, one per view, with their sorted and filtered rows. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mesh.cli.terminal import figures
from mesh.cli.top.hour import ModelHour, spark
from mesh.control.jobs.job_state import JobSeen
from mesh.control.status.checks import FAR_MS
from mesh.control.status.depth import QueueDepth, Rates, Snapshot, WorkerSeen
from mesh.protocol.timing import PRESENCE_SILENT_S

View = Literal["queues", "workers", "tenants", "models", "jobs", "job"]
TABS: tuple[View, ...] = ("queues", "workers", "tenants", "models")
Tone = Literal["bad", "warn", "good"]

BAR = 10  # columns of a load bar, without its brackets
SLOW_MS = 60_000  # a job that waits longer deserves a look
SPARK = 30  # columns of an hour: two minutes each
GAP = 2  # columns between two columns
LEAST_NAME = 10  # columns of a table's first column, before others are left out
MOST_NAME = 40


@dataclass(frozen=True, slots=True)
class Column:
    """One column. The first of a table is as wide as there is room."""

    title: str
    size: int = 0  # columns of the terminal; 0: what the others leave
    is_number: bool = False
    worth: int = 9  # where there is no room, the least worth goes first; 9: it stays


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    key: str  # tells it from the others, also once they are sorted anew
    cells: tuple[str, ...]
    order: tuple[float | str, ...]  # the sort key of each column
    model: str = ""
    tones: Mapping[int, Tone] = field(default_factory=dict)  # of the columns that deserve a look


@dataclass(frozen=True, slots=True)
class Table:
    """One view."""

    view: View
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    first: int  # the column it is sorted by until told otherwise


@dataclass(frozen=True, slots=True)
class TableSources:
    """The inputs of tables beside the snapshot."""

    jobs: Sequence[JobSeen] = ()
    hours: Mapping[str, ModelHour] = field(default_factory=dict)  # by model; empty: the mesh keeps no audit


@dataclass(frozen=True, slots=True)
class SortOrder:
    """By which column, and which way. Numbers start with the largest, names with the first."""

    column: int
    is_reversed: bool = False


_QUEUES = (
    Column("MODEL/TIER"),
    Column("WAITING", 8, True),
    Column("RUNNING", 8, True),
    Column("OLDEST", 7, True, 7),
    Column("PULLS", 6, True, 3),
    Column("TENANTS", 18, False, 2),
    Column("STATE", 11, False, 8),
)
_WORKERS = (
    Column("WORKER"),
    Column("MODEL", 12, False, 7),
    Column("STATE", 8, False, 6),
    Column("LOAD", BAR + 2, False, 5),
    Column("JOBS", 7, True),
    Column("TOKENS/S", 9, True, 8),
    Column("DONE", 6, True, 3),
    Column("HEARD", 6, True, 4),
    Column("HOST", 14, False, 1),
)
_MODELS = (
    Column("MODEL"),
    Column("WAITING", 8, True),
    Column("RUNNING", 8, True),
    Column("WORKERS", 7, True, 6),
    Column("TOKENS/S", 8, True, 7),
    Column("LAST HOUR", SPARK, False, 4),
    Column("ENDED", 6, True, 3),
    Column("FAILED", 6, True, 2),
    Column("FIRST", 6, True, 8),
    Column("P95", 6, True, 5),
)
_JOBS = (
    Column("JOB"),
    Column("TENANT", 12, False, 5),
    Column("MODEL/TIER", 20, False, 2),
    Column("STATE", 8, False, 8),
    Column("AGE", 5, True, 7),
    Column("LEFT", 5, True, 4),
    Column("TRY", 4, True, 3),
    Column("TOKENS", 7, True, 6),
    Column("WORKER", 12, False, 1),
)
_STATE_TONES: dict[str, Tone] = {"running": "good", "retrying": "warn", "starting": "warn", "draining": "warn"}
_TENANTS = (
    Column("TENANT"),
    Column("JOBS", 7, True),
    Column("SHARE", 6, True, 5),
    Column("WHERE", 46, False, 6),
)


def table(view: View, seen: Snapshot, rates: Rates | None, more: TableSources) -> Table:
    """The table of a view; that of one job has no rows."""
    match view:
        case "queues":
            alive = {each.presence.model for each in seen.workers}
            return Table(view, _QUEUES, tuple(_queue(each, each.model in alive) for each in seen.queues), 1)
        case "workers":
            return Table(view, _WORKERS, tuple(_worker(each, rates) for each in seen.workers), 5)
        case "tenants":
            return Table(view, _TENANTS, tuple(_tenants(seen.queues)), 1)
        case "models":
            return Table(view, _MODELS, tuple(_models(seen, rates, more.hours)), 1)
        case _:
            return Table(view, _JOBS, tuple(map(_job, more.jobs)) if view == "jobs" else (), 4)


def arranged(table: Table, order: SortOrder, pattern: str) -> list[Row]:
    """The rows with `pattern` anywhere in them, in this order; equals by their keys."""
    wanted = pattern.casefold()
    rows = [row for row in table.rows if any(wanted in cell.casefold() for cell in (row.key, *row.cells))]
    rows.sort(key=lambda row: row.key)
    column = min(order.column, len(table.columns) - 1)
    is_falling = table.columns[column].is_number is not order.is_reversed
    rows.sort(key=lambda row: row.order[column], reverse=is_falling)
    return rows


def layout(columns: Sequence[Column], width: int) -> list[tuple[int, int]]:
    """The columns that find room, each with its size."""
    kept = list(range(len(columns)))

    def left() -> int:
        return width - GAP - sum(columns[at].size + GAP for at in kept if at)

    while left() < LEAST_NAME and len(kept) > 1:
        kept.remove(min(kept[1:], key=lambda at: (columns[at].worth, -at)))
    name = max(1, min(left(), MOST_NAME))
    # The spare width of a terminal goes to the widest text column.
    widest = max((at for at in kept if at), key=lambda at: columns[at].size * (not columns[at].is_number), default=0)
    sizes = {at: columns[at].size for at in kept} | {0: name}
    if columns[widest].title != "LAST HOUR":
        sizes[widest] += max(0, left() - name)
    return [(at, sizes[at]) for at in kept]


def bar(value: int, limit: int, size: int = BAR) -> str:
    """`[####------]`; empty only at nothing, full only at all."""
    share = value / limit if limit else 0.0
    filled = min(size, round(share * size))
    if 0 < value < limit:
        filled = min(size - 1, max(1, filled))
    return f"[{'#' * filled}{'-' * (size - filled)}]"


def _queue(queue: QueueDepth, is_served: bool) -> Row:
    oldest = queue.oldest_waiting_ms
    tenants = ", ".join(f"{each.tenant} {figures.count(each.jobs)}" for each in queue.tenants)
    state = pause_state(queue)
    cells = (
        f"{queue.model}/{queue.tier}",
        figures.count(queue.waiting),
        figures.count(queue.in_flight),
        "-" if oldest is None else figures.span(oldest),
        figures.count(queue.pulls),
        tenants or "-",
        state,
    )
    order = (cells[0], queue.waiting, queue.in_flight, oldest or 0, queue.pulls, tenants, state)
    tones: dict[int, Tone] = {}
    if queue.waiting and not is_served:
        tones[1] = "bad"
    if oldest is not None and oldest > SLOW_MS:
        tones[3] = "warn"
    if state != "open":
        tones[6] = "warn" if queue.is_declared else "bad"
    return Row(cells[0], cells, order, queue.model, tones)


def pause_state(queue: QueueDepth) -> str:
    """Whether jobs of it are given out."""
    if not queue.is_declared:
        return "unknown"
    if queue.pause_left_ms:
        return "paused" if queue.pause_left_ms >= FAR_MS else f"paused {figures.span(queue.pause_left_ms)}"
    return "open"


def _worker(seen: WorkerSeen, rates: Rates | None) -> Row:
    worker = seen.presence
    rate = next((each for each in rates.workers if each.worker == worker.worker), None) if rates is not None else None
    tokens = rate.tokens_per_s if rate is not None else None
    cells = (
        worker.worker,
        worker.model,
        worker.state,
        bar(worker.running, worker.capacity),
        f"{worker.running}/{worker.capacity}",
        figures.rate(tokens).removesuffix("/s"),
        figures.count(worker.finished),
        figures.span(seen.age_ms),
        worker.host,
    )
    load = worker.running / worker.capacity if worker.capacity else 0.0
    order = (
        worker.worker,
        worker.model,
        worker.state,
        load,
        worker.running,
        tokens or 0.0,
        worker.finished,
        seen.age_ms,
        worker.host,
    )
    tones: dict[int, Tone] = {2: _STATE_TONES[worker.state]} if worker.state in _STATE_TONES else {}
    if seen.age_ms > PRESENCE_SILENT_S * 1000:
        tones[7] = "bad"
    return Row(worker.worker, cells, order, worker.model, tones)


def _models(seen: Snapshot, rates: Rates | None, hours: Mapping[str, ModelHour]) -> list[Row]:
    names = sorted({each.model for each in seen.queues} | {each.presence.model for each in seen.workers} | {*hours})
    per_s = {each.model: each.tokens_per_s for each in rates.models} if rates is not None else {}
    return [_model(name, seen, per_s.get(name), hours.get(name)) for name in names]


def _model(name: str, seen: Snapshot, tokens_per_s: float | None, hour: ModelHour | None) -> Row:
    queues = [each for each in seen.queues if each.model == name]
    waiting, running = sum(each.waiting for each in queues), sum(each.in_flight for each in queues)
    workers = sum(each.presence.model == name for each in seen.workers)
    cells = (
        name,
        figures.count(waiting),
        figures.count(running),
        str(workers),
        figures.rate(tokens_per_s).removesuffix("/s"),
        "no audit" if hour is None else spark(hour.tokens, SPARK),
        "-" if hour is None else figures.count(hour.ended),
        "-" if hour is None else figures.count(hour.failed),
        _span(hour.first_p50_ms if hour is not None else None),
        _span(hour.first_p95_ms if hour is not None else None),
    )
    ended, failed = (hour.ended, hour.failed) if hour is not None else (0, 0)
    first, late = (hour.first_p50_ms or 0, hour.first_p95_ms or 0) if hour is not None else (0, 0)
    tokens = sum(hour.tokens) if hour is not None else 0
    order = (name, waiting, running, workers, tokens_per_s or 0.0, float(tokens), ended, failed, first, late)
    tones: dict[int, Tone] = {5: "good"}
    if not workers:
        tones[3] = "bad" if waiting else "warn"
    if failed:
        tones[7] = "bad"
    return Row(name, cells, order, name, tones)


def _job(seen: JobSeen) -> Row:
    cells = (
        seen.job,
        seen.tenant,
        f"{seen.model}/{seen.tier}",
        seen.state,
        figures.span(seen.age_ms),
        figures.span(seen.deadline_ms) if seen.deadline_ms > 0 else "past",
        str(seen.attempt) if seen.attempt else "-",
        figures.count(seen.tokens) if seen.attempt else "-",
        seen.worker or "-",
    )
    order = (
        seen.job,
        seen.tenant,
        cells[2],
        seen.state,
        seen.age_ms,
        seen.deadline_ms,
        seen.attempt,
        seen.tokens,
        seen.worker,
    )
    tones: dict[int, Tone] = {3: _STATE_TONES[seen.state]} if seen.state in _STATE_TONES else {}
    if seen.deadline_ms <= 0:
        tones[5] = "bad"
    if seen.attempt > 1:
        tones[6] = "warn"
    return Row(f"{seen.tenant}/{seen.job}", cells, order, seen.model, tones)


def _span(ms: int | None) -> str:
    return "-" if ms is None else figures.span(ms)


def _tenants(queues: Sequence[QueueDepth]) -> list[Row]:
    jobs: dict[str, dict[str, int]] = {}
    for queue in queues:
        for each in queue.tenants:
            where = jobs.setdefault(each.tenant, {})
            name = f"{queue.model}/{queue.tier}"
            where[name] = where.get(name, 0) + each.jobs
    total = sum(sum(where.values()) for where in jobs.values())
    rows = []
    for tenant, where in jobs.items():
        own = sum(where.values())
        shown = ", ".join(f"{name} {figures.count(count)}" for name, count in sorted(where.items(), key=_most))
        cells = (tenant, figures.count(own), f"{100 * own // max(1, total)}%", shown)
        rows.append(Row(tenant, cells, (tenant, own, own, shown)))
    return rows


def _most(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
