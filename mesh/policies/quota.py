"""What one tenant may ask for, and whether a request of its may go ahead. Pure.

Asked at the front door, where a refusal says when to try again, and by the worker that is about to begin a job, since
requests reach the queue without the front door too. Both ask before the engine is given anything.
"""

from dataclasses import dataclass

import msgspec

from mesh.errors import ConfigError, QuotaExceededError, RefusedError, TooLargeError
from mesh.protocol.messages import Request
from mesh.protocol.validate import max_tokens

MINUTE_MS = 60_000
DAY_MS = 86_400_000
QUEUED_RETRY_MS = 1000  # a queue that is full moves on with the next job that ends
MAX_RUNNING = 1000  # each running job of such a tenant holds a key, and all of them are read before one starts
FIRST_PAUSE_S = 0.25  # of a job that may not run yet; doubled each time, since each time costs a delivery
MAX_PAUSE_S = 5.0
_MOST = 1 << 53


class QuotaLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one tenant; None: no limit."""

    queued: int | None = None  # jobs that wait or run, over all models; asked at the front door
    running: int | None = None  # jobs at once, over all models and workers
    requests_per_minute: int | None = None  # of the clock's minutes
    tokens_per_day: int | None = None  # prompt and output, of the day in UTC; what runs when it is reached goes on
    max_tokens: int | None = None  # output tokens of one request
    prompt_bytes: int | None = None  # the input of one request, as JSON

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return self == QuotaLimits()


@dataclass(frozen=True, slots=True)
class QuotaUsage:
    """What a tenant has used, as far as its limits need it; 0 where they do not."""

    queued: int = 0  # jobs that wait or run, without this one
    requests: int = 0  # in this minute, with this one
    tokens: int = 0  # today, without this one


def check_limits(limits: QuotaLimits) -> QuotaLimits:
    """Return `limits` if they can be kept.

    Raises:
        ConfigError: naming the limit, its value and the range.
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
    """Why the request may not go ahead; None: it may.

    A QuotaExceededError says when to try again; a TooLargeError that this request never will be taken.
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
    """The minute of an instant, as a subject token."""
    return f"m{unix_ms // MINUTE_MS}"


def day_of(unix_ms: int) -> str:
    """The day of an instant in UTC, as a subject token."""
    return f"d{unix_ms // DAY_MS}"


def pause_s(delivered: int) -> float:
    """How long a job waits that may not run yet. `delivered`: how often it was handed out, from 1."""
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
