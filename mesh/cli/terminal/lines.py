"""Texts that grow at the same time, as whole lines that say whose they are. Prints nothing. Used by `mesh tail`."""

from mesh.cli.terminal import render
from mesh.cli.terminal.text import cells, clip

LEAST = 20  # columns of text, however narrow the terminal and long the name


class Lines:
    """Gathers each text until there is a line of it."""

    def __init__(self, columns: int) -> None:
        """`columns`: of a line, with its name."""
        self._columns = columns
        self._rest: dict[str, str] = {}  # text not returned yet, by name
        self._added: set[str] = set()  # names to which something was added since `idle`

    def add(self, name: str, text: str) -> list[str]:
        """Adds to the text `name` and returns its full lines, without empty ones."""
        self._added.add(name)
        *whole, rest = (self._rest.get(name, "") + text).replace("\r", "").split("\n")
        lines = [part for line in whole for part in self._broken(name, line)]
        *full, rest = self._broken(name, rest)
        self._rest[name] = rest
        return [self._line(name, each) for each in [*lines, *full] if each.strip()]

    def end(self, name: str, note: str = "") -> list[str]:
        """Returns the remaining text of `name`, and a note about it."""
        self._added.discard(name)
        rest = self._rest.pop(name, "")
        shown = [self._line(name, rest)] if rest.strip() else []
        return [*shown, *([self._line(name, f"* {note}")] if note else [])]

    def idle(self) -> list[str]:
        """Returns the pending whole words of each text that did not grow since the last call."""
        still = [name for name, rest in self._rest.items() if rest.strip() and name not in self._added]
        self._added.clear()
        lines = []
        for name in still:
            before, space, after = self._rest[name].rpartition(" ")
            if space and before.strip():
                lines.append(self._line(name, before))
                self._rest[name] = after
        return lines

    def _broken(self, name: str, text: str) -> list[str]:
        """`text` in pieces that fit beside the name, broken at spaces where there are any; the last may grow."""
        room = max(LEAST, self._columns - cells(name) - 3)
        pieces = []
        while cells(text) > room:
            head = text[: len(clip(text, room + 1)) - 1] or text[:1]
            cut = head.rfind(" ")
            if cut > 0:
                head = head[:cut]
            pieces.append(head)
            text = text[len(head) :].removeprefix(" ")
        return [*pieces, text]

    def _line(self, name: str, text: str) -> str:
        return f"[{name}] {render.harmless(text).expandtabs(4)}".rstrip()
