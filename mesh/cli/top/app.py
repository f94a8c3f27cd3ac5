"""The screen of `mesh top`, by textual. Draws what `sight` and `tables` decide, and hands each key to `keys`."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Static

from mesh.cli.terminal.failure import SignalledError
from mesh.cli.terminal.text import cells, clip, one_line, wrap
from mesh.cli.top import sight as picture
from mesh.cli.top.deeds import Deeds
from mesh.cli.top.feed import Feed
from mesh.cli.top.keys import Quit, Scroll, State, hints, picked_row, press
from mesh.cli.top.sight import Sight
from mesh.cli.top.tables import GAP, TABS, Row, Table, Tone, View, layout

DRAW_S = 0.1  # between two pictures, however fast tokens come
TICK_S = 1.0  # the clock in the corner goes on, also while NATS does not answer
_STYLES: dict[Tone, str] = {"bad": "bold red", "warn": "yellow", "good": "green"}
_NAMES = {"ctrl+c": "interrupt", "shift+tab": "backtab"}
SIGINT = 2


class TopApp(App[BaseException | None]):
    """Shows a feed until the user leaves. Returns what ended it, None for `q`."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []
    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    Static { height: auto; }
    #trouble { text-style: bold; color: ansi_red; }
    #rows { height: 1fr; background: ansi_default; overflow-x: hidden; }
    #rows > .datatable--header { text-style: reverse; background: ansi_default; color: ansi_default; }
    #rows > .datatable--cursor { text-style: bold reverse; background: ansi_default; color: ansi_default; }
    #rows > .datatable--hover, #rows > .datatable--header-hover { background: ansi_default; }
    #detail-scroll { height: 2fr; background: ansi_default; }
    #output { height: 1fr; border-top: solid ansi_default; }
    #help { height: 1fr; }
    #foot { dock: bottom; text-style: reverse; }
    """

    def __init__(self, feed: Feed, deeds: Deeds) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"  # the terminal's own colours
        self.state = State()
        self._feed = feed
        self._deeds = deeds
        self._columns: list[tuple[str, int]] = []  # titles and sizes of the table as it stands
        self._keys: list[str] = []  # of its rows
        self._cells: list[list[Text]] = []
        self._is_stale = False

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="trouble")
        yield Static(id="tabs")
        rows: DataTable[Text] = DataTable(id="rows", cursor_type="row", cell_padding=GAP // 2)
        rows.can_focus = False  # each key goes to `on_key`
        yield rows
        yield Static(id="nothing")
        scroll = VerticalScroll(Static(id="detail"), id="detail-scroll")
        scroll.can_focus = False
        yield scroll
        yield Static(id="output")
        yield Static(id="help")
        yield Static(id="foot")

    def on_mount(self) -> None:
        self._feed.on_change = self._touch
        self.set_interval(TICK_S, self._draw)
        self._draw()

    def on_resize(self) -> None:
        self._touch()

    def leave(self, error: BaseException | None = None) -> None:
        """Give the terminal back; `error` is raised afterwards."""
        self.exit(error)

    # Input.

    async def on_event(self, event: events.Event) -> None:
        """Keys come here before anything of textual's acts on them."""
        if isinstance(event, events.Key):
            character = event.character if event.is_printable else None
            self._guarded(lambda: self._press(character or _NAMES.get(event.key, event.key)))
            return
        await super().on_event(event)

    def _press(self, key: str) -> None:
        if key == "interrupt":
            self.leave(SignalledError(SIGINT))
            return
        if key == "ctrl+l":  # something else wrote on the screen
            self.screen.refresh(layout=True)
            return
        table, rows = picture.shown(self.state, self._feed.sight)
        self.state, action = press(self.state, key, table, rows)
        self._feed.attend(self.state)
        if isinstance(action, Quit):
            self.leave()
        elif isinstance(action, Scroll):
            self.query_one("#detail-scroll", VerticalScroll).scroll_relative(y=action.lines, animate=False)
        elif action is not None:
            self._deeds.begin(action, self._done)
        self._draw()

    def _done(self, note: str) -> None:
        self.state = replace(self.state, note=note)
        self._feed.hurry()
        self._touch()

    # Output.

    def _touch(self) -> None:
        """Draw soon, once for all that changed until then. Called from tasks that textual knows nothing of."""
        if not self._is_stale and self.is_running:
            self._is_stale = True
            asyncio.get_running_loop().call_later(DRAW_S, self.call_later, self._draw)

    def _draw(self) -> None:
        self._is_stale = False
        self._guarded(self._drawn)

    def _guarded(self, act: Callable[[], None]) -> None:
        """A fault of ours ends the screen, and is told once the terminal is given back."""
        try:
            act()
        except Exception as error:  # the outermost frame of a callback
            self.leave(error)

    def _drawn(self) -> None:
        sight, state = self._feed.sight, self.state
        whole, rows = picture.shown(state, sight)
        width = self.size.width
        with self.batch_update():
            self._put("head", "\n".join(_ends(*each, width) for each in picture.head(sight)), "bold")
            self._put("trouble", clip(one_line(picture.trouble(state, sight) or state.note), width))
            self._put(
                "tabs",
                clip(f"{_tabs(state.view, state.tab)}   {one_line(picture.caption(state, whole, sight))}", width),
            )
            self._put("foot", _foot(state))
            is_table = state.mode != "help" and state.view != "job"
            self._show(is_table, rows=is_table, sight=sight, state=state, found=rows)
            if is_table:
                self._fill(whole, rows, width)

    def _show(self, is_table: bool, *, rows: bool, sight: Sight, state: State, found: list[Row]) -> None:
        """Have the parts of the screen that the state needs, and their texts."""
        is_job = state.mode != "help" and state.view == "job"
        parts = {"rows": rows, "nothing": is_table and not found, "detail-scroll": is_job, "output": is_job}
        for name, is_shown in (parts | {"help": state.mode == "help"}).items():
            self.query_one(f"#{name}").display = is_shown
        self._put("nothing", "  " + one_line(picture.nothing(state, sight)))
        self._put("help", "\n".join(f"  {line}" for line in picture.HELP))
        if is_job:
            self._put("detail", "\n".join(sight.job.lines) or "looking …")
            output = self.query_one("#output", Static)
            room = max(1, output.size.height)
            self._put("output", "\n".join(wrap(sight.job.text, max(2, self.size.width))[-room:]))

    def _fill(self, whole: Table, rows: list[Row], width: int) -> None:
        """The table's rows; only what changed is set anew, so that the picture stands still."""
        table = self.query_one("#rows", DataTable)
        sizes = layout(whole.columns, width)
        order = self.state.order(whole).column
        titles = [("*" if at == order else "") + whole.columns[at].title for at, _ in sizes]
        columns = [(title, size) for title, (_, size) in zip(titles, sizes, strict=True)]
        filled = [[_cell(row, at, size, whole) for at, size in sizes] for row in rows]
        keys = [row.key for row in rows]
        if columns != self._columns:
            table.clear(columns=True)
            for (title, size), (at, _) in zip(columns, sizes, strict=True):
                table.add_column(Text(clip(title, size), justify=_justify(whole, at)), width=size)
            self._columns, self._keys = columns, []
        if keys != self._keys or not keys:
            table.clear()
            table.add_rows(filled)
        else:
            for row, (new, old) in enumerate(zip(filled, self._cells, strict=True)):
                for column, cell in enumerate(new):
                    if cell != old[column] or cell.style != old[column].style:
                        table.update_cell_at(Coordinate(row, column), cell)
        self._keys, self._cells = keys, filled
        if rows:
            table.move_cursor(row=picked_row(self.state, rows), animate=False)

    def _put(self, name: str, text: str, style: str = "") -> None:
        self.query_one(f"#{name}", Static).update(Text(text, style=style, no_wrap=name != "foot"))


