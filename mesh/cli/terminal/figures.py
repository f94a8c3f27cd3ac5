"""Numbers as people read them, in few columns. Pure. Used by the commands that look."""

from rich.filesize import decimal

from mesh.figures import many, span

__all__ = ["count", "many", "rate", "size", "span"]


def count(number: int) -> str:
    """9999, 12k, 3M, 4G."""
    for size, unit, divisor in ((10**9, "G", 10**9), (10**6, "M", 10**6), (10**4, "k", 1000)):
        if number >= size:
            return f"{number // divisor}{unit}"
    return str(number)


def size(number: int) -> str:
    """Bytes by powers of 1000: 512 bytes, 1.5 kB, 20.0 MB, 1.1 GB."""
    return decimal(number)


def rate(per_s: float | None) -> str:
    """12.5/s, 340/s; "-" where it is not known."""
    if per_s is None:
        return "-"
    return f"{per_s:.1f}/s" if per_s < 100 else f"{count(int(per_s))}/s"
