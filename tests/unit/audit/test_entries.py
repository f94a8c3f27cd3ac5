"""What the audit says of each signal, and that it holds no text of anybody's."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.audit.entries import entry_of, message_id, refusal_of, tenant_token
from mesh.errors import InvalidRequestError, QuotaExceededError, UnavailableError
from mesh.job_key import JobRef
from mesh.protocol import codec
from mesh.protocol.messages import AuditEntry
from mesh.signals import (
    AttemptStarted,
    ConnectionChanged,
    EngineDied,
    JobBuried,
    JobDelivered,
    JobEnded,
    JobReturned,
    RequestRefused,
    Signal,
    Step,
)

REF = JobRef("j", "acme", "chat", "batch", 7)
ENDED: dict[str, Any] = {
    "status": "failed",
    "attempts": 3,
    "prompt_tokens": 4,
    "cached_tokens": 1,
    "tokens": 9,
    "queued_ms": 5,
    "first_token_ms": None,
    "total_ms": 70,
    "code": "engine_error",
}
TOLD: list[tuple[Signal, str]] = [
    (JobDelivered(REF, delivered=1, queued_ms=3), "accepted"),
    (JobDelivered(REF, delivered=2, queued_ms=9_000), "accepted"),
    (AttemptStarted(REF, attempt=1, index=0, taken_from=""), "started"),
    (AttemptStarted(REF, attempt=2, index=0, taken_from="w"), "started"),
    (AttemptStarted(REF, attempt=2, index=4, taken_from="v", cause="worker_lost"), "taken_over"),
    (JobEnded(REF, **ENDED), "ended"),
    (JobBuried(REF, code="attempts_exhausted", attempts=3), "buried"),
    (JobReturned(REF, reason="drain"), "returned"),
    (RequestRefused(REF, code="invalid_request", reason="prompt: my secret"), "refused"),
]


@pytest.mark.parametrize(("signal", "event"), TOLD)
def test_an_entry_says_what_the_signal_says_and_nothing_in_words(signal: Signal, event: str) -> None:
    entry = entry_of(signal, "w", 1234)
    assert entry is not None
    assert (entry.event, entry.by, entry.unix_ms) == (event, "w", 1234)
    shown = {*signal.__struct_fields__, "job", "tenant", "model", "tier", "sequence"} & {*AuditEntry.__struct_fields__}
    if event == "returned":
        assert entry.sequence == 0
        shown.discard("sequence")
    for name in shown:
        assert (getattr(entry, name) or None) == (getattr(signal, name) or None)
    assert b"secret" not in codec.encode(entry)
    assert codec.decode_audit(codec.encode(entry)) == entry


@pytest.mark.parametrize(
    "signal",
    [
        JobDelivered(REF, delivered=2, queued_ms=200_000),
        Step("j", "ack", "after"),
        EngineDied("a secret"),
        ConnectionChanged(False),
    ],
)
def test_of_the_rest_nothing_is_said(signal: ConnectionChanged | EngineDied | JobDelivered | Step) -> None:
    assert entry_of(signal, "w", 1) is None


@given(st.text())
def test_a_refusal_tells_the_code_and_the_field_and_no_text(text: str) -> None:
    entry = refusal_of(InvalidRequestError(f"bad: {text}", field=text), "acme", "chat")
    assert (entry.code, entry.tenant, entry.model) == ("invalid_request", "acme", "chat")
    assert entry.field in ("", text)
    assert len(entry.field) <= 64
    assert entry.field.isascii()
    assert " " not in entry.field


@pytest.mark.parametrize(
    "error",
    [QuotaExceededError("5 jobs wait", field="max_tokens"), InvalidRequestError("bad", field="max_tokens")],
    ids=lambda each: each.code,
)
def test_a_refusal_names_the_field_whether_it_may_be_asked_again_or_not(
    error: InvalidRequestError | QuotaExceededError,
) -> None:
    entry = refusal_of(error, "acme", "chat")
    assert (entry.code, entry.field) == (error.code, "max_tokens")


def test_like_refusals_are_equal_so_that_they_can_be_counted() -> None:
    one = refusal_of(QuotaExceededError("5 jobs wait"), "acme", "chat")
    assert one == refusal_of(QuotaExceededError("6 jobs wait"), "acme", "chat")
    assert one != refusal_of(QuotaExceededError("5 jobs wait"), "other", "chat")
    assert one != refusal_of(UnavailableError("later"), "acme", "chat")


@given(st.integers(1, 2**60), st.integers(1, 2**60))
def test_what_is_told_twice_of_one_request_has_one_id_and_of_two_requests_two(one: int, other: int) -> None:
    for signal, _ in TOLD:
        if isinstance(signal, JobReturned):
            continue
        told = entry_of(signal, "w", 1)
        assert told is not None
        ids = {
            message_id(AuditEntry(event=e.event, unix_ms=1, by=e.by, sequence=sequence, attempt=e.attempt), mark)
            for e in [told]
            for sequence in (one, other)
            for mark in ("a", "b")
        }
        assert len(ids) == (1 if one == other else 2)


def test_what_can_happen_again_is_written_again() -> None:
    returned = entry_of(TOLD[-2][0], "w", 1)
    assert returned is not None
    assert message_id(returned, "a") != message_id(returned, "b")


@given(st.text())
def test_whatever_a_tenant_is_called_the_subject_stays_one(tenant: str) -> None:
    token = tenant_token(AuditEntry(event="ended", unix_ms=1, by="w", tenant=tenant))
    assert token in ("-", tenant)
    assert not set(token) & set(". *>\r\n\t")