def _cell(row: Row, at: int, size: int, whole: Table) -> Text:
    text = row.cells[at] if at < len(row.cells) else ""
    tone = row.tones.get(at)
    style = _STYLES[tone] if tone else ""
    return Text(clip(_plain(text), size), style=style, justify=_justify(whole, at), no_wrap=True)


def _justify(whole: Table, at: int) -> Literal["left", "right"]:
    return "right" if whole.columns[at].is_number else "left"


def _plain(text: str) -> str:
    """Replaces control characters in `text`; the gaps between an hour's bars stay."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _ends(left: str, right: str, width: int) -> str:
    """One text at either end of a line; the right one only where there is room."""
    left = _plain(left)
    room = width - cells(left) - cells(right)
    return f"{left}{' ' * room}{right}" if room >= 2 else clip(left, width)


def _tabs(view: View, tab: View) -> str:
    here = tab if view in ("jobs", "job") else view
    return "  ".join(f"[{name}]" if name == here else f" {name} " for name in TABS)


def _foot(state: State) -> str:
    keys = "  ".join(f"{key} {word}" for key, word in hints(state))
    if state.mode == "confirm" and state.pending is not None:
        return f"{one_line(state.pending.question)} (y/n)"
    return f"/{one_line(state.pattern)}_   {keys}" if state.mode == "filter" else keys
