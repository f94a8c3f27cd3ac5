"""A tenant's limits, and the check of a request against them. Pure.

The gateway checks a request before it enters the queue; its refusal says when to try again. The worker checks again
before a delivered job starts, because clients can also publish to the queue directly. No engine sees a request before
this check.
"""

from dataclasses import dataclass

import msgspec

from mesh.errors import ConfigError, QuotaExceededError, RefusedError, TooLargeError
from mesh.protocol.messages import Request
from mesh.protocol.validate import max_tokens

MINUTE_MS = 60_000
DAY_MS = 86_400_000
QUEUED_RETRY_MS = 1000  # the next job that ends frees a place in a full queue
MAX_RUNNING = 1000  # each running job holds one key in the store, and a start reads all of the tenant's keys
FIRST_PAUSE_S = 0.25  # before a job over its limit is delivered again; doubles, since each try costs a delivery
MAX_PAUSE_S = 5.0
_MOST = 1 << 53


class QuotaLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The limits of one tenant; None: no limit."""

    queued: int | None = None  # jobs that wait or run, over all models; checked by the gateway only
    running: int | None = None  # jobs at once, over all models and workers
    requests_per_minute: int | None = None  # minutes begin on the clock's full minute
    tokens_per_day: int | None = None  # prompt and output; days are UTC; jobs that run when it is reached continue
    max_tokens: int | None = None  # output tokens of one request
    prompt_bytes: int | None = None  # the input of one request, as JSON

    @property
    def is_empty(self) -> bool:
        """Whether no limit is set."""
        return self == QuotaLimits()


@dataclass(frozen=True, slots=True)
class QuotaUsage:
    """A tenant's usage; a counter that no limit needs is 0."""

    queued: int = 0  # jobs that wait or run, without this one
    requests: int = 0  # in this minute, with this one
    tokens: int = 0  # today, without this one


def check_limits(limits: QuotaLimits) -> QuotaLimits:
    """Return `limits` unchanged if every value is in its range.

    Raises:
        ConfigError: a value is out of range; the message names the limit, the value and the range.
    """
    for key, least, most in (
        ("queued", 1, _MOST),
        ("running", 1, MAX_RUNNING),
        ("requests_per_minute", 1, _MOST),
        ("tokens_per_day", 0, _MOST),
        ("max_tokens", 1, _MOST),
        ("prompt_bytes", 1, _MOST),
    ):
        value = getattr(limits, key)
        option = key.replace("_", "-")
        if value is not None and not least <= value <= most:
            raise ConfigError(
                f"{option} = {value} is not between {least} and {most}; give --{option} N, or none for no limit",
                key=option,
            )
    return limits


def decide(limits: QuotaLimits, usage: QuotaUsage, request: Request, now_unix_ms: int) -> RefusedError | None:
    """Return the reason to refuse the request; None: accept it.

    A QuotaExceededError says when to try again. A TooLargeError means that the limits never allow this request.
    """
    asked = max_tokens(request)
    if request.input is None and limits.max_tokens is not None and asked > limits.max_tokens:
        return TooLargeError(
            f"{asked} output tokens are more than this tenant's limit, {limits.max_tokens}", field="max_tokens"
        )
    if limits.prompt_bytes is not None:
        name, size = _input_of(request)
        if size > limits.prompt_bytes:
            return TooLargeError(f"{size} bytes are more than this tenant's limit, {limits.prompt_bytes}", field=name)
    if limits.tokens_per_day is not None and usage.tokens >= limits.tokens_per_day:
        text = f"{usage.tokens} tokens today, of {limits.tokens_per_day} a day"
        return _later(text, DAY_MS - now_unix_ms % DAY_MS)
    if limits.requests_per_minute is not None and usage.requests > limits.requests_per_minute:
        text = f"more than {limits.requests_per_minute} requests in this minute"
        return _later(text, MINUTE_MS - now_unix_ms % MINUTE_MS)
    if limits.queued is not None and usage.queued >= limits.queued:
        return _later(f"{usage.queued} jobs wait or run, of {limits.queued} at once", QUEUED_RETRY_MS)
    return None


def minute_of(unix_ms: int) -> str:
    """Return the minute of an instant as a subject token."""
    return f"m{unix_ms // MINUTE_MS}"


def day_of(unix_ms: int) -> str:
    """Return the UTC day of an instant as a subject token."""
    return f"d{unix_ms // DAY_MS}"


def pause_s(delivered: int) -> float:
    """Return how long a job over its limit waits before its next delivery. `delivered`: deliveries so far, from 1."""
    return min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(delivered - 1, 10))


def _later(text: str, retry_after_ms: int) -> QuotaExceededError:
    when = f"{retry_after_ms} ms" if retry_after_ms < 10_000 else f"{-(-retry_after_ms // 1000)} s"
    return QuotaExceededError(f"{text}; try again in {when}", retry_after_ms=retry_after_ms)


def _input_of(request: Request) -> tuple[str, int]:
    for name in ("prompt", "messages", "prompt_token_ids", "input"):
        value = getattr(request, name)
        if value is not None:
            return name, len(value.encode()) if isinstance(value, str) else len(msgspec.json.encode(value))
    return "prompt", 0
