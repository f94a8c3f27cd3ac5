"""Tables, wrapped text and panes fit a terminal; a pipe gets everything, plain. What is data steers no terminal."""

import io
import json
import os
import pty
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, run
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mesh.cli.terminal import render
from mesh.cli.terminal.live import Pane, PaneStack, layout
from mesh.cli.terminal.table import TableColumn, TextTable, grid, plain_lines
from mesh.cli.terminal.text import cells, clip, one_line, wrap

ROOT = Path(__file__).parents[2]
texts = st.text(max_size=200)
columns = st.lists(
    st.builds(
        TableColumn,
        st.from_regex(r"[a-z/ ]{1,20}", fullmatch=True),
        st.booleans(),
        st.integers(0, 40),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@st.composite
def tables(draw: st.DrawFn) -> TextTable:
    titled = draw(columns)
    row = st.lists(texts, min_size=len(titled), max_size=len(titled))
    return TextTable(titled, draw(st.lists(row, max_size=5)))


def drawn(table: TextTable, width: int, **settings: Any) -> list[str]:
    """The lines of a table in a terminal of so many columns."""
    file = io.StringIO()
    Console(file=file, width=width, markup=False, highlight=False, emoji=False, **settings).print(grid(table, width))
    return file.getvalue().splitlines()


def test_a_table_shrinks_what_may_shrink_where_the_terminal_is_narrow() -> None:
    table = TextTable((TableColumn("name", least=4), TableColumn("n", is_number=True)), [("a" * 30, "5")])
    assert [line.rstrip() for line in drawn(table, 12)] == ["name       n", "aaaaaaaaa… 5"]


def test_prose_goes_on_below_and_loses_no_word() -> None:
    table = TextTable((TableColumn("id"), TableColumn("why", least=8, is_prose=True)), [("a", "one two three four")])
    lines = drawn(table, 14)
    assert len(lines) > 2
    assert " ".join(" ".join(lines[1:]).split()) == "a one two three four"


def test_a_table_in_a_pipe_is_whole_plain_and_one_row_a_line() -> None:
    table = TextTable(
        (TableColumn("a", least=1), TableColumn("why", least=4, is_prose=True)), [("x" * 300, "w " * 200)]
    )
    title, row = plain_lines(table)
    assert title.split() == ["a", "why"]
    assert row.split() == ["x" * 300, *["w"] * 200]


@given(tables())
def test_a_piped_table_has_every_cell_and_no_control_codes(table: TextTable) -> None:
    lines = plain_lines(table)
    assert len(lines) == len(table.rows) + 1
    for line, row in zip(lines[1:], table.rows, strict=True):
        assert line.isprintable()
        assert all(one_line(cell).rstrip() in line for cell in row)


@given(tables(), st.integers(20, 160))
def test_a_table_is_never_wider_than_the_terminal(table: TextTable, width: int) -> None:
    for line in drawn(table, width):
        assert cells(line) <= width
        assert "\x1b" not in line


def test_states_have_colours_and_NO_COLOR_takes_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table = TextTable((TableColumn("state", is_state=True),), [("paused 3m",), ("open",)])
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33mpaused 3m" in "".join(drawn(table, 40, force_terminal=True, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in "".join(drawn(table, 40, force_terminal=True))


SHOWS = """
from mesh.cli.terminal.table import TableColumn, show_table
show_table((TableColumn("job", least=4), TableColumn("state", is_state=True)), [("j" * 200 + "\\x1b[31m", "paused")])
"""


def test_the_same_table_in_a_pipe_and_in_a_terminal() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "40"}
    environment.pop("NO_COLOR", None)
    piped = run([sys.executable, "-c", SHOWS], stdout=PIPE, check=True, env={**environment, "FORCE_COLOR": "1"}).stdout
    assert piped.decode().splitlines()[1].split() == ["j" * 200 + "\ufffd[31m", "paused"]
    assert b"\x1b" not in piped
    master, slave = pty.openpty()
    run([sys.executable, "-c", SHOWS], stdin=slave, stdout=slave, check=True, env=environment)
    seen = os.read(master, 65536).decode()
    os.close(slave)
    os.close(master)
    assert "\x1b[33mpaused" in seen
    assert "j" * 30 in seen
    assert "j" * 40 not in seen
    assert "\x1b[31m" not in seen


@given(texts, st.integers(1, 60))
def test_a_clipped_text_is_no_wider(text: str, size: int) -> None:
    assert cells(clip(text, size)) <= size


@given(texts, st.integers(2, 60))
def test_a_wrapped_text_is_no_wider_and_whole(text: str, size: int) -> None:
    lines = wrap(text, size)
    assert all(cells(line) <= size for line in lines)
    expected = "".join(render.harmless(text).split())
    assert "".join("".join(lines).split()) == expected


@given(st.lists(texts, max_size=30), st.integers(2, 120), st.integers(2, 60))
def test_panes_stay_within_the_terminal(contents: Sequence[str], width: int, height: int) -> None:
    panes = [Pane(f"job-{index}", text, tokens=index) for index, text in enumerate(contents)]
    lines = layout(panes, width, height)
    assert len(lines) < height
    assert all(cells(line) < width for line in lines)


def test_a_model_cannot_steer_the_terminal() -> None:
    assert render.harmless("a\x1b[2Jb\n\tc") == "a\ufffd[2Jb\n\tc"


def test_a_pane_shows_its_title_and_the_end_of_its_text() -> None:
    pane = Pane("demo-1  Count.", "1 2 3\n4 5 6\n7 8 9", tokens=9)
    assert layout([pane], 40, 4) == ["demo-1  Count. (9 tokens …)", "  4 5 6", "  7 8 9"]
    file = io.StringIO()
    Console(file=file, width=40, height=4).print(PaneStack([pane]))
    assert file.getvalue().splitlines() == layout([pane], 40, 4)


@pytest.mark.parametrize("body", [{}, {"a": 1}, {"jobs": [{}], "text": '{"schema": 2}'}])
def test_a_json_object_says_its_schema_first(body: dict[str, Any]) -> None:
    shown = json.loads(render.with_schema(json.dumps(body)))
    assert list(shown) == ["schema", *body]
    assert shown == {"schema": 1, **body}
