"""A process that died is started again, until its patience is used up."""

from mesh.policies.restart import MAX_PAUSE_S, QUICK_S, Backoff


def test_what_never_gets_ready_is_given_up_the_fifth_time() -> None:
    backoff = Backoff()
    assert [backoff.died(0) for _ in range(5)] == [0.5, 1, 2, 4, None]


def test_what_dies_soon_after_it_was_ready_gets_more_patience() -> None:
    backoff = Backoff()
    pauses = [backoff.died(1.0) for _ in range(20)]
    assert pauses[:5] == [0.5, 1, 2, 4, 8]
    assert pauses[-1] is None
    assert None not in pauses[:-1]
    assert max(pause or 0 for pause in pauses[:-1]) == MAX_PAUSE_S


def test_what_lived_starts_the_count_anew() -> None:
    backoff = Backoff()
    for _ in range(50):
        assert backoff.died(QUICK_S + 1) == 0.5
    assert backoff.died(1) == 1


def test_being_ready_once_forgives_failed_starts() -> None:
    backoff = Backoff()
    for _ in range(3):
        assert [backoff.died(lived_s) is None for lived_s in (0, 0, 0, 0, 1.0)] == [False] * 5
