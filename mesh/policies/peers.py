"""Who watches over whom. Pure."""

from collections.abc import Iterable

REACH = 3  # so many may die with their watched ones at the same moment before a lease has to run out


def watched_by(me: str, workers: Iterable[str], reach: int = REACH) -> list[str]:
    """The workers that `me` watches: the next `reach` after it in the ring of names.

    One that is no worker itself watches all.
    """
    ring = sorted(set(workers))
    if me not in ring:
        return ring
    start = ring.index(me) + 1
    others = ring[start:] + ring[: start - 1]
    return others[:reach]
