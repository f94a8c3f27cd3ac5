"""The figures of a benchmark, computed from its requests. Pure.

The names are vLLM's. TTFT: time to the first token. ITL: time between two messages of a stream. TPOT: a request's mean
time per output token after the first. E2EL: time to the request's end. TTFT and E2EL begin when the client sends the
request, by its own clock.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.figures import quantile

PERCENTILES = (50, 90, 99)


@dataclass(slots=True)
class Sample:
    """One request as its client saw it. Times are monotonic seconds."""

    tenant: str
    tier: str
    due_s: float  # its planned time
    sent_s: float
    arrivals_s: list[float] = field(default_factory=list)  # time of each message with tokens
    counts: list[int] = field(default_factory=list)  # tokens in each of these messages
    done_s: float = 0.0
    status: str = ""  # of its Result; "refused" if there is none
    code: str = ""  # of its error
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    attempts: int = 0
    # From its Result: times since the request was stored, by the worker's clock.
    queued_ms: int | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None

    @property
    def ttft_ms(self) -> float | None:
        return (self.arrivals_s[0] - self.sent_s) * 1000 if self.arrivals_s else None

    @property
    def e2el_ms(self) -> float:
        return (self.done_s - self.sent_s) * 1000

    @property
    def tpot_ms(self) -> float | None:
        later = sum(self.counts) - self.counts[0] if self.counts else 0
        return (self.arrivals_s[-1] - self.arrivals_s[0]) * 1000 / later if later else None


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of values, in ms."""

    mean: float
    std: float
    max: float
    percentiles: dict[int, float]


@dataclass(frozen=True, slots=True)
class BenchFigures:
    """The figures of one run."""

    duration_s: float
    requests: int
    finished: int
    ended: dict[str, int]  # by status
    errors: dict[str, int]  # by code
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    retried: int  # requests with several attempts
    good: int | None  # requests that finished within every goal; None: no goals are set
    peak_concurrency: int
    peak_tokens_per_s: float
    tokens_per_message: float
    spreads: dict[str, Spread]  # ttft, tpot, itl, e2el; queued, prefill, decode, wire; lag

    @property
    def rates(self) -> dict[str, float]:
        """Rates per second."""
        per_s = 1 / self.duration_s if self.duration_s > 0 else 0.0
        rates = {
            "requests": self.finished * per_s,
            "output_tokens": self.output_tokens * per_s,
            "total_tokens": (self.input_tokens + self.output_tokens) * per_s,
        }
        return rates if self.good is None else rates | {"good_requests": self.good * per_s}

    def as_json(self) -> dict[str, Any]:
        """Return all figures, with vLLM's names where it has one."""
        flat: dict[str, Any] = {
            "duration": self.duration_s,
            "num_prompts": self.requests,
            "completed": self.finished,
            "failed": self.requests - self.finished,
            "ended": self.ended,
            "errors": self.errors,
            "total_input_tokens": self.input_tokens,
            "cached_input_tokens": self.cached_tokens,
            "total_output_tokens": self.output_tokens,
            "request_throughput": self.rates["requests"],
            "request_goodput": self.rates.get("good_requests"),
            "output_throughput": self.rates["output_tokens"],
            "total_token_throughput": self.rates["total_tokens"],
            "max_output_tokens_per_s": self.peak_tokens_per_s,
            "max_concurrent_requests": self.peak_concurrency,
            "tokens_per_message": self.tokens_per_message,
            "retried": self.retried,
        }
        for name, spread in self.spreads.items():
            flat |= {f"mean_{name}_ms": spread.mean, f"std_{name}_ms": spread.std, f"max_{name}_ms": spread.max}
            flat |= {f"p{share}_{name}_ms": value for share, value in spread.percentiles.items()}
        return flat


