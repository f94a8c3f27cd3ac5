"""Whatever is asked of the simulator's text, and wherever it is cut: it goes on exactly, and no stop leaks."""

from hypothesis import example, given
from hypothesis import strategies as st

from mesh.engines.simulator.cache import BLOCK_TOKENS, PrefixCache
from mesh.engines.simulator.text import PIECES, Plan, StopScreen, TokenSource, Writer, output_key, piece, vector

VOCABULARY = 1000


def whole_text(plan: Plan) -> str:
    ids = TokenSource(plan.key, plan.vocabulary_tokens).tokens(0, plan.most_tokens)
    return "".join(map(piece, ids))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans whose stops are cut out of the very text that will come, so that they do occur."""
    key = output_key([draw(st.integers(0, 50))], draw(st.none() | st.integers(-(2**63), 2**63 - 1)))
    bare = Plan(key=key, vocabulary_tokens=VOCABULARY, most_tokens=draw(st.integers(1, 60)))
    text = whole_text(bare)
    stops = []
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text) - 1))
        stop = text[at : at + draw(st.integers(1, 12))]
        stops.append(stop + draw(st.sampled_from(["", "", "\x00"])))  # the last never completes
    ids = TokenSource(key, VOCABULARY).tokens(0, bare.most_tokens)
    return Plan(
        key=key,
        vocabulary_tokens=VOCABULARY,
        most_tokens=bare.most_tokens,
        min_tokens=draw(st.sampled_from([0, 0, 3, 20])),
        stops=tuple(stops),
        stop_token_ids=frozenset(draw(st.sampled_from([[], [], [draw(st.sampled_from(ids))]]))),
        includes_stop=draw(st.booleans()),
    )


def write_all(writer: Writer, burst_tokens: int = 1) -> list[tuple[str, list[int]]]:
    written = []
    while writer.finish_reason is None:
        written.append(writer.write(burst_tokens))
    return written


def joined(written: list[tuple[str, list[int]]]) -> tuple[str, list[int]]:
    return "".join(text for text, _ in written), [token_id for _, ids in written for token_id in ids]


@given(plan=plans(), burst_tokens=st.integers(1, 9), data=st.data())
def test_any_cut_continues_exactly(plan: Plan, burst_tokens: int, data: st.DataObject) -> None:
    writer = Writer(plan)
    written = write_all(writer)
    text, ids = joined(written)
    cut = data.draw(st.integers(0, len(written)))
    shown, standing = joined(written[:cut])
    # A worker may have lost the last characters that it was to show, too.
    shown = shown[: data.draw(st.integers(0, len(shown)))]
    again = Writer(plan, standing, shown)
    if again.finish_reason is None:
        rest, new_ids = joined(write_all(again, burst_tokens))
    else:
        rest, new_ids = again.write(0)
    assert shown + rest == text
    assert standing + new_ids == ids
    assert again.finish_reason == writer.finish_reason


@given(plan=plans())
def test_the_output_is_what_a_look_at_the_whole_text_says(plan: Plan) -> None:
    """Against a second, slow reading of the rules: token by token over the whole text."""
    ids = TokenSource(plan.key, plan.vocabulary_tokens).tokens(0, plan.most_tokens)
    expected, reason, count = whole_text(plan), "length", len(ids)
    for count in range(plan.min_tokens + 1, len(ids) + 1):
        before, now = ("".join(map(piece, ids[:end])) for end in (count - 1, count))
        is_stop_token = ids[count - 1] in plan.stop_token_ids
        if is_stop_token and not plan.includes_stop:
            expected, reason = before, "stop"
            break
        ends = [
            (at + len(stop), order, at)
            for order, stop in enumerate(plan.stops)
            for at in range(len(now))
            if now.startswith(stop, at) and at + len(stop) > len(before)
        ]
        if ends:
            end, _, begin = min(ends)
            expected, reason = now[: end if plan.includes_stop else begin], "stop"
            break
        if is_stop_token:
            expected, reason = now, "stop"
            break
    else:
        count = len(ids)
    writer = Writer(plan)
    text, new_ids = joined(write_all(writer))
    assert (text, writer.finish_reason, new_ids) == (expected, reason, ids[:count])


@given(plan=plans(), burst_tokens=st.integers(1, 9))
def test_bursts_change_nothing_but_the_chunks(plan: Plan, burst_tokens: int) -> None:
    assert joined(write_all(Writer(plan), burst_tokens)) == joined(write_all(Writer(plan)))


@given(plan=plans())
def test_no_stop_string_is_ever_shown(plan: Plan) -> None:
    if plan.includes_stop or plan.min_tokens:
        return
    shown = ""
    for text, _ in write_all(Writer(plan)):
        shown += text
        assert not any(stop in shown for stop in plan.stops)


@given(plan=plans(), data=st.data())
def test_what_a_prefix_shows_is_a_prefix_of_what_is_shown(plan: Plan, data: st.DataObject) -> None:
    written = write_all(Writer(plan))
    text, _ = joined(written)
    shown, ids = joined(written[: data.draw(st.integers(0, len(written)))])
    assert text.startswith(shown)
    assert "".join(map(piece, ids)).startswith(shown)


@given(parts=st.lists(st.text("ab", max_size=3)), stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
@example(parts=["a", "a", "b"], stops=["ab", "aab"])
def test_a_screen_loses_nothing_and_holds_back_no_more_than_it_must(parts: list[str], stops: list[str]) -> None:
    screen = StopScreen(tuple(stops), includes_stop=False)
    shown = came = ""
    longest = max(map(len, stops), default=1)
    for part in parts:
        shown += screen.add(part, may_stop=True)
        came += part
        if screen.is_stopped:
            break
        assert shown + screen.held == came
        assert len(screen.held) <= longest - 1
    first_end = min((came.find(stop) + len(stop) for stop in stops if stop in came), default=None)
    assert screen.is_stopped == (first_end is not None)
    if first_end is not None:
        assert any(came.startswith(shown + stop) and len(shown + stop) == first_end for stop in stops)


def test_a_stop_string_among_the_least_tokens_does_not_count_later() -> None:
    screen = StopScreen(("ab", "long enough"), includes_stop=False)
    screen.add("ab", may_stop=False)
    screen.add("x", may_stop=True)
    assert not screen.is_stopped


@given(start=st.integers(0, 100), length=st.integers(0, 50), seed=st.none() | st.integers(-(2**63), 2**63 - 1))
def test_a_token_depends_on_its_index_alone(start: int, length: int, seed: int | None) -> None:
    key = output_key([1, 2, 3], seed)
    whole = TokenSource(key, VOCABULARY).tokens(0, start + length)
    assert TokenSource(key, VOCABULARY).tokens(start, start + length) == whole[start:]
    assert all(0 <= token_id < VOCABULARY for token_id in whole)


@given(text=st.text(), dim=st.integers(1, 64))
def test_a_vector_is_of_length_one_and_depends_on_the_text_alone(text: str, dim: int) -> None:
    found = vector(text, dim)
    assert len(found) == dim
    assert abs(sum(number * number for number in found) - 1) < 1e-9
    assert found == vector(text, dim)


@given(prompts=st.lists(st.lists(st.integers(0, 1), max_size=70), max_size=12), most=st.integers(0, 200))
def test_a_cache_knows_only_what_was_entered_and_keeps_within_its_bound(prompts: list[list[int]], most: int) -> None:
    cache = PrefixCache(most)
    for number, prompt in enumerate(prompts):
        cached = cache.enter(prompt)
        assert cached % BLOCK_TOKENS == 0
        assert cached < max(1, len(prompt))
        assert cached == 0 or any(earlier[:cached] == prompt[:cached] for earlier in prompts[:number])
        assert cache.tokens <= most


def test_every_piece_has_an_id_of_its_own() -> None:
    assert len(set(PIECES)) == len(PIECES)
    assert [piece(token_id) for token_id in range(len(PIECES))] == list(PIECES)
