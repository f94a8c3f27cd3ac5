"""Tables: laid out by rich in a terminal; whole, plain and one row a line where stdout is a pipe or a file."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mesh.cli.terminal import render
from mesh.cli.terminal.text import cells, one_line

GAP = 2  # columns between two columns of a table

# The first word of a state, and its colour; rich leaves colours out where NO_COLOR is set.
_STATE_STYLES = {
    "paused": "yellow",
    "draining": "yellow",
    "starting": "yellow",
    "retrying": "yellow",
    "differs": "yellow",
    "unknown": "bold red",
    "failed": "bold red",
}


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table."""

    title: str
    is_number: bool = False
    least: int = 0  # columns it may shrink to where the terminal is too narrow; 0: it never shrinks
    is_prose: bool = False  # it goes on below where it is too long; else it is cut
    is_state: bool = False  # its words have colours


@dataclass(frozen=True, slots=True)
class TextTable:
    """The columns of a table, and its rows."""

    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[str]]


def show_table(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table on stdout. Control characters are removed from its cells."""
    table = TextTable(columns, rows)
    if not render.is_terminal():
        for line in plain_lines(table):
            render.say(line)
        return
    width = render.width()
    Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False).print(grid(table, width))


def plain_lines(table: TextTable) -> list[str]:
    """The table whole: as wide as it must be, nothing cut, no colours, two spaces or more between columns."""
    rows = [[each.title for each in table.columns], *([one_line(cell) for cell in row] for row in table.rows)]
    wide = [max(cells(row[place]) for row in rows) for place in range(len(table.columns))]
    return [(" " * GAP).join(map(_padded, row, wide, table.columns)).rstrip() for row in rows]


def grid(table: TextTable, width: int) -> Table:
    """The table as rich lays it out in a terminal of so many columns."""
    rows = [[one_line(cell) for cell in row] for row in table.rows]
    wide = [max([cells(each.title), *(cells(row[at]) for row in rows)]) for at, each in enumerate(table.columns)]
    gap = GAP if sum(wide) + GAP * (len(wide) - 1) <= width else 1
    sizes = _shrunk(wide, table.columns, width - gap * (len(wide) - 1))
    shown = Table(box=None, pad_edge=False, show_edge=False, padding=(0, gap, 0, 0))
    for place, column in enumerate(table.columns):
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        shown.add_column(Text(column.title, "bold"), justify=justify, width=sizes[place] if sizes else None)
    for row in rows:
        shown.add_row(*map(_cell, row, table.columns))
    return shown


def _shrunk(wide: Sequence[int], columns: Sequence[TableColumn], room: int) -> list[int]:
    """How wide each column is: those that may shrink do so, the one with most to spare first; [] if it is no use."""
    least = [min(size, each.least) if each.least else size for size, each in zip(wide, columns, strict=True)]
    if sum(least) > room:
        return []
    sizes = list(wide)
    while sum(sizes) > room:
        spare = [size - end for size, end in zip(sizes, least, strict=True)]
        sizes[spare.index(max(spare))] -= 1
    return sizes


def _cell(text: str, column: TableColumn) -> Text:
    style = _STATE_STYLES.get(text.partition(" ")[0], "") if column.is_state else ""
    overflow: Literal["fold", "ellipsis"] = "fold" if column.is_prose else "ellipsis"
    return Text(text, style=style, no_wrap=not column.is_prose, overflow=overflow)


def _padded(text: str, size: int, column: TableColumn) -> str:
    pad = " " * (size - cells(text))
    return pad + text if column.is_number else text + pad
