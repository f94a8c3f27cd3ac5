"""`mesh top` for any mesh and any state: tables fit, no key does anything without a yes, sums add up."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.inspect.facts import ServerFacts
from mesh.cli.top import sight as picture
from mesh.cli.top.hour import BARS, MINUTE_MS, MINUTES, Hour, ModelHour, spark
from mesh.cli.top.keys import (
    Cancel,
    Drain,
    JobScope,
    Pause,
    Quit,
    Resume,
    Scroll,
    State,
    hints,
    picked_row,
    press,
)
from mesh.cli.top.sight import JobPicture, Sight
from mesh.cli.top.tables import GAP, TABS, SortOrder, View, arranged, bar, layout
from mesh.control.jobs.job_state import STATES, JobSeen
from mesh.control.status.depth import QueueDepth, Rates, Snapshot, TenantDepth, WorkerRate, WorkerSeen
from mesh.job_key import JobKey
from mesh.protocol.messages import TIERS, AuditEntry, Presence

VIEWS: tuple[View, ...] = (*TABS, "jobs", "job")
names = st.one_of(st.text(max_size=30), st.sampled_from(["chat", "a\x1b[31mb", "日本語の模型", "x" * 64, "e\u0301"]))
counts = st.integers(min_value=0, max_value=10**10)
spans = st.integers(min_value=0, max_value=10**9)


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
        oldest_waiting_ms=draw(st.none() | spans),
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
    return WorkerSeen(presence=presence, beat_unix_ms=0, age_ms=draw(spans))


@st.composite
def jobs(draw: st.DrawFn) -> JobSeen:
    return JobSeen(
        job=draw(names),
        tenant=draw(names),
        model=draw(names),
        tier=draw(st.sampled_from(TIERS)),
        lane="0",
        state=draw(st.sampled_from(STATES)),
        sequence=1,
        age_ms=draw(spans),
        deadline_ms=draw(st.integers(-(10**9), 10**9)),
        attempt=draw(st.integers(0, 5)),
        tokens=draw(counts),
        worker=draw(names),
    )


hours = st.builds(
    ModelHour,
    tokens=st.lists(counts, min_size=MINUTES, max_size=MINUTES).map(tuple),
    ended=counts,
    failed=counts,
    first_p50_ms=st.none() | spans,
    first_p95_ms=st.none() | spans,
)


@st.composite
def sights(draw: st.DrawFn) -> Sight:
    seen = Snapshot(
        unix_ms=0,
        server=ServerFacts(name=draw(names), version="2.15.1", cluster=draw(names)),
        stores=[],
        missing=draw(st.lists(names, max_size=2)),
        queues=draw(st.lists(queues(), max_size=10)),
        unroutable=0,
        workers=draw(st.lists(workers(), max_size=10)),
        dead_letters=draw(counts),
    )
    told = [WorkerRate(worker=w.presence.worker, model="m", ended_per_s=1.0, tokens_per_s=2.0) for w in seen.workers]
    rates = Rates(span_s=3, submitted_per_s=1, ended_per_s=1, tokens_per_s=None, models=[], workers=told[:2])
    models = [each.model for each in seen.queues]
    return Sight(
        namespace="mesh",
        seen=seen,
        rates=draw(st.sampled_from([None, rates])),
        age_s=draw(st.sampled_from([0.0, 100.0])),
        trouble=draw(st.sampled_from(["", "the connection\nbroke \x1b[2J"])),
        clock="12:00:00",
        hours={name: draw(hours) for name in models[:2]},
        jobs=draw(st.lists(jobs(), max_size=10)),
        job=JobPicture(("job  x",), "text", draw(names)),
    )


states = st.builds(
    State,
    view=st.sampled_from(VIEWS),
    orders=st.dictionaries(st.sampled_from(VIEWS), st.builds(SortOrder, st.integers(0, 12), st.booleans()), max_size=3),
    picks=st.dictionaries(st.sampled_from(VIEWS), names, max_size=3),
    pattern=names,
    scope=st.builds(JobScope, st.none() | names, st.none() | names, st.none() | names),
    tab=st.sampled_from(TABS),
    job=st.none() | st.builds(JobKey, names, names),
    mode=st.sampled_from(["look", "filter", "help", "confirm"]),
    pending=st.sampled_from([Drain("w"), Pause("a/batch"), Resume("a"), Cancel(JobKey("t", "j"))]),
    note=names,
)
KEYS = [*"qjkdcpPuUsr/?1234<>yn", "tab", "backtab", "up", "down", "pageup", "home", "escape", "enter", "f1"]


@given(states, sights(), st.integers(1, 200))
def test_the_columns_of_a_table_fit_any_terminal(state: State, sight: Sight, width: int) -> None:
    whole, _ = picture.shown(state, sight)
    sizes = layout(whole.columns, width)
    assert sizes[0][0] == 0
    assert len(sizes) == 1 or sum(size + GAP for _, size in sizes) <= width
    assert [at for at, _ in sizes] == sorted({at for at, _ in sizes})


@given(states, sights())
def test_each_row_has_a_cell_and_an_order_for_each_column(state: State, sight: Sight) -> None:
    whole, rows = picture.shown(state, sight)
    for row in rows:
        assert len(row.cells) == len(row.order) == len(whole.columns)
        assert all(0 <= at < len(whole.columns) for at in row.tones)


@given(states, sights())
def test_what_stands_around_the_table_can_be_said_of_any_state(state: State, sight: Sight) -> None:
    whole, _ = picture.shown(state, sight)
    assert len(picture.head(sight)) == 3
    assert isinstance(picture.caption(state, whole, sight), str)
    assert picture.nothing(state, sight)
    assert hints(state)
    if sight.trouble:
        assert picture.trouble(state, sight).startswith("as of ")


@given(states, sights(), st.lists(st.sampled_from(KEYS), max_size=30))
def test_no_key_breaks_anything_and_nothing_is_done_without_a_yes(state: State, sight: Sight, keys: list[str]) -> None:
    state = replace(state, mode="look", pending=None)
    for key in keys:
        whole, rows = picture.shown(state, sight)
        before = state
        state, action = press(state, key, whole, rows)
        if isinstance(action, Drain | Pause | Resume | Cancel):
            assert (before.mode, key) == ("confirm", "y")
            assert action == before.pending
        elif isinstance(action, Scroll):
            assert (before.mode, before.view) == ("look", "job")
        elif action is not None:
            assert (before.mode, key, action) == ("look", "q", Quit())
        assert (state.mode == "confirm") == (state.pending is not None)
        assert state.view != "job" or state.job is not None or before.view == "job"


@given(states, sights())
def test_enter_goes_in_and_escape_comes_back_to_the_same_row(state: State, sight: Sight) -> None:
    state = replace(state, mode="look", pending=None, pattern="", view=state.tab)
    whole, rows = picture.shown(state, sight)
    inside, _ = press(state, "enter", whole, rows)
    back, _ = press(inside, "escape", *picture.shown(inside, sight))
    assert back.view == state.view
    assert inside.view == ("jobs" if rows else state.view)
    if rows:
        assert back.picked == rows[picked_row(state, rows)].key


@given(sights(), st.sampled_from(VIEWS), st.builds(SortOrder, st.integers(0, 12), st.booleans()), names)
def test_sorting_and_filtering_lose_no_row_that_is_asked_for(
    sight: Sight, view: View, order: SortOrder, pattern: str
) -> None:
    whole, _ = picture.shown(State(view=view), sight)
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


@given(st.lists(counts, min_size=60, max_size=60), st.sampled_from([15, 30, 60]))
def test_an_hour_has_a_bar_wherever_there_was_something(values: list[int], size: int) -> None:
    drawn = spark(values, size)
    share = 60 // size
    sums = [sum(values[at * share : (at + 1) * share]) for at in range(size)]
    assert len(drawn) == size
    assert [char == " " for char in drawn] == [each == 0 for each in sums]
    assert all(drawn[at] == BARS[-1] for at, each in enumerate(sums) if each == max(sums) and each)


NOW_MS = 10**12
ended = st.builds(
    AuditEntry,
    event=st.sampled_from(["ended", "started"]),
    unix_ms=st.integers(NOW_MS - 90 * MINUTE_MS, NOW_MS),
    by=st.just("w"),
    model=st.sampled_from(["a", "b", ""]),
    status=st.sampled_from(["finished", "failed"]),
    tokens=st.integers(0, 1000),
    first_token_ms=st.none() | st.integers(0, 10**6),
)


@given(st.lists(ended, max_size=60))
def test_an_hour_counts_each_job_that_ended_in_it_once(entries: list[AuditEntry]) -> None:
    entries.sort(key=lambda each: each.unix_ms)  # as the audit stores them
    hour = Hour()
    hour.add(entries)
    for model in ("a", "b"):
        newest = NOW_MS // MINUTE_MS
        meant = [
            each
            for each in entries
            if each.event == "ended" and each.model == model and each.unix_ms // MINUTE_MS > newest - MINUTES
        ]
        found = hour.of(model, NOW_MS)
        firsts = sorted(each.first_token_ms for each in meant if each.first_token_ms is not None)
        assert (found.ended, found.failed) == (len(meant), sum(each.status == "failed" for each in meant))
        assert sum(found.tokens) == sum(each.tokens for each in meant)
        assert (found.first_p50_ms is None) == (not firsts)
        if firsts:
            assert firsts[0] <= (found.first_p50_ms or 0) <= (found.first_p95_ms or 0) <= firsts[-1]
