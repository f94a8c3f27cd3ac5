"""Figures for reports: quantiles, spans of time, counted nouns. Pure."""

import math
from collections.abc import Iterable

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1000, 60_000, 3_600_000, 86_400_000


def quantile(values: Iterable[float], share: float) -> float:
    """Return the quantile at `share`, 0 to 1, interpolated between the two nearest values; 0 if there are none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def span(milliseconds: float) -> str:
    """Format a span of time, such as 340ms, 4s, 4.2s, 42s, 7m, 3h or 12d."""
    if milliseconds < SECOND_MS:
        return f"{max(0, int(milliseconds))}ms"
    if milliseconds < 10 * SECOND_MS:
        return f"{int(milliseconds / 100) / 10:g}s"
    for size, unit in ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "m")):
        if milliseconds >= size:
            return f"{int(milliseconds // size)}{unit}"
    return f"{int(milliseconds // SECOND_MS)}s"


def many(number: int, one: str, several: str = "") -> str:
    """Format a count with its noun, such as 1 job or 12,000 jobs."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
