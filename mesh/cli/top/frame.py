"""One picture of `mesh top`: state, mesh and size of the terminal in, exactly as many lines out, each exactly as wide.

Nothing here knows of a terminal; `cli/terminal/fullscreen` draws. What comes from the mesh is made harmless here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mesh.cli.terminal import figures, render
from mesh.cli.top.keys import State, picked_row
from mesh.cli.top.tables import VIEWS, Column, Row, SortOrder, Table, View, arranged, bar, table
from mesh.control.status.depth import Rates, Snapshot

Look = Literal["plain", "strong", "title", "picked", "bad", "foot"]
HEADER = 6  # lines above the rows, with the titles of the columns
LEAST_NAME = 10  # columns of a table's first column, before others are left out
MOST_NAME = 40
STALE_S = 3.0

_KEYS = "q quit  ? help  Tab view  <> sort  r reverse  / filter"
_DEEDS: dict[View, str] = {"queues": "  p pause  u resume", "workers": "  d drain", "tenants": ""}
_HELP = (
    "Tab, 1 2 3      queues, workers, tenants",
    "up, down, j, k  pick a row; PgUp, PgDn, Home, End",
    "<, >, s         sort by the column before, or after",
    "r               the other way round",
    "/               show only rows with a text; Esc shows all again",
    "p, u            pause or resume the picked queue",
    "P, U            pause or resume its whole model",
    "d               drain the picked worker: it finishes what runs, and ends",
    "q, Ctrl-C       leave",
    "",
    "RUNNING counts jobs given to workers; OLDEST is how long a job has waited;",
    "PULLS are free slots that ask for jobs there. A row in bold needs a look.",
    "What is asked for with p, u and d is done after a yes.",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen, as wide as it."""

    text: str
    look: Look = "plain"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of the mesh."""

    namespace: str
    seen: Snapshot
    rates: Rates | None = None
    age_s: float = 0.0  # since it was seen
    trouble: str = ""  # why it was not seen since
    clock: str = ""  # the time of day, for the corner


def shown(state: State, sight: Sight) -> tuple[Table, list[Row]]:
    """The table of the state's view, and its rows as they are shown."""
    whole = table(state.view, sight.seen, sight.rates)
    return whole, arranged(whole, state.order(whole), state.pattern)


def frame(state: State, sight: Sight, width: int, height: int) -> list[Line]:
    """`height` lines of `width` columns each."""
    whole, rows = shown(state, sight)
    lines = [Line(text, "strong" if number == 0 else "plain") for number, text in enumerate(_head(sight, width))]
    lines.append(_trouble(sight, state))
    lines.append(Line(_tabs(state, whole), "strong"))
    if state.mode == "help":
        lines += [Line(""), *(Line("  " + text) for text in _HELP)]
    else:
        lines += _rows(state, whole, rows, width, height - HEADER - 1)
    body = lines[: max(0, height - 1)]
    body += [Line("")] * (height - 1 - len(body))
    return [Line(_fit(line.text, width), line.look) for line in (*body, Line(_foot(state), "foot"))][-height:]


def _head(sight: Sight, width: int) -> Iterator[str]:
    seen, rates = sight.seen, sight.rates
    server = seen.server
    cluster = f", cluster {server.cluster}" if server.cluster else ""
    name = (
        f"mesh top  {sight.namespace} on {server.name}{cluster}, nats-server {server.version}, {server.rtt_ms:.1f} ms"
    )
    yield _ends(name, sight.clock, width)
    waiting, running = sum(q.waiting for q in seen.queues), sum(q.in_flight for q in seen.queues)
    dead = figures.many(seen.dead_letters, "dead letter")
    flow = (
        f"in {figures.rate(rates.submitted_per_s)}  out {figures.rate(rates.ended_per_s)}" if rates else "in -  out -"
    )
    yield _ends(f"jobs      {waiting:,} waiting, {running:,} running, {dead}", flow, width)
    capacity = sum(each.presence.capacity for each in seen.workers)
    busy = sum(each.presence.running for each in seen.workers)
    models = figures.many(len({each.presence.model for each in seen.workers}), "model")
    tokens = f"tokens {figures.rate(rates.tokens_per_s if rates else None)}"
    slots = f"{bar(busy, capacity)} {busy:,}/{capacity:,} slots"
    yield _ends(f"workers   {len(seen.workers)} of {models}  {slots}", tokens, width)


