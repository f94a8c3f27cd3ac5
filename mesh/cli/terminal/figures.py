"""Numbers as people read them, in few columns. Pure. Used by the commands that look."""

from mesh.figures import many, span

__all__ = ["count", "many", "rate", "size", "span"]


def count(number: int) -> str:
    """9999, 12k, 3M, 4G."""
    for size, unit, divisor in ((10**9, "G", 10**9), (10**6, "M", 10**6), (10**4, "k", 1000)):
        if number >= size:
            return f"{number // divisor}{unit}"
    return str(number)


def size(number: int) -> str:
    """Bytes: 512 B, 1.5 kB, 20 MB, 1.0 GB."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{number} B" if unit == "B" else f"{value:.{1 if value < 10 else 0}f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"


def rate(per_s: float | None) -> str:
    """12.5/s, 340/s; "-" where it is not known."""
    if per_s is None:
        return "-"
    return f"{per_s:.1f}/s" if per_s < 100 else f"{count(int(per_s))}/s"
