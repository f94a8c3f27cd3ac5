"""What a key does in `mesh top`: from one state to the next, and what is to be done about it. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mesh.cli.top.tables import VIEWS, Row, SortOrder, Table, View

Mode = Literal["look", "filter", "confirm", "help"]
PAGE = 10  # rows that a page key moves by
MOST_FILTER = 40  # characters

# What terminals send for keys that are no characters.
_SEQUENCES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "OA": "up",
    "OB": "down",
    "OC": "right",
    "OD": "left",
    "[5~": "pageup",
    "[6~": "pagedown",
    "[H": "home",
    "[F": "end",
    "[1~": "home",
    "[4~": "end",
    "[Z": "backtab",
}
_CONTROLS = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace", "\x0c": "redraw"}
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z~]|O[A-Za-z])?")
_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -PAGE, "pagedown": PAGE, "home": -(10**6), "end": 10**6}


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
class Quit:
    """Leave."""


Deed = Drain | Pause | Resume
Action = Deed | Quit


@dataclass(frozen=True, slots=True)
class State:
    """What the user chose so far."""

    view: View = "queues"
    orders: dict[View, SortOrder] = field(default_factory=dict)  # of the views that were sorted by hand
    pattern: str = ""  # rows without it are not shown
    picked: str = ""  # the key of a row
    mode: Mode = "look"
    pending: Deed | None = None  # waits for a yes
    note: str = ""  # what happened last

    def order(self, table: Table) -> SortOrder:
        """How the table is sorted."""
        return self.orders.get(table.view, SortOrder(table.first))


def read_keys(text: str) -> list[str]:
    """The keys in what a terminal sent: characters as they are, others by their names; unknown ones are left out."""
    keys: list[str] = []
    while text:
        escape = _ESCAPE.match(text)
        if escape:
            text = text[escape.end() :]
            name = _SEQUENCES.get(escape[1] or "", "escape" if escape[1] is None else "")
            keys += [name] if name else []
            continue
        char, text = text[0], text[1:]
        if char in _CONTROLS:
            keys.append(_CONTROLS[char])
        elif char.isprintable():
            keys.append(char)
    return keys


def press(state: State, key: str, table: Table, rows: Sequence[Row]) -> tuple[State, Action | None]:
    """The state after a key, and what is to be done. `rows`: those shown, as they stand there."""
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
    if key in _MOVES and rows:
        index = min(len(rows) - 1, max(0, picked_row(state, rows) + _MOVES[key]))
        return replace(state, picked=rows[index].key), None
    if key in ("d", "p", "P", "u", "U"):
        return _ask(state, key, rows), None
    return _change_view(state, key, table), None


def _change_view(state: State, key: str, table: Table) -> State:
    order = state.order(table)
    match key:
        case "tab" | "backtab":
            step = 1 if key == "tab" else -1
            return replace(state, view=VIEWS[(VIEWS.index(state.view) + step) % len(VIEWS)], picked="")
        case "1" | "2" | "3":
            return replace(state, view=VIEWS[int(key) - 1], picked="")
        case "right" | "s" | ">":
            return _sorted(state, SortOrder((order.column + 1) % len(table.columns)))
        case "left" | "<":
            return _sorted(state, SortOrder((order.column - 1) % len(table.columns)))
        case "r":
            return _sorted(state, replace(order, is_reversed=not order.is_reversed))
        case "/":
            return replace(state, mode="filter")
        case "escape":
            return replace(state, pattern="")
        case "?" | "h":
            return replace(state, mode="help")
        case _:
            return state


def _sorted(state: State, order: SortOrder) -> State:
    return replace(state, orders={**state.orders, state.view: order})


def _ask(state: State, key: str, rows: Sequence[Row]) -> State:
    """Have a deed confirmed, if the view has something to do it to."""
    row = rows[picked_row(state, rows)] if rows else None
    deed: Deed | None = None
    if row is not None and key == "d" and state.view == "workers":
        deed = Drain(row.key)
    elif row is not None and key in ("p", "u") and state.view == "queues":
        deed = Pause(row.key) if key == "p" else Resume(row.key)
    elif row is not None and key in ("P", "U") and state.view in ("queues", "workers"):
        deed = Pause(row.model) if key == "P" else Resume(row.model)
    if deed is None:
        where = "workers" if key == "d" else "queues"
        return replace(state, note=f"pick a row of the view of {where} first ({VIEWS.index(where) + 1})")
    return replace(state, mode="confirm", pending=deed)
