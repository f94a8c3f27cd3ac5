"""Whether a delivery is still this worker's."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.protocol.timing import LEASE_BEATS, LEASE_GUARD
from mesh.worker.lease import Lease


def test_a_lease_holds_a_little_less_long_than_the_server_waits() -> None:
    lease = Lease(10.0, 100.0)
    assert lease.is_held(100.0)
    assert lease.is_held(109.4)
    assert not lease.is_held(109.5)
    assert not lease.is_held(110.0)


def test_an_extension_counts_from_when_it_was_sent() -> None:
    lease = Lease(10.0, 100.0)
    lease.extended(105.0)
    assert lease.is_held(114.4)
    assert not lease.is_held(114.6)


def test_an_answer_that_comes_late_takes_nothing_back() -> None:
    lease = Lease(10.0, 100.0)
    lease.extended(105.0)
    lease.extended(102.0)
    assert lease.confirmed_s == 105.0


def test_a_lease_given_up_is_never_held_again() -> None:
    lease = Lease(10.0, 100.0, is_lost=True)
    lease.extended(101.0)
    assert not lease.is_held(101.0)


def test_one_lost_beat_or_two_cost_no_lease() -> None:
    assert (LEASE_BEATS - 1) / LEASE_BEATS < 1 - LEASE_GUARD


@given(st.floats(1, 3600), st.lists(st.floats(0, 10_000), max_size=20), st.floats(0, 20_000))
def test_a_lease_is_never_held_when_the_server_may_have_redelivered(
    ack_wait_s: float, sent: list[float], now_s: float
) -> None:
    lease = Lease(ack_wait_s, 0.0)
    for sent_s in sent:
        lease.extended(sent_s)
    assert lease.is_held(now_s) == (now_s < max([0.0, *sent]) + ack_wait_s * (1 - LEASE_GUARD))
    if lease.is_held(now_s):
        assert now_s < max([0.0, *sent]) + ack_wait_s
