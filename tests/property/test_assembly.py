"""A reader sees the job's text, each token once and in order, however live and journal events reach it."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mesh.client.assembly import Assembly, Gap, Restarted
from mesh.protocol.history import read_history
from mesh.protocol.messages import Delta, Event, Result, Started

# Every third token holds its character back until the next one: incomplete UTF-8, a stop string in the making.
HELD = 3


def text_of(ids: list[int]) -> str:
    """What these tokens show, together."""
    shown, held = "", ""
    for each in ids:
        held += chr(ord("a") + each % 26)
        if each % HELD:
            shown, held = shown + held, ""
    return shown


def whole_text(ids: list[int]) -> str:
    """The same at the end, where nothing is held back any more."""
    return "".join(chr(ord("a") + each % 26) for each in ids)


@dataclass
class Journal:
    """A job's events, and whether any attempt said something other than those before it."""

    events: list[Event] = field(default_factory=list)
    differs: bool = False


@st.composite
def journals(draw: st.DrawFn, ways: tuple[str, ...] = ("resume", "cut", "again", "differently")) -> Journal:
    """Attempts that go on where the last stopped, or begin again: saying the same, or something else."""
    journal = Journal()
    ids: list[int] = []
    script = draw(st.lists(st.integers(0, 30), min_size=1, max_size=12))
    attempts = draw(st.integers(1, 4))
    for number in range(1, attempts + 1):
        index = len(ids)
        if number > 1:
            how = draw(st.sampled_from(ways))
            if how == "cut" and ids and ids[-1] % HELD == 0:
                index -= 1
            elif how in ("again", "differently"):
                index = 0
            if how == "differently":
                script = draw(st.lists(st.integers(0, 30), min_size=1, max_size=12))
                journal.differs = True
        ids = ids[:index]
        journal.events.append(Started(id="j", attempt=number, index=index, worker="w", unix_ms=1))
        last = len(script) if number == attempts else draw(st.integers(0, len(script)))
        while len(ids) < last:
            new = script[len(ids) : len(ids) + draw(st.integers(1, 4))][: last - len(ids)]
            before = text_of(ids)
            is_end = number == attempts and len(ids) + len(new) == last
            text = (whole_text if is_end else text_of)(ids + new)[len(before) :]
            journal.events.append(
                Delta(
                    id="j",
                    attempt=number,
                    index=len(ids),
                    text=text,
                    token_ids=new,
                    finish_reason="stop" if is_end else None,
                )
            )
            ids = ids + new
        if number == attempts and len(ids) == index:  # it had all the tokens: the last delta alone may have none
            rest = whole_text(ids)[len(text_of(ids)) :]
            journal.events.append(
                Delta(id="j", attempt=number, index=index, text=rest, token_ids=[], finish_reason="stop")
            )
    history = read_history(journal.events)
    journal.events.append(
        Result(id="j", tenant="t", model="m", status="finished", text=history.text, attempts=history.attempts)
    )
    return journal


class Reader:
    """The assembly as a job's handle uses it: live events, and the journal where some were missed."""

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.assembly = Assembly()
        self.read = 0  # events read from the journal
        self.has_missed = False
        self.text = ""
        self.ids: list[int] = []
        self.restarts = 0
        self.is_over = False

    def take(self, event: Event) -> None:
        for shown in self.assembly.take(event):
            self.show(shown)

    def show(self, shown: object) -> None:
        if isinstance(shown, Gap):
            self.has_missed = True
        elif isinstance(shown, Restarted):
            self.text, self.ids = "", []
            self.restarts += 1
        elif isinstance(shown, Delta):
            assert shown.index <= len(self.ids), "a token was left out"
            cut = self.ids[shown.index :]
            assert not any(each % HELD for each in cut), "a token that had shown something was shown again"
            self.ids = self.ids[: shown.index] + shown.token_ids
            self.text += shown.text
        elif isinstance(shown, Result):
            self.is_over = True
            for rest in self.assembly.rest_of(shown):
                self.show(rest)

    def catch_up(self, until: int) -> None:
        """Read what stands in the journal; a gap seen while reading is none, for the journal has none."""
        while self.read < until:
            self.read += 1
            self.take(self.events[self.read - 1])
        self.has_missed = False


@settings(max_examples=4 * settings().max_examples)
@given(journals(), st.data())
def test_the_reader_sees_the_jobs_text_whatever_is_lost_or_heard_twice(journal: Journal, data: DataObject) -> None:
    """Losses are known, as a lost connection and a full inbox are: the journal is read before anything further."""
    reader, total = Reader(journal.events), len(journal.events)
    for position, event in enumerate(journal.events):
        match data.draw(st.sampled_from(["hear", "hear", "hear", "hear twice", "lose", "read"])):
            case "hear" if not reader.has_missed:
                reader.take(event)
            case "hear twice" if not reader.has_missed:
                reader.take(event)
                reader.take(event)
            case "read":
                reader.catch_up(data.draw(st.integers(position, position + 1)))
                if reader.read <= position:
                    reader.has_missed = True  # this event is still to come
            case _:
                reader.has_missed = True
    if not reader.is_over:
        reader.catch_up(total)
    check(reader, journal)


@given(journals(), st.data())
def test_the_reader_who_comes_late_sees_the_same(journal: Journal, data: DataObject) -> None:
    """Opened by its id in the middle: the journal up to some point, live from an earlier one."""
    reader, total = Reader(journal.events), len(journal.events)
    read = data.draw(st.integers(0, total))
    heard = data.draw(st.integers(0, read))
    reader.catch_up(read)
    for event in journal.events[heard:]:
        reader.take(event)
    assert not reader.has_missed
    check(reader, journal)


@given(journals(ways=("resume", "cut")), st.data())
def test_a_loss_nobody_told_of_is_seen_by_its_gap(journal: Journal, data: DataObject) -> None:
    """Where every attempt went on from the last, the next event shows that one before it is missing."""
    reader, last = Reader(journal.events), len(journal.events) - 1
    for position, event in enumerate(journal.events):
        if position == last and reader.assembly.text != text_in(event):
            reader.catch_up(position)
        if position == last or data.draw(st.booleans()):
            reader.take(event)
            if reader.has_missed:
                reader.catch_up(position + 1)
    check(reader, journal)


def text_in(event: Event) -> object:
    assert not isinstance(event, Started)
    return event.text


def check(reader: Reader, journal: Journal) -> None:
    history = read_history(journal.events)
    assert reader.is_over
    assert reader.text == history.text == reader.assembly.text
    assert reader.ids == history.token_ids
    if not journal.differs:
        assert reader.restarts == 0, "attempts that repeat the same are not noticed"


@given(journals())
def test_every_event_in_its_order_shows_each_token_once(journal: Journal) -> None:
    reader = Reader(journal.events)
    reader.catch_up(len(journal.events))
    check(reader, journal)


@given(journals(), st.integers(0, 40))
def test_a_result_alone_makes_the_rest_good(journal: Journal, heard: int) -> None:
    """The events are kept no longer, or the reader came back too late: the Result holds the whole text."""
    reader = Reader(journal.events)
    for event in journal.events[: min(heard, len(journal.events) - 1)]:
        reader.take(event)
    result = journal.events[-1]
    assert isinstance(result, Result)
    for shown in reader.assembly.rest_of(result):
        reader.text = "" if isinstance(shown, Restarted) else reader.text + shown.text
    assert reader.text == result.text
    assert reader.assembly.rest_of(result) == []
