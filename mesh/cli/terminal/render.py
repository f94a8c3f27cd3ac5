"""Everything the command line prints: answers on stdout, everything about them on stderr.

Imports no library: `mesh --help` loads it. Tables and live displays are in the modules beside it.
"""

import shutil
import sys

SCHEMA = 1  # of what `--json` prints; a number more where a field changes its meaning or goes
UNLIMITED = 1_000_000  # columns, where stdout is a pipe or a file: nothing is cut or wrapped


def say(text: str = "") -> None:
    """One line of what was asked for."""
    print(text, flush=True)


def say_json(text: str) -> None:
    """One JSON object on a line of its own, with the schema as its first key."""
    say(with_schema(text))


def with_schema(text: str) -> str:
    """The text of a JSON object with "schema" as its first key. Pure."""
    inside = text.strip().removeprefix("{")
    return f'{{"schema":{SCHEMA}{"" if inside.strip() == "}" else ","}{inside}'


def write(text: str) -> None:
    """A piece of an answer, as it comes."""
    print(harmless(text) if is_terminal() else text, end="", flush=True)


def note(text: str) -> None:
    """One line beside the answer."""
    print(text, file=sys.stderr, flush=True)


def event(text: str) -> None:
    """One thing that happened to a long-running command."""
    print(f"mesh: {text}", file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Why the command could not do what it should."""
    print(f"mesh: {text}", file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def is_watched() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr.isatty()


def width() -> int:
    """Columns of the terminal; UNLIMITED where stdout is none."""
    return shutil.get_terminal_size().columns if is_terminal() else UNLIMITED


def harmless(text: str) -> str:
    """`text` without what would steer a terminal. Pure."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
