"""Numbers as people read them, in few columns. Pure. Used by the commands that look."""

from rich.filesize import decimal

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1000, 60_000, 3_600_000, 86_400_000


def count(number: int) -> str:
    """9999, 12k, 3M, 4G."""
    for size, unit, divisor in ((10**9, "G", 10**9), (10**6, "M", 10**6), (10**4, "k", 1000)):
        if number >= size:
            return f"{number // divisor}{unit}"
    return str(number)


def size(number: int) -> str:
    """Bytes by powers of 1000: 512 bytes, 1.5 kB, 20.0 MB, 1.1 GB."""
    return decimal(number)


def span(milliseconds: float) -> str:
    """340ms, 4.2s, 42s, 7m, 3h, 12d."""
    if milliseconds < SECOND_MS:
        return f"{max(0, int(milliseconds))}ms"
    if milliseconds < 10 * SECOND_MS:
        return f"{int(milliseconds / 100) / 10}s"
    for size, unit in ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "m")):
        if milliseconds >= size:
            return f"{int(milliseconds // size)}{unit}"
    return f"{int(milliseconds // SECOND_MS)}s"


def rate(per_s: float | None) -> str:
    """12.5/s, 340/s; "-" where it is not known."""
    if per_s is None:
        return "-"
    return f"{per_s:.1f}/s" if per_s < 100 else f"{count(int(per_s))}/s"


def many(number: int, one: str, several: str = "") -> str:
    """1 job, 2 jobs; with commas in large numbers."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
