"""Maps a key in `mesh top` to the next state and an action. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mesh.cli.top.tables import TABS, Row, SortOrder, Table, View
from mesh.job_key import JobKey

Mode = Literal["look", "filter", "confirm", "help"]
PAGE = 10  # rows that a page key moves by
MOST_FILTER = 40  # characters

_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -PAGE, "pagedown": PAGE, "home": -(10**6), "end": 10**6}


@dataclass(frozen=True, slots=True)
class JobScope:
    """The jobs that the view of jobs lists; None: of any."""

    model: str | None = None
    tier: str | None = None
    tenant: str | None = None

    def __str__(self) -> str:
        queue = "/".join(each for each in (self.model, self.tier) if each is not None)
        return queue or (f"tenant {self.tenant}" if self.tenant is not None else "all queues")


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell a worker to drain."""

    worker: str

    @property
    def question(self) -> str:
        return f"drain {self.worker}: it finishes what runs, and ends?"


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause a model, or one of its tiers."""

    target: str

    @property
    def question(self) -> str:
        return f"pause {self.target} until it is resumed?"


@dataclass(frozen=True, slots=True)
class Resume:
    """Resume it."""

    target: str

    @property
    def question(self) -> str:
        return f"resume {self.target}?"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a job."""

    job: JobKey

    @property
    def question(self) -> str:
        return f"cancel job {self.job.id} of tenant {self.job.tenant}?"


@dataclass(frozen=True, slots=True)
class Scroll:
    """Move the picture of one job by lines; negative: up."""

    lines: int


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave."""


Deed = Drain | Pause | Resume | Cancel
Action = Deed | Scroll | Quit


@dataclass(frozen=True, slots=True)
class State:
    """The user's choices so far."""

    view: View = "queues"
    orders: dict[View, SortOrder] = field(default_factory=dict)  # of the views that were sorted by hand
    picks: dict[View, str] = field(default_factory=dict)  # the key of the picked row of each view
    pattern: str = ""  # rows without it are not shown
    scope: JobScope = JobScope()  # of the view of jobs
    tab: View = "queues"  # where the view of jobs was opened
    job: JobKey | None = None  # of the view of one job
    mode: Mode = "look"
    pending: Deed | None = None  # waits for a yes
    note: str = ""  # the last outcome

    def order(self, table: Table) -> SortOrder:
        """How the table is sorted."""
        return self.orders.get(table.view, SortOrder(table.first))

    @property
    def picked(self) -> str:
        """The key of the picked row of this view; "": none was picked."""
        return self.picks.get(self.view, "")

    def pick(self, key: str) -> "State":
        """The same with another row picked."""
        return replace(self, picks={**self.picks, self.view: key})


def press(state: State, key: str, table: Table, rows: Sequence[Row]) -> tuple[State, Action | None]:
    """The state after a key, and an action to perform. `rows`: those shown, as they stand there."""
    match state.mode:
        case "filter":
            return _while_filtering(state, key), None
        case "confirm":
            is_yes = key in ("y", "Y")
            after = replace(state, mode="look", pending=None, note="" if is_yes else "nothing was done")
            return after, state.pending if is_yes else None
        case "help":
            return replace(state, mode="look"), None
        case _:
            return _while_looking(replace(state, note=""), key, table, rows)


def picked_row(state: State, rows: Sequence[Row]) -> int:
    """Where the picked row stands; the first, if it is there no longer."""
    return next((index for index, row in enumerate(rows) if row.key == state.picked), 0)


def hints(state: State) -> list[tuple[str, str]]:
    """Every key that does something now, with a word for it."""
    match state.mode:
        case "filter":
            return [("Enter", "keep"), ("Esc", "show all")]
        case "confirm":
            return [("y", "yes"), ("n", "no")]
        case "help":
            return [("any key", "back")]
        case _:
            return _hints_while_looking(state.view)


def _hints_while_looking(view: View) -> list[tuple[str, str]]:
    always = [("?", "help"), ("q", "quit")]
    if view == "job":
        return [("↑↓", "scroll"), ("Esc", "back"), ("c", "cancel"), *always]
    moves = [("↑↓", "pick"), ("Enter", "job" if view == "jobs" else "jobs")]
    table = [("< >", "sort"), ("r", "reverse"), ("/", "filter")]
    if view == "jobs":
        return [*moves, ("Esc", "back"), *table, ("c", "cancel"), *always]
    deeds = {
        "queues": [("p u", "pause, resume"), ("P U", "whole model")],
        "workers": [("d", "drain"), ("P U", "pause, resume model")],
        "models": [("P U", "pause, resume")],
    }
    return [*moves, ("Tab 1-4", "view"), *table, *deeds.get(view, []), *always]