def _ends(left: str, right: str, width: int) -> str:
    """One text at either end of a line; the right one only where there is room."""
    left = _clean(left)
    room = width - render.cells(left) - render.cells(right)
    return f"{left}{' ' * room}{right}" if room >= 2 else left


def _trouble(sight: Sight, state: State) -> Line:
    if sight.trouble:
        return Line(f"as of {figures.span(sight.age_s * 1000)} ago: {_clean(sight.trouble)}", "bad")
    if sight.age_s > STALE_S:
        return Line(f"as of {figures.span(sight.age_s * 1000)} ago: NATS takes long to answer", "bad")
    missing = ", ".join(sight.seen.missing)
    if missing:
        return Line(f"missing: {_clean(missing)}; `mesh doctor` tells what to do", "bad")
    return Line(_clean(state.note))


def _tabs(state: State, whole: Table) -> str:
    tabs = "  ".join(f"[{view}]" if view == state.view else f" {view} " for view in VIEWS)
    order = state.order(whole)
    column = whole.columns[min(order.column, len(whole.columns) - 1)]
    way = " reversed" if order.is_reversed else ""
    kept = f"   only: {_clean(state.pattern)}" if state.pattern and state.mode != "filter" else ""
    return f"{tabs}   by {column.title.lower()}{way}{kept}"


def _rows(state: State, whole: Table, rows: Sequence[Row], width: int, room: int) -> Iterator[Line]:
    sizes = _layout(whole.columns, width)
    yield Line(_titles(whole.columns, sizes, state.order(whole)), "title")
    if not rows:
        yield Line("  nothing with that in it; Esc shows all" if state.pattern else f"  no {state.view}")
    index = picked_row(state, rows)
    first = max(0, min(index - room // 2, len(rows) - room))
    for number, row in enumerate(rows[first : first + max(0, room)], first):
        cells = [_cell(_clean(row.cells[at]), size, whole.columns[at]) for at, size in sizes]
        look: Look = "picked" if number == index and state.view != "tenants" else "bad" if row.is_bad else "plain"
        yield Line(" ".join(cells), look)


def _layout(columns: Sequence[Column], width: int) -> list[tuple[int, int]]:
    """The columns that find room, each with its size."""
    kept = list(range(len(columns)))

    def left() -> int:
        return width - sum(columns[at].size + 1 for at in kept if at)

    while left() < LEAST_NAME and len(kept) > 1:
        kept.remove(min(kept[1:], key=lambda at: (columns[at].worth, -at)))
    name = max(1, min(left(), MOST_NAME))
    # What a wide terminal has left goes to the column that says most.
    widest = max((at for at in kept if at), key=lambda at: columns[at].size * (not columns[at].is_number), default=0)
    sizes = {at: columns[at].size for at in kept} | {0: name}
    sizes[widest] += max(0, left() - name)
    return [(at, sizes[at]) for at in kept]


def _titles(columns: Sequence[Column], sizes: Sequence[tuple[int, int]], order: SortOrder) -> str:
    def title(at: int) -> str:
        return f"*{columns[at].title}" if at == order.column else columns[at].title

    return " ".join(_cell(title(at), size, columns[at]) for at, size in sizes)


def _cell(text: str, size: int, column: Column) -> str:
    text = render.clip(text, size)
    pad = " " * (size - render.cells(text))
    return pad + text if column.is_number else text + pad


def _foot(state: State) -> str:
    match state.mode:
        case "filter":
            return f"/{_clean(state.pattern)}_   Enter keeps it, Esc shows all"
        case "confirm" if state.pending is not None:
            return f"{_clean(state.pending.question)} (y/n)"
        case "help":
            return "any key goes back"
        case _:
            return _KEYS + _DEEDS[state.view]


def _clean(text: str) -> str:
    return render.harmless(text.replace("\n", " ").replace("\t", " "))


def _fit(text: str, width: int) -> str:
    text = render.clip(text, width)
    return text + " " * (width - render.cells(text))
