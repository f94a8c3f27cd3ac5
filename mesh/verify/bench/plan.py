"""What a benchmark asks, and when: all of it from options and one seed. Pure.

The words are those of vLLM's `bench serve` (request rate, burstiness, input and output length), so that figures of the
two can be laid side by side.
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
    """What is needed of random.Random."""

    def random(self) -> float: ...
    def randint(self, a: int, b: int) -> int: ...
    def gauss(self, mu: float, sigma: float) -> float: ...
    def gammavariate(self, alpha: float, beta: float) -> float: ...


@dataclass(frozen=True, slots=True)
class Length:
    """A number of tokens, drawn anew for each request: LOW to HIGH alike, or around MEAN."""

    low: int
    high: int
    spread: float | None = None  # standard deviation around the middle; None: all alike

    def draw(self, rng: Chance) -> int:
        if self.spread is None:
            return rng.randint(self.low, self.high)
        return min(self.high, max(self.low, round(rng.gauss((self.low + self.high) / 2, self.spread))))


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request to come."""

    at_s: float | None  # since the beginning; None: as soon as another has ended
    tenant: str
    tier: str
    fields: Mapping[str, Any]  # of mesh.Client.submit


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a data set or a trace: what it says of a request, None what is drawn."""

    prompt: str | None = None
    messages: list[dict[str, str]] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    at_s: float | None = None
    tenant: str | None = None
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class WorkloadShape:
    """How the requests of a run are made."""

    count: int
    input: Length
    output: Length
    tenants: Mapping[str, float] = field(default_factory=lambda: {"default": 1.0})  # shares
    tiers: Mapping[str, float] = field(default_factory=lambda: {"standard": 1.0})
    rate: float | None = None  # requests a second; None: as fast as others end
    burstiness: float = 1.0  # of the gaps: 1 is a Poisson process, less comes in bursts, more is more even
    ignore_eos: bool = True
    temperature: float = 0.0


def read_length(key: str, text: str) -> Length:
    """`128`, `64-256` or `normal:MEAN,STDDEV` as a Length.

    Raises:
        ConfigError: it is none of these.
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
    except (ValueError, OverflowError):  # infinity is a float, and no whole number
        is_right, length = False, Length(1, 1)
    if not is_right or length.high > MAX_TOKENS:
        raise ConfigError(
            f"--{key} = {text!r} is no number of tokens; give 128, 64-256 or normal:128,32 (1 to {MAX_TOKENS})", key=key
        )
    return length


def read_shares(key: str, text: str) -> dict[str, float]:
    """`a` or `a=1,b=4` as shares.

    Raises:
        ConfigError: a name cannot be used, or a share is no number above 0.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = part.strip().partition("=")
        try:
            shares[check_tier(name) if key == "tier" else check_token(key, name)] = float(share) if equals else 1.0
        except ValueError:
            raise ConfigError(f"--{key}: the share of {name!r} is {share!r}, no number", key=key) from None
    if not all(0 < share < 1e9 for share in shares.values()):
        raise ConfigError(f"--{key} = {text!r}: every share must be more than 0", key=key)
    return shares


def read_goals(texts: Sequence[str]) -> dict[str, float]:
    """`ttft:500 tpot:50 e2el:2000` as milliseconds that a good request does not exceed.

    Raises:
        ConfigError: another word, or no number.
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
    """The requests of a run in the order of their times, `shape.count` of them; `items` are gone through in turn."""
    at_s, round_s = 0.0, 0.0
    for number in range(shape.count):
        item = items[number % len(items)] if items else Item()
        if number and items and number % len(items) == 0:  # a trace that is gone through again begins where it ended
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
    return fields | {"prompt": f"{number} {text}"}  # no two alike: a prefix cache must not do the work


def _gap_s(rng: Chance, rate: float, burstiness: float) -> float:
    return rng.gammavariate(burstiness, 1.0 / (rate * burstiness))


def _drawn(rng: Chance, shares: Mapping[str, float]) -> str:
    left = rng.random() * sum(shares.values())
    for name, share in shares.items():
        left -= share
        if left < 0:
            return name
    return next(reversed(list(shares)))
