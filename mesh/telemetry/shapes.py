"""The buckets of the histograms, and the limits of labels' values. Pure."""

# Waiting and whole jobs: from an empty queue to one that is hours behind.
LONG_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
# A first token: from a short prompt on a small model to a long one behind other jobs.
FIRST_TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 30, 60, 120)
# One output token.
TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5)
# Tokens of one job.
JOB_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144)

MOST_TENANTS = 50  # tenants with their own series
MOST_MODELS = 50  # models with their own series, in requests that no worker saw: a client can send any name
MOST_CODES = 40  # more than the mesh's own codes; a third party's engine may add some
OTHER = "other"


class BoundedLabel:
    """Bounds the values of a label: the first `most` keep their names, and all later ones become `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the label's value for `value`."""
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value


def per_token_s(seconds: float, first_token_s: float | None, tokens: int) -> float | None:
    """Return the mean time per token after the first; None where there were fewer than two."""
    if first_token_s is None or tokens < 2:
        return None
    return max(0.0, seconds - first_token_s) / (tokens - 1)


def cumulative(counts: list[int], bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    """Turn counts per bucket, the last one open, into Prometheus's pairs of upper bound and cumulative count."""
    total, found = 0, []
    for bound, count in zip((*map(str, map(float, bounds)), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found
