"""What `mesh top` shows of a mesh: one table a view, and the rows as they are sorted and filtered. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mesh.cli.terminal import figures
from mesh.control.status.checks import FAR_MS
from mesh.control.status.depth import QueueDepth, Rates, Snapshot, WorkerSeen
from mesh.protocol.timing import PRESENCE_SILENT_S

View = Literal["queues", "workers", "tenants"]
VIEWS: tuple[View, ...] = ("queues", "workers", "tenants")

BAR = 10  # columns of a load bar, without its brackets


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
    order: tuple[float | str, ...]  # what each column is sorted by
    model: str = ""
    is_bad: bool = False  # something is wrong there


@dataclass(frozen=True, slots=True)
class Table:
    """One view."""

    view: View
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    first: int  # the column it is sorted by until told otherwise


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
_TENANTS = (
    Column("TENANT"),
    Column("JOBS", 7, True),
    Column("SHARE", 6, True, 5),
    Column("WHERE", 46, False, 6),
)


def table(view: View, seen: Snapshot, rates: Rates | None) -> Table:
    """The table of a view."""
    if view == "queues":
        return Table(view, _QUEUES, tuple(map(_queue, seen.queues)), 1)
    if view == "workers":
        return Table(view, _WORKERS, tuple(_worker(each, rates) for each in seen.workers), 5)
    return Table(view, _TENANTS, tuple(_tenants(seen.queues)), 1)


def arranged(table: Table, order: SortOrder, pattern: str) -> list[Row]:
    """The rows with `pattern` anywhere in them, in this order; equals by their keys."""
    wanted = pattern.casefold()
    rows = [row for row in table.rows if any(wanted in cell.casefold() for cell in (row.key, *row.cells))]
    rows.sort(key=lambda row: row.key)
    column = min(order.column, len(table.columns) - 1)
    is_falling = table.columns[column].is_number is not order.is_reversed
    rows.sort(key=lambda row: row.order[column], reverse=is_falling)
    return rows


def bar(value: int, limit: int, size: int = BAR) -> str:
    """`[####------]`; empty only at nothing, full only at all."""
    share = value / limit if limit else 0.0
    filled = min(size, round(share * size))
    if 0 < value < limit:
        filled = min(size - 1, max(1, filled))
    return f"[{'#' * filled}{'-' * (size - filled)}]"


def _queue(queue: QueueDepth) -> Row:
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
    return Row(cells[0], cells, order, queue.model, is_bad=not queue.is_declared)


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
    return Row(worker.worker, cells, order, worker.model, is_bad=seen.age_ms > PRESENCE_SILENT_S * 1000)


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
