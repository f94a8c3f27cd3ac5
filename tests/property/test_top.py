"""Pictures of `mesh top` for any mesh, any state and any terminal: never a line too many, too few, too wide."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.inspect.facts import ServerFacts
from mesh.cli.terminal import render
from mesh.cli.top.frame import Sight, frame, shown
from mesh.cli.top.keys import Drain, Pause, Quit, Resume, State, press, read_keys
from mesh.cli.top.tables import VIEWS, SortOrder, arranged, bar, table
from mesh.control.status.depth import QueueDepth, Rates, Snapshot, TenantDepth, WorkerRate, WorkerSeen
from mesh.protocol.messages import TIERS, Presence

names = st.one_of(st.text(max_size=30), st.sampled_from(["chat", "a\x1b[31mb", "日本語の模型", "x" * 64, "e\u0301"]))
counts = st.integers(min_value=0, max_value=10**10)
seconds = st.integers(min_value=0, max_value=10**9)


@st.composite
def queues(draw: st.DrawFn) -> QueueDepth:
    tenants = [TenantDepth(tenant=draw(names), jobs=draw(counts), fullest=0) for _ in range(draw(st.integers(0, 3)))]
    return QueueDepth(
        model=draw(names),
        tier=draw(st.sampled_from(TIERS)),
        jobs=draw(counts),
        waiting=draw(counts),
        in_flight=draw(counts),
        pulls=draw(counts),
        oldest_waiting_ms=draw(st.none() | seconds),
        pause_left_ms=draw(st.sampled_from([0, 5000, 10**13])),
        is_declared=draw(st.booleans()),
        tenants=tenants,
    )


@st.composite
def workers(draw: st.DrawFn) -> WorkerSeen:
    presence = Presence(
        worker=draw(names),
        model=draw(names),
        state=draw(st.sampled_from(["starting", "ready", "draining"])),
        engine="simulator",
        engine_version="1",
        version="0.1.0",
        host=draw(names),
        pid=1,
        capacity=draw(st.integers(0, 1000)),
        running=draw(st.integers(0, 1000)),
        finished=draw(counts),
    )
    return WorkerSeen(presence=presence, beat_unix_ms=0, age_ms=draw(seconds))


@st.composite
def sights(draw: st.DrawFn) -> Sight:
    seen = Snapshot(
        unix_ms=0,
        server=ServerFacts(name=draw(names), version="2.15.1", cluster=draw(names)),
        stores=[],
        missing=draw(st.lists(names, max_size=2)),
        queues=draw(st.lists(queues(), max_size=30)),
        unroutable=0,
        workers=draw(st.lists(workers(), max_size=30)),
        dead_letters=draw(counts),
    )
    told = [WorkerRate(worker=w.presence.worker, model="m", ended_per_s=1.0, tokens_per_s=2.0) for w in seen.workers]
    rates = Rates(span_s=3, submitted_per_s=1, ended_per_s=1, tokens_per_s=None, models=[], workers=told[:2])
    return Sight(
        namespace="mesh",
        seen=seen,
        rates=draw(st.sampled_from([None, rates])),
        age_s=draw(st.sampled_from([0.0, 100.0])),
        trouble=draw(st.sampled_from(["", "the connection\nbroke \x1b[2J"])),
        clock="12:00:00",
    )


states = st.builds(
    State,
    view=st.sampled_from(VIEWS),
    orders=st.dictionaries(st.sampled_from(VIEWS), st.builds(SortOrder, st.integers(0, 12), st.booleans()), max_size=3),
    pattern=names,
    picked=names,
    mode=st.sampled_from(["look", "filter", "help", "confirm"]),
    pending=st.sampled_from([Drain("w"), Pause("a/batch"), Resume("a")]),
    note=names,
)


@given(states, sights(), st.integers(1, 200), st.integers(1, 60))
def test_a_picture_is_exactly_as_large_as_the_terminal_and_steers_nothing(
    state: State, sight: Sight, width: int, height: int
) -> None:
    lines = frame(state, sight, width, height)
    assert len(lines) == height
    for line in lines:
        assert render.cells(line.text) == width
        assert "\x1b" not in line.text
        assert "\n" not in line.text


@given(states, sights(), st.lists(st.sampled_from([*"qjkdpPuUsr/?123<>yn", "tab", "up", "down", "escape", "enter"])))
def test_no_key_breaks_anything_and_nothing_is_done_without_a_yes(state: State, sight: Sight, keys: list[str]) -> None:
    state = replace(state, mode="look", pending=None)
    for key in keys:
        whole, rows = shown(state, sight)
        before = state
        state, action = press(state, key, whole, rows)
        if isinstance(action, Drain | Pause | Resume):
            assert (before.mode, key) == ("confirm", "y")
            assert action == before.pending
        elif action is not None:
            assert (before.mode, key, action) == ("look", "q", Quit())
        frame(state, sight, 80, 24)


@given(sights(), st.sampled_from(VIEWS), st.builds(SortOrder, st.integers(0, 12), st.booleans()), names)
def test_sorting_and_filtering_lose_no_row_that_is_asked_for(
    sight: Sight, view: str, order: SortOrder, pattern: str
) -> None:
    whole = table(view, sight.seen, sight.rates)
    rows = arranged(whole, order, "")
    assert sorted(row.key for row in rows) == sorted(row.key for row in whole.rows)
    column = min(order.column, len(whole.columns) - 1)
    values = [row.order[column] for row in rows]
    assert values == sorted(values, reverse=whole.columns[column].is_number is not order.is_reversed)
    kept = {row.key for row in arranged(whole, order, pattern)}
    assert kept <= {row.key for row in whole.rows}
    assert {row.key for row in whole.rows if pattern.casefold() in row.key.casefold()} <= kept


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_bar_is_empty_only_at_nothing_and_full_only_at_all(value: int, limit: int) -> None:
    drawn = bar(value, limit, 10)
    assert len(drawn) == 12
    assert (drawn == "[----------]") == (value == 0 or limit == 0)
    assert (drawn == "[##########]") == (0 < limit <= value)


@given(st.text(max_size=60))
def test_whatever_a_terminal_sends_becomes_keys(text: str) -> None:
    assert all(len(key) == 1 or key.isalpha() for key in read_keys(text))
