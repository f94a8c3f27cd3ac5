"""Everything the command line prints: answers on stdout, everything about them on stderr."""

import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

NARROW = 80  # columns, where the terminal does not say


def say(text: str = "") -> None:
    """One line of what was asked for."""
    print(text, flush=True)


def write(text: str) -> None:
    """A piece of an answer, as it comes."""
    print(harmless(text) if is_terminal() else text, end="", flush=True)


def raw(text: str) -> None:
    """What steers the terminal itself."""
    print(text, end="", flush=True)


def note(text: str) -> None:
    """One line beside the answer."""
    print(text, file=sys.stderr, flush=True)


def event(text: str) -> None:
    """One thing that happened to a long-running command."""
    print(f"mesh: {text}", file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Why the command could not do what it should."""
    print(f"mesh: {text}", file=sys.stderr, flush=True)


def progress(text: str) -> None:
    """A line of a terminal that the next one replaces; "" clears it. Only where stderr is a terminal."""
    width = shutil.get_terminal_size().columns - 1
    print(f"\r\x1b[2K{clip(text, width)}", end="", file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Whether a person watches stdout."""
    return sys.stdout.isatty()


def is_watched() -> bool:
    """Whether a person watches stderr."""
    return sys.stderr.isatty()


def width() -> int:
    """Columns of the terminal; of a narrow one where there is none."""
    return shutil.get_terminal_size((NARROW, 24)).columns if is_terminal() else NARROW


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table."""

    title: str
    is_number: bool = False
    least: int = 0  # columns it may shrink to where the table is too wide; 0: it never shrinks


def table(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The lines of a table no wider than `width`, as far as its columns can shrink. Pure."""
    wide = [max([cells(column.title), *(cells(row[index]) for row in rows)]) for index, column in enumerate(columns)]
    gap = 2 if sum(wide) + 2 * (len(wide) - 1) <= width else 1
    while sum(wide) + gap * (len(wide) - 1) > width:
        room = [size - column.least if column.least else 0 for size, column in zip(wide, columns, strict=True)]
        if max(room) <= 0:
            break
        wide[room.index(max(room))] -= 1
    lines = []
    for row in ([column.title for column in columns], *rows):
        shown = [_fit(text, size, column) for text, size, column in zip(row, wide, columns, strict=True)]
        lines.append((" " * gap).join(shown).rstrip())
    return lines


def cells(text: str) -> int:
    """Terminal columns that `text` takes. Pure."""
    return sum(map(_cells_of, text))


def clip(text: str, size: int) -> str:
    """`text` in at most `size` terminal columns, with "…" where it was cut. Pure."""
    if cells(text) <= size:
        return text
    taken, used = [], 1
    for char in text:
        used += _cells_of(char)
        if used > size:
            break
        taken.append(char)
    return "".join(taken) + "…" if size > 0 else ""


def harmless(text: str) -> str:
    """`text` without what would steer a terminal. Pure."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def _fit(text: str, size: int, column: TableColumn) -> str:
    text = clip(text, size)
    pad = " " * (size - cells(text))
    return pad + text if column.is_number else text + pad


def _cells_of(char: str) -> int:
    if unicodedata.combining(char) or not char.isprintable():
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
