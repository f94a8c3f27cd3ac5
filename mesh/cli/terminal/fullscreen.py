"""The whole terminal for one command: the other screen, keys as they are pressed, and everything back in the end.

Used by `mesh top`. The terminal is given back however the command ends, short of being killed.
"""

import asyncio
import codecs
import contextlib
import os
import shutil
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from mesh.cli.terminal import render
from mesh.cli.top.frame import Line, Look

# The alternate screen, no cursor, no wrapping at the right edge; and back. Source: xterm's control sequences.
ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
# A synchronized update, for terminals that know it; others ignore it.
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
PLAIN = "\x1b[0m"
# By means every terminal has: bold and reversed, no colours that a theme may hide.
_LOOKS: dict[Look, str] = {
    "plain": "",
    "strong": "\x1b[1m",
    "title": "\x1b[7m",
    "picked": "\x1b[1;7m",
    "bad": "\x1b[1m",
    "foot": "\x1b[7m",
}
READ_BYTES = 1024


class Fullscreen:
    """See the module's docstring. Made by `open_fullscreen`."""

    def __init__(self, on_keys: Callable[[str], None], on_resize: Callable[[], None]) -> None:
        """`on_keys` gets what the terminal sent, as text; `on_resize` is called when it has another size."""
        self._on_keys = on_keys
        self._on_resize = on_resize
        self._loop = asyncio.get_running_loop()
        self._in = sys.stdin.fileno()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drawn: list[Line] = []
        self._size = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal now."""
        found = shutil.get_terminal_size()
        return found.columns, found.lines

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines; what stands there already is not sent again."""
        size = self.size
        out = [BEGIN]
        if size != self._size:
            self._size, self._drawn = size, []
            out.append("\x1b[2J")
        for number, line in enumerate(lines):
            if number >= len(self._drawn) or self._drawn[number] != line:
                out.append(f"\x1b[{number + 1};1H{_LOOKS[line.look]}{line.text}{PLAIN}")
        out.append(END)
        self._drawn = list(lines)
        if len(out) > 2:
            render.raw("".join(out))

    def forget(self) -> None:
        """Draw everything anew the next time: something else wrote on the screen."""
        self._size = (0, 0)

    def start(self) -> None:
        """Take the terminal."""
        self._loop.add_reader(self._in, self._readable)
        self._loop.add_signal_handler(signal.SIGWINCH, self._on_resize)
        render.raw(ENTER)

    def stop(self) -> None:
        """Give the screen back."""
        self._loop.remove_reader(self._in)
        self._loop.remove_signal_handler(signal.SIGWINCH)
        with contextlib.suppress(OSError):  # the terminal may be gone
            render.raw(PLAIN + LEAVE)

    def _readable(self) -> None:
        try:
            read = os.read(self._in, READ_BYTES)
        except OSError:
            read = b""
        if not read:  # the terminal is gone
            self._loop.remove_reader(self._in)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._on_keys(self._decoder.decode(read))


@contextlib.asynccontextmanager
async def open_fullscreen(on_keys: Callable[[str], None], on_resize: Callable[[], None]) -> AsyncIterator[Fullscreen]:
    """The terminal, for as long as the context lasts. stdin and stdout must be one."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    screen = Fullscreen(on_keys, on_resize)
    try:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, _by_key(before))
        screen.start()
        yield screen
    finally:
        screen.stop()
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _by_key(settings: list[Any]) -> list[Any]:
    """The terminal's settings with keys told at once and not echoed; Ctrl-C still interrupts, Ctrl-Z does nothing."""
    changed = list(settings)
    changed[3] &= ~(termios.ICANON | termios.ECHO)
    changed[6] = characters = list(settings[6])
    characters[termios.VMIN], characters[termios.VTIME] = b"\x01", b"\x00"
    characters[termios.VSUSP] = b"\x00"
    return changed
