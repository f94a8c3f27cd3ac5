"""Tables and panes fit where they are shown. Pure."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.terminal import render
from mesh.cli.terminal.panes import Pane, layout, wrap
from mesh.cli.terminal.render import TableColumn

texts = st.text(max_size=200)


def test_a_table_shrinks_what_may_shrink() -> None:
    columns = (TableColumn("name", least=4), TableColumn("n", is_number=True))
    assert render.table(columns, [("a" * 30, "5")], 12) == ["name       n", "aaaaaaaaa… 5"]


def test_a_table_with_room_is_left_alone() -> None:
    assert render.table((TableColumn("a"), TableColumn("b")), [("x", "yy")], 80) == ["a  b", "x  yy"]


@given(texts, st.integers(1, 60))
def test_a_clipped_text_is_no_wider(text: str, size: int) -> None:
    assert render.cells(render.clip(text, size)) <= size


@given(texts, st.integers(2, 60))
def test_a_wrapped_text_is_no_wider_and_whole(text: str, columns: int) -> None:
    lines = wrap(text, columns)
    assert all(render.cells(line) <= columns for line in lines)
    expected = "".join(render.harmless(text).split())
    assert "".join("".join(lines).split()) == expected


@given(st.lists(texts, max_size=30), st.integers(2, 120), st.integers(2, 60))
def test_panes_stay_within_the_terminal(contents: list[str], width: int, height: int) -> None:
    panes = [Pane(f"job-{index}", text, tokens=index) for index, text in enumerate(contents)]
    lines = layout(panes, width, height)
    assert len(lines) < height
    assert all(render.cells(line) < width for line in lines)


def test_a_model_cannot_steer_the_terminal() -> None:
    assert render.harmless("a\x1b[2Jb\n\tc") == "a\ufffd[2Jb\n\tc"


def test_a_pane_shows_its_title_and_the_end_of_its_text() -> None:
    pane = Pane("demo-1  Count.", "1 2 3\n4 5 6\n7 8 9", tokens=9)
    assert layout([pane], 40, 4) == ["demo-1  Count. (9 tokens …)", "  4 5 6", "  7 8 9"]
