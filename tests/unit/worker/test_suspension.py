"""Whether what is read now may have lain in the socket of a suspended process."""

from mesh.worker.suspension import Suspension

LIMIT_S = 5.0


def ticked(*at_s: float) -> Suspension:
    made = Suspension(LIMIT_S)
    for each in at_s:
        made.ticked(each)
    return made


def test_before_the_first_tick_nothing_is_suspected() -> None:
    assert not ticked().is_suspected(1000.0)
    assert not ticked(1000.0).is_suspected(1000.1)


def test_a_process_that_ticks_is_not_suspected() -> None:
    suspension = ticked(0.0, 0.25, 0.5)
    assert not suspension.is_suspected(0.6)
    assert not suspension.is_suspected(0.5 + LIMIT_S)


def test_what_is_read_before_the_overdue_tick_is_suspected() -> None:
    assert ticked(0.0, 0.25).is_suspected(0.25 + LIMIT_S + 0.01)


def test_what_is_read_after_the_overdue_tick_is_suspected_too() -> None:
    """The event loop runs overdue timers before it reads the socket."""
    suspension = ticked(0.0, 0.25, 60.0)
    assert suspension.is_suspected(60.0)
    assert suspension.is_suspected(60.2)


def test_the_tick_after_it_ends_the_suspicion() -> None:
    assert not ticked(0.0, 0.25, 60.0, 60.25).is_suspected(60.3)
