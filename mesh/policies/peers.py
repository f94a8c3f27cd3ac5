"""Assigns to each worker the peers that it watches for failure. Pure."""

from collections.abc import Iterable

REACH = 3  # watchers of one worker; only when it dies together with all of them must its lease run out first


def watched_peers(me: str, workers: Iterable[str], reach: int = REACH) -> list[str]:
    """Return the workers that `me` watches: the next `reach` after it in the ring of sorted names.

    A watcher that is not in `workers` watches all of them.
    """
    ring = sorted(set(workers))
    if me not in ring:
        return ring
    start = ring.index(me) + 1
    others = ring[start:] + ring[: start - 1]
    return others[:reach]
