"""The requests of a benchmark and their times, from options and one seed. Pure.

The terms are those of vLLM's `bench serve` (request rate, burstiness, input and output length), so that the figures of
both can be compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mesh.errors import ConfigError
from mesh.protocol.subjects import check_tier, check_token

# fmt: off
WORDS = [
    "river", "stone", "lantern", "harbor", "winter", "copper", "meadow", "signal", "garden", "thunder", "paper",
    "silver", "window", "forest", "candle", "bridge", "market", "shadow", "engine", "valley", "ribbon", "feather",
    "castle", "morning", "island", "basket", "mirror", "hammer", "pepper", "ladder", "anchor", "velvet",
]
# fmt: on
MAX_TOKENS = 1_000_000


class Chance(Protocol):
    """The part of random.Random that the plan uses."""

    def random(self) -> float: ...
    def randint(self, a: int, b: int) -> int: ...
    def gauss(self, mu: float, sigma: float) -> float: ...
    def gammavariate(self, alpha: float, beta: float) -> float: ...


@dataclass(frozen=True, slots=True)
class Length:
    """A number of tokens, drawn for each request: uniform from `low` to `high`, or normal around their middle."""

    low: int
    high: int
    spread: float | None = None  # standard deviation of the normal distribution; None: uniform

    def draw(self, rng: Chance) -> int:
        if self.spread is None:
            return rng.randint(self.low, self.high)
        return min(self.high, max(self.low, round(rng.gauss((self.low + self.high) / 2, self.spread))))


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One planned request."""

    at_s: float | None  # since the start; None: as soon as another request ends
    tenant: str
    tier: str
    fields: Mapping[str, Any]  # of mesh.Client.submit


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a data set or a trace; a field that is None is drawn."""

    prompt: str | None = None
    messages: list[dict[str, str]] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    at_s: float | None = None
    tenant: str | None = None
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class WorkloadShape:
    """The parameters of a run's requests."""

    count: int
    input: Length
    output: Length
    tenants: Mapping[str, float] = field(default_factory=lambda: {"default": 1.0})  # shares
    tiers: Mapping[str, float] = field(default_factory=lambda: {"standard": 1.0})
    rate: float | None = None  # requests per second; None: each as soon as another ends
    burstiness: float = 1.0  # of the gaps: 1 is a Poisson process, smaller is burstier, larger is more even
    ignore_eos: bool = True
    temperature: float = 0.0


def read_length(key: str, text: str) -> Length:
    """Parse `128`, `64-256` or `normal:MEAN,STDDEV`.

    Raises:
        ConfigError: the text has another form.
    """
    try:
        if text.startswith("normal:"):
            mean, deviation = (float(part) for part in text.removeprefix("normal:").split(","))
            low, high = 1, max(1, round(2 * mean) - 1)
            length = Length(low, high, deviation)
            is_right = mean >= 1 and 0 <= deviation <= MAX_TOKENS
        else:
            low_text, dash, high_text = text.partition("-")
            length = Length(int(low_text), int(high_text if dash else low_text))
            is_right = 1 <= length.low <= length.high
    except (ValueError, OverflowError):  # round() of infinity overflows
        is_right, length = False, Length(1, 1)
    if not is_right or length.high > MAX_TOKENS:
        raise ConfigError(
            f"--{key} = {text!r} is not a number of tokens; give 128, 64-256 or normal:128,32 (1 to {MAX_TOKENS})",
            key=key,
        )
    return length


def read_shares(key: str, text: str) -> dict[str, float]:
    """Parse shares such as `a` or `a=1,b=4`.

    Raises:
        ConfigError: a name is invalid, or a share is not a number above 0.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = part.strip().partition("=")
        try:
            shares[check_tier(name) if key == "tier" else check_token(key, name)] = float(share) if equals else 1.0
        except ValueError:
            raise ConfigError(f"--{key}: the share of {name!r} is {share!r}, not a number", key=key) from None
    if not all(0 < share < 1e9 for share in shares.values()):
        raise ConfigError(f"--{key} = {text!r}: every share must be more than 0", key=key)
    return shares


def read_goals(texts: Sequence[str]) -> dict[str, float]:
    """Parse goals such as `ttft:500 tpot:50 e2el:2000`: the milliseconds that a good request does not exceed.

    Raises:
        ConfigError: a name is unknown, or a limit is not a number.
    """
    goals: dict[str, float] = {}
    for text in (part for each in texts for part in each.split()):
        name, colon, limit = text.partition(":")
        try:
            goals[name] = float(limit)
        except ValueError:
            goals[name] = -1.0
        if name not in ("ttft", "tpot", "e2el") or not colon or not 0 < goals[name] < 1e9:
            raise ConfigError(
                f"--goodput = {text!r} must be ttft:MS, tpot:MS or e2el:MS, such as ttft:500", key="goodput"
            )
    return goals


def asks(rng: Chance, shape: WorkloadShape, items: Sequence[Item] = ()) -> Iterator[PlannedRequest]:
    """Yield the `shape.count` requests of a run in the order of their times; `items` repeat as often as needed."""
    at_s, round_s = 0.0, 0.0
    for number in range(shape.count):
        item = items[number % len(items)] if items else Item()
        if number and items and number % len(items) == 0:  # a repeated trace continues from its end
            round_s = at_s
        if item.at_s is not None:
            at_s = round_s + item.at_s
        elif shape.rate is not None:
            at_s += _gap_s(rng, shape.rate, shape.burstiness)
        is_timed = item.at_s is not None or shape.rate is not None
        yield PlannedRequest(
            at_s=at_s if is_timed else None,
            tenant=item.tenant or _drawn(rng, shape.tenants),
            tier=item.tier or _drawn(rng, shape.tiers),
            fields=_fields(rng, shape, item, number),
        )


def _fields(rng: Chance, shape: WorkloadShape, item: Item, number: int) -> dict[str, Any]:
    output = item.output_tokens or shape.output.draw(rng)
    fields: dict[str, Any] = {"max_tokens": output, "temperature": shape.temperature, "ignore_eos": shape.ignore_eos}
    if item.messages is not None:
        return fields | {"messages": item.messages}
    if item.prompt is not None:
        return fields | {"prompt": item.prompt}
    words = item.input_tokens or shape.input.draw(rng)
    text = " ".join(WORDS[rng.randint(0, len(WORDS) - 1)] for _ in range(max(1, words - 1)))
    return fields | {"prompt": f"{number} {text}"}  # all differ, so that a prefix cache does not help


def _gap_s(rng: Chance, rate: float, burstiness: float) -> float:
    return rng.gammavariate(burstiness, 1.0 / (rate * burstiness))


def _drawn(rng: Chance, shares: Mapping[str, float]) -> str:
    left = rng.random() * sum(shares.values())
    for name, share in shares.items():
        left -= share
        if left < 0:
            return name
    return next(reversed(list(shares)))