def figures_of(
    samples: Sequence[Sample], goals: Mapping[str, float] | None = None, percentiles: Sequence[int] = PERCENTILES
) -> BenchFigures:
    """Compute the figures of a run. `goals`: milliseconds by ttft, tpot, e2el."""
    done = [each for each in samples if each.status == "finished"]
    began_s = min((each.sent_s for each in samples), default=0.0)
    ended_s = max((each.done_s for each in samples), default=0.0)
    messages = sum(len(each.counts) for each in done)
    tokens = sum(each.completion_tokens for each in done)
    values: dict[str, list[float]] = {
        "ttft": _known(done, lambda each: each.ttft_ms),
        "tpot": _known(done, lambda each: each.tpot_ms),
        "itl": [1000 * (b - a) for each in done for a, b in zip(each.arrivals_s, each.arrivals_s[1:], strict=False)],
        "e2el": [each.e2el_ms for each in done],
        **phases(done),
        "lag": [max(0.0, each.sent_s - each.due_s) * 1000 for each in samples],
    }
    return BenchFigures(
        duration_s=max(0.0, ended_s - began_s),
        requests=len(samples),
        finished=len(done),
        ended=dict(Counter(each.status for each in samples)),
        errors=dict(Counter(each.code for each in samples if each.code)),
        input_tokens=sum(each.prompt_tokens for each in done),
        cached_tokens=sum(each.cached_tokens for each in done),
        output_tokens=tokens,
        retried=sum(each.attempts > 1 for each in samples),
        good=sum(is_good(each, goals) for each in done) if goals else None,
        peak_concurrency=_peak(samples),
        peak_tokens_per_s=_peak_tokens(done),
        tokens_per_message=sum(sum(each.counts) for each in done) / messages if messages else 0.0,
        spreads={name: spread_of(found, percentiles) for name, found in values.items() if found},
    )


def phases(samples: Iterable[Sample]) -> dict[str, list[float]]:
    """Return the phases of all requests, in ms.

    - queued: the wait in the queue.
    - prefill: in the engine, up to the first token.
    - decode: in the engine, after the first token.
    - wire: the rest of the client's wait: NATS, the network, and the client itself.
    """
    found: dict[str, list[float]] = {"queued": [], "prefill": [], "decode": [], "wire": []}
    for each in samples:
        if each.queued_ms is None or each.total_ms is None:
            continue
        found["queued"].append(float(each.queued_ms))
        found["wire"].append(max(0.0, each.e2el_ms - each.total_ms))
        if each.first_token_ms is not None:
            found["prefill"].append(float(max(0, each.first_token_ms - each.queued_ms)))
            found["decode"].append(float(max(0, each.total_ms - each.first_token_ms)))
    return found


def is_good(sample: Sample, goals: Mapping[str, float]) -> bool:
    """Return whether a finished request met every goal. One with fewer than two tokens meets any tpot goal."""
    measured = {"ttft": sample.ttft_ms, "tpot": sample.tpot_ms, "e2el": sample.e2el_ms}
    for name, limit_ms in goals.items():
        value = measured[name]
        if value is None:
            if name == "ttft":
                return False
        elif value > limit_ms:
            return False
    return True


def spread_of(values: Sequence[float], percentiles: Sequence[int] = PERCENTILES) -> Spread:
    """Return the distribution of one value or more."""
    ordered = sorted(values)
    return Spread(
        mean=statistics.fmean(ordered),
        std=statistics.pstdev(ordered),
        max=ordered[-1],
        percentiles={share: quantile(ordered, share / 100) for share in percentiles},
    )


def _known(samples: Iterable[Sample], value: Callable[[Sample], float | None]) -> list[float]:
    return [found for each in samples if (found := value(each)) is not None]


def _peak(samples: Iterable[Sample]) -> int:
    """Return the largest number of open requests."""
    changes = sorted([(each.sent_s, 1) for each in samples] + [(each.done_s, -1) for each in samples])
    open_now = most = 0
    for _, change in changes:
        open_now += change
        most = max(most, open_now)
    return most


def _peak_tokens(samples: Sequence[Sample]) -> float:
    """Return the largest number of output tokens in one second of the run."""
    began_s = min((each.sent_s for each in samples), default=0.0)
    seconds: Counter[int] = Counter()
    for each in samples:
        for arrived_s, count in zip(each.arrivals_s, each.counts, strict=True):
            seconds[int(arrived_s - began_s)] += count
    return float(max(seconds.values(), default=0))
