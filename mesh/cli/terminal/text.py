"""Text within the columns of a terminal: rich measures, cuts and wraps it. Imported by actions, never by `--help`."""

import functools
import io

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mesh.cli.terminal import render


def cells(text: str) -> int:
    """Terminal columns that `text` takes."""
    return cell_len(text)


def clip(text: str, size: int) -> str:
    """`text` in at most `size` terminal columns, with "…" where it was cut."""
    if size <= 0:
        return ""
    if cell_len(text) <= size:
        return text
    shown = Text(text)
    shown.truncate(size, overflow="ellipsis")
    return shown.plain


def wrap(text: str, columns: int) -> list[str]:
    """`text` in lines of at most `columns` terminal columns, broken at spaces where there are any; [] for no text."""
    if not text:
        return []
    whole = Text(render.harmless(text).expandtabs(4))
    return [line.plain.rstrip() for line in whole.wrap(_measure(), max(2, columns), overflow="fold")]


def one_line(text: str) -> str:
    """Returns `text` without line breaks, tabs and control characters."""
    return render.harmless(" ".join(text.split()))


@functools.cache
def _measure() -> Console:
    """rich asks for a console where it wraps; nothing is printed there."""
    return Console(file=io.StringIO(), width=80)
