"""What a tenant's limits decide, for any limits, any use and any time."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import QuotaExceededError, TooLargeError
from mesh.policies.quota import DAY_MS, MAX_PAUSE_S, MINUTE_MS, QuotaLimits, QuotaUsage, decide, minute_of, pause_s
from mesh.protocol.messages import Request

numbers = st.integers(min_value=0, max_value=1000)
some = st.none() | st.integers(min_value=1, max_value=1000)
limits = st.builds(
    QuotaLimits, queued=some, requests_per_minute=some, tokens_per_day=some, max_tokens=some, prompt_bytes=some
)
usages = st.builds(QuotaUsage, queued=numbers, requests=numbers, tokens=numbers)
requests = st.builds(Request, prompt=st.text(min_size=1, max_size=50), max_tokens=st.integers(1, 1000))
instants = st.integers(min_value=0, max_value=1 << 44)


def is_within(limit: int | None, value: int) -> bool:
    return limit is None or value <= limit


@given(limits, usages, requests, instants)
def test_a_request_goes_ahead_exactly_if_it_is_within_every_limit(
    allowed: QuotaLimits, usage: QuotaUsage, request: Request, now_ms: int
) -> None:
    refusal = decide(allowed, usage, request, now_ms)
    assert request.prompt is not None
    assert request.max_tokens is not None
    fits = is_within(allowed.max_tokens, request.max_tokens) and is_within(
        allowed.prompt_bytes, len(request.prompt.encode())
    )
    has_room = (
        is_within(allowed.requests_per_minute, usage.requests)
        and is_within(allowed.tokens_per_day, usage.tokens + 1)
        and is_within(allowed.queued, usage.queued + 1)
    )
    assert (refusal is None) == (fits and has_room)
    assert isinstance(refusal, TooLargeError) == (not fits), "what never fits is not told to come again"


@given(limits, usages, requests, instants)
def test_who_comes_again_when_told_meets_a_new_minute_or_day(
    allowed: QuotaLimits, usage: QuotaUsage, request: Request, now_ms: int
) -> None:
    refusal = decide(allowed, usage, request, now_ms)
    if isinstance(refusal, QuotaExceededError):
        assert refusal.retry_after_ms is not None
        assert 0 < refusal.retry_after_ms <= DAY_MS
        again_ms = now_ms + refusal.retry_after_ms
        if "in this minute" in refusal.reason:
            assert minute_of(again_ms) != minute_of(now_ms)
            assert again_ms % MINUTE_MS == 0
        if "tokens today" in refusal.reason:
            assert again_ms % DAY_MS == 0


@given(usages, requests, instants)
def test_no_limits_refuse_nothing(usage: QuotaUsage, request: Request, now_ms: int) -> None:
    assert QuotaLimits().is_empty
    assert decide(QuotaLimits(), usage, request, now_ms) is None


@given(st.integers(min_value=1, max_value=1 << 31))
def test_a_job_that_may_not_run_yet_waits_ever_longer_but_not_long(delivered: int) -> None:
    assert 0 < pause_s(delivered) <= pause_s(delivered + 1) <= MAX_PAUSE_S
