"""Whatever becomes of an attempt, and whatever its job went through before: the promises of its end hold."""

from itertools import pairwise
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mesh.job_key import JobRef
from mesh.policies.retry import RetryPolicy
from mesh.protocol.history import read_history
from mesh.protocol.messages import Event, Request, Result
from mesh.protocol.outcome import JobFacts
from mesh.worker.attempt import (
    Ack,
    Announce,
    Attempt,
    Close,
    Drop,
    MoveToDeadLetters,
    Nak,
    NoteAttempt,
    Store,
)
from tests.property.attempts import NOW, RESULT, Job, begin, journals, take_over

ENDS = (Ack, Nak, Drop)
LOSS = st.sampled_from(["resume", "restart", "fail"])


@given(journals(), LOSS, st.sampled_from([NOW, NOW + 700_000]), st.data())
def test_every_attempt_keeps_the_promises_of_its_end(
    events: list[Event], loss: Literal["resume", "restart", "fail"], now: int, data: DataObject
) -> None:
    request = Request(prompt="a", on_worker_loss=loss, metadata={"k": 1})
    job = begin(data, request, events, now)
    actions = job.actions
    assert job.attempt.is_over

    # Exactly one of Ack, Nak and Drop, and it is the last.
    assert [isinstance(action, ENDS) for action in actions] == [False] * (len(actions) - 1) + [True]

    # Stored, then announced, then acknowledged; buried before all of it.
    order = [
        kind
        for kind in (NoteAttempt, MoveToDeadLetters, Close, Store, Announce, Ack)
        if any(isinstance(action, kind) for action in actions)
    ]
    if not isinstance(actions[-1], Nak | Drop):
        assert [type(action) for action in actions] == order
        assert order[-1] is Ack
    else:
        assert [type(action) for action in actions[:-1]] in ([], [NoteAttempt])
    for before, after in pairwise(actions):
        assert not (isinstance(before, Announce) and isinstance(after, Store))

    stores = [action for action in actions if isinstance(action, Store)]
    announced = [action.result for action in actions if isinstance(action, Announce)]
    if stores and stores[0].result in events:
        assert announced == []  # it was, by whoever ended the job
    elif stores:
        assert announced == [stores[0].result]
        check_result(job, stores[0].result, request)
    else:
        assert announced in ([], [RESULT])
    if any(isinstance(action, MoveToDeadLetters) for action in actions):
        assert stores[0].result.error is not None
        assert stores[0].result.error.code == "attempts_exhausted"


def check_result(job: Job, result: Result, request: Request) -> None:
    assert (result.id, result.tenant, result.model, result.worker) == ("j", "t", "m", "w")
    assert (result.error is None) == (result.status == "finished")
    assert result.attempts == job.attempt.number
    assert result.metadata == request.metadata
    assert min(result.timing.queued_ms, result.timing.total_ms) >= 0
    if result.embeddings is None:
        assert result.text == job.text, "the Result's text is what the events showed"
    else:
        assert (result.text, result.embeddings) == ("", [[0.5]])
    if result.status != "finished":
        assert result.usage.completion_tokens == job.tokens
        assert result.finish_reason is None


@given(journals(), st.booleans(), st.data())
def test_a_job_acknowledged_without_a_result_is_somebody_elses_or_over(
    events: list[Event], is_queued: bool, data: DataObject
) -> None:
    """The only plain Ack of a takeover: its journal has the Result, or a first request of that id is in the queue."""
    facts = JobFacts(JobRef("j", "t", "m", "batch", 17), "w", NOW, NOW, Request(prompt="a"))
    history = read_history(events)
    actions = take_over(Attempt(facts, RetryPolicy()), history, 0, is_queued, NOW)
    if actions == [Ack()]:
        assert history.result is not None or (is_queued and history.request_sequence not in (0, 17))
