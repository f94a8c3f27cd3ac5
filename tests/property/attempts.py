"""Attempts at jobs with any past, driven to any of their ends: for the tests of Attempt and of Actions."""

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mesh.errors import EngineDeadError, EngineFailedError, InvalidRequestError, UnsupportedError
from mesh.job_key import JobRef
from mesh.policies.retry import RetryPolicy
from mesh.protocol.history import History, read_history
from mesh.protocol.messages import Delta, Event, Request, Result, Started, Usage
from mesh.protocol.outcome import JobFacts
from mesh.worker.attempt import (
    Action,
    Attempt,
    Begin,
)

NOW = 1_000_000
RESULT = Result(id="j", tenant="t", model="m", status="finished", text="whole")


@st.composite
def journals(draw: st.DrawFn) -> list[Event]:
    """Events of earlier attempts, as a fenced journal can hold them."""
    events: list[Event] = []
    ids: list[int] = []
    for number in range(1, draw(st.integers(0, 4)) + 1):
        index = draw(st.sampled_from([0, len(ids)]))
        del ids[index:]
        sequence = draw(st.sampled_from([0, 9, 17]))
        isolated = draw(st.booleans())
        events.append(
            Started(id="j", attempt=number, index=index, worker="v", unix_ms=1, sequence=sequence, isolated=isolated)
        )
        for _ in range(draw(st.integers(0, 3))):
            new = draw(st.lists(st.integers(0, 99), min_size=1, max_size=3))
            text = draw(st.text("abc", max_size=3))
            events.append(Delta(id="j", attempt=number, index=len(ids), text=text, token_ids=new))
            ids += new
    is_done: bool = draw(st.booleans())
    if events and is_done:
        last = Delta(id="j", attempt=number, index=len(ids), text="", token_ids=[5], finish_reason="stop")
        events.append(last)
    if events and draw(st.integers(0, 5)) == 0:
        events.append(RESULT)
    return events


def take_over(attempt: Attempt, history: History, index: int, is_queued: bool, now: int) -> list[Action]:
    attempt.recall(history)
    return attempt.taken_over(index, is_queued, now)


@dataclass
class Job:
    """One attempt driven as the runner drives it, with books of its own about the text."""

    attempt: Attempt
    history: History
    text: str = ""
    tokens: int = 0
    actions: tuple[Action, ...] = ()


def begin(data: DataObject, request: Request, events: list[Event], now: int) -> Job:
    facts = JobFacts(JobRef("j", "t", "m", "batch", 17), "w", NOW, NOW, request)
    attempt = Attempt(facts, RetryPolicy(max_attempts=data.draw(st.integers(1, 4))))
    history = read_history(events)
    job = Job(attempt, read_history(events), history.text, history.index)
    if not events and data.draw(st.booleans()):
        actions = attempt.first(now)
    else:
        index = data.draw(st.sampled_from([0, history.index]))
        actions = take_over(attempt, history, index, data.draw(st.booleans()), now)
    if isinstance(actions[0], Begin):
        (start,) = actions
        assert isinstance(start, Begin)
        assert start.event.attempt == job.history.attempts + 1
        assert start.event.index == len(start.token_ids)
        if start.event.index == 0 and job.tokens:
            job.text, job.tokens = "", 0
        assert (start.text, len(start.token_ids)) == (job.text, job.tokens)
        run(data, job, now)
    else:
        job.actions = tuple(actions)
    return job


def run(data: DataObject, job: Job, now: int) -> None:
    """The engine's output, and then one of the ends there are."""
    for _ in range(data.draw(st.integers(0, 4))):
        text, ids = (
            data.draw(st.text("xyz", max_size=3)),
            data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=3)),
        )
        job.attempt.produced(text, ids, now)
        job.text += text
        job.tokens += len(ids)
    attempt, usage = job.attempt, Usage(prompt_tokens=2, completion_tokens=job.tokens)
    end = data.draw(
        st.sampled_from(
            [
                lambda: attempt.finished("stop", usage, now),
                lambda: attempt.embedded([[0.5]], usage, now),
                lambda: attempt.failed(EngineFailedError("broke"), now),
                lambda: attempt.failed(EngineDeadError("gone"), now),
                lambda: attempt.failed(InvalidRequestError("bad", field="prompt"), now),
                lambda: attempt.failed(UnsupportedError("no", field="n"), now),
                lambda: attempt.cancelled(now),
                lambda: attempt.expired(now),
                lambda: attempt.found(RESULT, True),
                lambda: attempt.found(RESULT, False),
                attempt.returned,
                attempt.lost,
            ]
        )
    )
    job.actions = tuple(end())
