"""A process estimates the server's time from its measurements."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.clock import DRIFT_MS_PER_S, Clock


class Hands:
    """The three sources of a clock, set by the test."""

    def __init__(self, wall_unix_ms: int = 1_000_000) -> None:
        self.monotonic_s = 100.0
        self.wall_ns = wall_unix_ms * 1_000_000
        self.clock = Clock(lambda: self.monotonic_s, lambda: self.wall_ns, lambda: self.monotonic_s)

    def observe(self, server_unix_ms: float, round_trip_s: float = 0.001) -> None:
        """Take a measurement whose midpoint is now."""
        self.clock.observe(server_unix_ms, self.monotonic_s - round_trip_s / 2, self.monotonic_s + round_trip_s / 2)


def test_until_it_was_measured_the_wall_clock_stands_for_the_servers() -> None:
    hands = Hands(wall_unix_ms=5_000)
    assert (hands.clock.is_measured, hands.clock.server_unix_ms(), hands.clock.wall_unix_ms()) == (False, 5_000, 5_000)


def test_a_measured_server_is_followed_whatever_the_wall_clock_does() -> None:
    hands = Hands(wall_unix_ms=5_000)
    hands.observe(9_000)
    hands.wall_ns = 1_000_000 * 77_000_000  # set by hand, or by a time server
    hands.monotonic_s += 2.5
    assert hands.clock.server_unix_ms() == 11_500


def test_a_vague_measurement_does_not_replace_a_precise_one_that_it_agrees_with() -> None:
    hands = Hands()
    hands.observe(9_000, round_trip_s=0.001)
    hands.observe(9_400, round_trip_s=1.0)  # anything from 8,900 to 9,900
    assert hands.clock.server_unix_ms() == 9_000


def test_a_precise_measurement_replaces_an_old_one() -> None:
    hands = Hands()
    hands.observe(9_000, round_trip_s=0.2)
    hands.observe(9_050, round_trip_s=0.001)
    assert hands.clock.server_unix_ms() == 9_050


def test_a_measurement_that_contradicts_what_is_known_counts() -> None:
    """Another leader may have another clock, or this machine may have slept."""
    hands = Hands()
    hands.observe(9_000, round_trip_s=0.001)
    hands.observe(60_000, round_trip_s=0.5)
    assert hands.clock.server_unix_ms() == 60_000


@given(
    st.floats(-100, 100),
    st.lists(st.tuples(st.floats(0.001, 600), st.floats(0.0001, 5), st.floats(-1, 1)), min_size=1, max_size=30),
)
def test_the_error_stays_within_that_of_the_best_measurement_and_the_drift(
    drift_ppm: float, measurements: list[tuple[float, float, float]]
) -> None:
    """The server's clock drifts, and is measured after any pauses over any network."""
    hands, server_ms, error_ms = Hands(), 50_000.0, float("inf")
    for pause_s, round_trip_s, skew in measurements:
        hands.monotonic_s += pause_s
        server_ms += pause_s * 1000 * (1 + drift_ppm / 1e6)
        hands.observe(server_ms + skew * round_trip_s * 500, round_trip_s)
        error_ms = min(error_ms + DRIFT_MS_PER_S * pause_s, round_trip_s * 500)
        assert abs(hands.clock.server_unix_ms() - server_ms) <= 2 * error_ms + DRIFT_MS_PER_S * pause_s + 2
