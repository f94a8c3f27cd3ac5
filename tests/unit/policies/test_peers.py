"""Who watches over whom."""

from mesh.policies.peers import REACH, watched_peers


def test_everybody_is_watched_by_as_many_as_reach() -> None:
    workers = [f"w-{n}" for n in range(10)]
    watchers = {name: [me for me in workers if name in watched_peers(me, workers)] for name in workers}
    assert {len(found) for found in watchers.values()} == {REACH}
    assert all(name not in found for name, found in watchers.items())


def test_few_watch_each_other() -> None:
    assert watched_peers("a", ["a", "b"]) == ["b"]
    assert watched_peers("b", ["a", "b", "c"]) == ["c", "a"]
    assert watched_peers("a", ["a"]) == []


def test_one_that_is_no_worker_watches_all() -> None:
    assert watched_peers("supervisor", ["b", "a", "a"]) == ["a", "b"]
