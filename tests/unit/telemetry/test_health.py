"""A process is ready, or names the reasons why it is not."""

import pytest

from mesh.telemetry.health import PROBE_PATIENCE_S, Condition, reasons


def test_a_worker_that_is_well_is_ready() -> None:
    assert reasons(Condition("ready", owes_s=1.0, silent_s=5.0)) == []


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        (Condition("starting"), "starting"),
        (Condition("draining"), "draining"),
        (Condition("ended"), "ended"),
        (Condition("ready", is_connected=False), "there is no connection to NATS"),
        (Condition("ready", is_confirmed=False), "not confirmed"),
        (Condition("ready", engine_fault="gone"), "dead"),
        (Condition("ready", owes_s=PROBE_PATIENCE_S + 1), "not answered for 16 s"),
        (Condition("ready", silent_s=5, stall_s=8), "no token for any job in 5 s"),
    ],
)
def test_whatever_is_wrong_is_a_reason_of_its_own(condition: Condition, word: str) -> None:
    (reason,) = reasons(condition)
    assert word in reason


def test_several_faults_are_all_named() -> None:
    found = reasons(Condition("draining", is_connected=False, owes_s=100, silent_s=100))
    assert len(found) == 4
    assert found[0] == "it is draining"


def test_one_that_has_ended_is_asked_nothing_more() -> None:
    assert len(reasons(Condition("ended", is_connected=False, silent_s=1000))) == 1


def test_an_error_text_of_the_engine_is_not_shown() -> None:
    assert "secret" not in " ".join(reasons(Condition("ready", engine_fault="a secret of the engine")))
