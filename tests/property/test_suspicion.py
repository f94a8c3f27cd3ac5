"""Nobody is declared gone without two unheard pings the patience apart, on a steady connection, its leases known."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.protocol.timing import PEER_PATIENCE_S
from mesh.reconcile.suspicion import Suspicion

STEADY_S = 2.0
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["unheard"] * 6 + ["listed", "listed", "answered", "connection"]),
        st.sampled_from([0.0, 0.1, 0.25, PEER_PATIENCE_S, 1.0, STEADY_S, 3.0]),
    ),
    max_size=40,
)


@given(STEPS, st.sampled_from([PEER_PATIENCE_S, 2.6]))
def test_nobody_is_gone_by_less_than_two_unheard_pings(steps: list[tuple[str, float]], patience_s: float) -> None:
    suspicion = Suspicion()
    now_s = 0.0
    steady_from_s = STEADY_S
    happened: list[tuple[str, float]] = []  # since the connection changed
    for what, wait_s in steps:
        now_s += wait_s
        match what:
            case "listed":
                suspicion.listed(["a"])
            case "answered":
                suspicion.cleared()
            case "connection":
                suspicion.interrupted()
                steady_from_s = now_s + STEADY_S
                happened.clear()
            case "unheard":
                verdict = suspicion.unheard(now_s, steady_from_s, patience_s)
                unheard: list[float] = []  # since the last answer, while its leases were known and all was steady
                is_known = False
                for before, at_s in happened:
                    is_known = is_known or before == "listed"
                    if before != "unheard":
                        unheard.clear()
                    elif is_known and at_s >= steady_from_s:
                        unheard.append(at_s)
                may_suspect = is_known and now_s >= steady_from_s
                is_due = bool(unheard) and now_s - unheard[0] >= patience_s
                assert (verdict == "alive") == (not may_suspect)
                assert (verdict == "gone") == (may_suspect and is_due)
        if what != "connection":
            happened.append((what, now_s))
        assert suspicion.is_known == any(before == "listed" for before, _ in happened)
