"""Several texts growing side by side on one screen: `layout` decides (pure), `Screen` draws."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.cli.terminal import render

MOST_BODY_LINES = 6  # more of one text than this is hard to follow
INDENT = "  "


@dataclass(slots=True)
class Pane:
    """One text, with what it answers."""

    title: str
    text: str = ""
    tokens: int = 0
    is_over: bool = False


class Screen:
    """Draws panes over each other's last state. Only for a terminal."""

    def __init__(self) -> None:
        self._drawn = 0  # lines above the cursor that are ours

    def draw(self, panes: Sequence[Pane]) -> None:
        """Show the panes as they are now, within the terminal as it is now."""
        size = shutil.get_terminal_size()
        lines = layout(panes, size.columns, size.lines)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[2K{line}\n" for line in lines)
        render.raw(f"\x1b[?25l{up}\r{body}\x1b[0J\x1b[?25h")
        self._drawn = len(lines)


def layout(panes: Sequence[Pane], width: int, height: int) -> list[str]:
    """The lines that show `panes` on a terminal: fewer than `height`, none as wide as `width`. Pure.

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
        lines.append(render.clip(f"… and {len(panes) - len(shown)} more", columns))
    return [render.clip(line, columns) for line in lines]


def wrap(text: str, columns: int) -> list[str]:
    """`text` in lines of at most `columns` terminal columns, broken at spaces where there are any. Pure."""
    lines: list[str] = []
    for paragraph in render.harmless(text).expandtabs(4).split("\n"):
        line, used = "", 0
        for word in _words(paragraph, max(1, columns)):
            size = render.cells(word)
            if used + size > columns and line:
                lines.append(line.rstrip())
                line, used = "", 0
                word, size = word.lstrip(), render.cells(word.lstrip())
            line, used = line + word, used + size
        lines.append(line.rstrip())
    return lines if text else []


def _words(paragraph: str, columns: int) -> list[str]:
    """Words with the spaces before them, none wider than a line."""
    words: list[str] = []
    word, used = "", 0
    for char in paragraph:
        size = render.cells(char)
        if word and ((char == " " and word.strip()) or used + size > columns):
            words.append(word)
            word, used = "", 0
        word, used = word + char, used + size
    return [*words, word] if word else words


def _title(pane: Pane, columns: int) -> str:
    state = f"({pane.tokens} tokens{'' if pane.is_over else ' …'})" if pane.tokens or pane.is_over else "(queued)"
    room = columns - len(state) - 1
    return render.clip(pane.title, columns) if room < len(state) else f"{render.clip(pane.title, room)} {state}"
