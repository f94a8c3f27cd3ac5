"""Displays that change in place, drawn by rich: texts that grow side by side, and one line of progress."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

from mesh.cli.terminal import render
from mesh.cli.terminal.text import cells, clip, wrap
from mesh.clock import SYSTEM

MOST_BODY_LINES = 6  # more of one text than this is hard to follow
INDENT = "  "
DRAW_S = 0.1  # between two drawings of a line of progress

Tell = Callable[[str, int], None]  # called with a message and the completed part of the total


@dataclass(slots=True)
class Pane:
    """One text, with what it answers."""

    title: str
    text: str = ""
    tokens: int = 0
    is_over: bool = False


class PaneStack:
    """Panes below each other, as rich draws them: within the terminal as it is then."""

    def __init__(self, panes: Sequence[Pane]) -> None:
        self._panes = panes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        size = options.size
        for line in layout(self._panes, size.width, size.height):
            yield Text(line, no_wrap=True, overflow="crop")


@contextlib.contextmanager
def drawn_panes(panes: Sequence[Pane]) -> Iterator[Callable[[], None]]:
    """Panes on stdout, a terminal, for as long as the context lasts; draws them anew at each call. The last picture
    stays.
    """
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    stack = PaneStack(panes)
    with Live(stack, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        yield live.refresh


def layout(panes: Sequence[Pane], width: int, height: int) -> list[str]:
    """The lines that show `panes` on a terminal: fewer than `height`, none as wide as `width`.

    Each pane has its title and the end of its text; where there is no room for that, the title alone.
    """
    columns, room = max(1, width - 1), max(1, height - 1)
    shown = panes if len(panes) <= room else panes[: room - 1]
    body_lines = min(MOST_BODY_LINES, room // len(panes) - 1) if panes else 0
    lines: list[str] = []
    for pane in shown:
        lines.append(_title(pane, columns))
        if body_lines > 0:
            body = wrap(pane.text, columns - len(INDENT))[-body_lines:]
            lines += [INDENT + line for line in body]
            lines += [""] * (body_lines - len(body))
    if len(shown) < len(panes):
        lines.append(f"… and {len(panes) - len(shown)} more")
    return [clip(line, columns) for line in lines]


@contextlib.contextmanager
def progress(every_s: float | None = None, total: int | None = None) -> Iterator[Tell]:
    """Tells on stderr how far a command is, for as long as the context lasts.

    In a terminal it is a line that is drawn anew, with a bar if `total` is given, and gone in the end. Elsewhere it is
    a line every `every_s` seconds; None: nothing.
    """
    if not render.is_watched():
        yield _every(every_s) if every_s is not None else _nothing
        return
    parts: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if total is not None:
        parts.insert(0, BarColumn(bar_width=30))
    console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
    bar = Progress(*parts, console=console, transient=True, auto_refresh=False, redirect_stdout=False)
    task = bar.add_task("", total=total)
    drawn_s = 0.0

    def tell(text: str, done: int = 0) -> None:
        nonlocal drawn_s
        now_s = SYSTEM.monotonic_s()
        if now_s - drawn_s >= DRAW_S:
            drawn_s = now_s
            bar.update(task, description=render.harmless(text), completed=done, refresh=True)

    with bar:
        yield tell


def _every(every_s: float) -> Tell:
    told_s = SYSTEM.monotonic_s()

    def tell(text: str, done: int = 0) -> None:
        nonlocal told_s
        now_s = SYSTEM.monotonic_s()
        if now_s - told_s >= every_s:
            told_s = now_s
            render.event(text)

    return tell


def _nothing(text: str, done: int = 0) -> None:
    pass


def _title(pane: Pane, columns: int) -> str:
    title = render.harmless(pane.title)
    state = f"({pane.tokens} tokens{'' if pane.is_over else ' …'})" if pane.tokens or pane.is_over else "(queued)"
    room = columns - cells(state) - 1
    return clip(title, columns) if room < cells(state) else f"{clip(title, room)} {state}"