def _while_filtering(state: State, key: str) -> State:
    match key:
        case "enter":
            return replace(state, mode="look")
        case "escape":
            return replace(state, mode="look", pattern="")
        case "backspace":
            return replace(state, pattern=state.pattern[:-1])
        case _ if len(key) == 1:
            return replace(state, pattern=(state.pattern + key)[:MOST_FILTER])
        case _:
            return state


def _while_looking(state: State, key: str, table: Table, rows: Sequence[Row]) -> tuple[State, Action | None]:
    if key == "q":
        return state, Quit()
    if key in _MOVES and state.view == "job":
        return state, Scroll(_MOVES[key])
    if key in _MOVES and rows:
        index = min(len(rows) - 1, max(0, picked_row(state, rows) + _MOVES[key]))
        return state.pick(rows[index].key), None
    if key in ("d", "p", "P", "u", "U", "c"):
        return _ask(state, key, rows), None
    if key == "enter":
        return _opened(state, rows), None
    if key == "escape":
        return _closed(state), None
    return _change_view(state, key, table), None


def _opened(state: State, rows: Sequence[Row]) -> State:
    """One level further in: from a queue, worker, tenant or model to its jobs, and from there to one of them."""
    if not rows or state.view == "job":
        return state
    row = rows[picked_row(state, rows)]
    state = state.pick(row.key)
    if state.view == "jobs":
        return replace(state, view="job", job=job_of(row))
    scope = JobScope(tenant=row.key) if state.view == "tenants" else JobScope(model=row.model)
    if state.view == "queues":
        scope = replace(scope, tier=row.key.rpartition("/")[2])
    picks: dict[View, str] = {view: key for view, key in state.picks.items() if view != "jobs"}
    return replace(state, view="jobs", tab=state.view, scope=scope, picks=picks, pattern="")


def _closed(state: State) -> State:
    """Without its filter; or one level further out."""
    if state.view == "job":
        return replace(state, view="jobs", job=None)
    if state.pattern:
        return replace(state, pattern="")
    return replace(state, view=state.tab) if state.view == "jobs" else state


def _change_view(state: State, key: str, table: Table) -> State:
    order = state.order(table)
    match key:
        case "tab" | "backtab":
            step = 1 if key == "tab" else -1
            here = TABS.index(state.view) if state.view in TABS else TABS.index(state.tab)
            return _tab(state, TABS[(here + step) % len(TABS)])
        case "1" | "2" | "3" | "4":
            return _tab(state, TABS[int(key) - 1])
        case "?" | "h":
            return replace(state, mode="help")
        case _ if state.view == "job":
            return state
        case "right" | "s" | ">":
            return _sorted(state, SortOrder((order.column + 1) % len(table.columns)))
        case "left" | "<":
            return _sorted(state, SortOrder((order.column - 1) % len(table.columns)))
        case "r":
            return _sorted(state, replace(order, is_reversed=not order.is_reversed))
        case "/":
            return replace(state, mode="filter")
        case _:
            return state


def _tab(state: State, view: View) -> State:
    return replace(state, view=view, tab=view, job=None)


def _sorted(state: State, order: SortOrder) -> State:
    return replace(state, orders={**state.orders, state.view: order})


def job_of(row: Row) -> JobKey:
    """The job of a row of the view of jobs."""
    tenant, _, job = row.key.partition("/")
    return JobKey(tenant, job)


def _ask(state: State, key: str, rows: Sequence[Row]) -> State:
    """Have a deed confirmed, if the view has something to do it to."""
    deed = _deed(state, key, rows[picked_row(state, rows)] if rows else None)
    if deed is not None:
        return replace(state, mode="confirm", pending=deed)
    if key == "c":
        return replace(state, note="pick a job first: Enter on a queue lists its jobs")
    where = "workers" if key == "d" else "queues"
    return replace(state, note=f"pick a row of the view of {where} first ({TABS.index(where) + 1})")


def _deed(state: State, key: str, row: Row | None) -> Deed | None:
    if key == "c" and state.view == "job":
        return Cancel(state.job) if state.job is not None else None
    if row is None or state.view == "job":
        return None
    match key:
        case "c" if state.view == "jobs":
            return Cancel(job_of(row))
        case "d" if state.view == "workers":
            return Drain(row.key)
        case "p" | "u" if state.view == "queues":
            return Pause(row.key) if key == "p" else Resume(row.key)
        case "P" | "U" if state.view in ("queues", "workers", "models"):
            return Pause(row.model) if key == "P" else Resume(row.model)
        case _:
            return None
