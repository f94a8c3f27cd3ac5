"""How the constants of time relate. Each inequality is a promise; the sentence says which."""

import pytest

from mesh.broker.topology import MeshSettings
from mesh.protocol import timing as t
from mesh.worker.options import WorkerOptions

SHORTEST_ACK_WAIT_S = 1.0  # MeshSettings refuses less
USUAL_ACK_WAIT_S = MeshSettings().ack_wait_s

INEQUALITIES = {
    "a renewal of a lease may be lost, and another still arrives before the guard": (
        (t.LEASE_BEATS - 1) / t.LEASE_BEATS,
        1 - t.LEASE_GUARD,
    ),
    "a worker is called silent only after it missed a beat": (2 * t.PRESENCE_BEAT_S, t.PRESENCE_SILENT_S),
    "and before its presence is gone": (t.PRESENCE_SILENT_S, t.PRESENCE_BEAT_S * t.PRESENCE_BEATS),
    "a leader renews its lease at least twice before it lapses": (
        2 * t.PRESENCE_BEAT_S,
        t.PRESENCE_BEAT_S * t.PRESENCE_BEATS,
    ),
    "a pinged worker announces its leases until the next ping, also if most pings are lost": (
        8 * t.PEER_PING_S,
        t.LEASES_ANNOUNCED_S,
    ),
    "a dead worker is found out faster than its shortest lease ends": (
        t.PEER_PING_S + t.PEER_PATIENCE_S,
        SHORTEST_ACK_WAIT_S,
    ),
    "a worker renews its liveness record before its lease ends": (t.LIVENESS_RENEW_S, USUAL_ACK_WAIT_S / 2),
    "a worker whose server froze notices it in time to object": (
        t.CONNECTION_PING_S * (t.CONNECTION_PINGS + 1),
        t.OBJECTION_S + 1e-9,
    ),
    "a process that ends a job stores the Result while the closed journal is left alone": (
        t.ENDING_S / 2,
        t.ENDING_S,
    ),
    "whoever closed a journal is given up before the job's next lease ends": (t.ENDING_S, USUAL_ACK_WAIT_S),
    "the worker that runs a job has a grace period to end it before a sweep does": (0, t.EXPIRY_GRACE_MS),
    "a client outwaits the grace period, a sweep, and two leases": (
        t.EXPIRY_GRACE_MS / 1000 + t.EXPIRY_SWEEP_S + 2 * USUAL_ACK_WAIT_S,
        t.RESULT_MARGIN_S,
    ),
    "`mesh drain` outwaits the hand-back and the presence of a worker that died": (
        t.HAND_BACK_S + t.PRESENCE_BEAT_S * (t.PRESENCE_BEATS + 1),
        t.DRAIN_MARGIN_S,
    ),
    "a requester whose library connects again has not gone away": (t.LIBRARY_RECONNECT_S, t.REQUESTER_GONE_S),
    "an answer is repeated until it is back": (t.REQUESTER_GONE_S, t.REQUESTER_BACK_S),
    "a worker that drains hands back faster than it may finish": (t.HAND_BACK_S, WorkerOptions(model="m").grace_s),
    "a duplicate submit is recognised while a client still repeats it": (
        t.RESULT_MARGIN_S,
        MeshSettings().duplicate_window_s,
    ),
    "the journal outlives the longest takeover": (
        USUAL_ACK_WAIT_S + t.ENDING_S + t.OBJECTION_S,
        MeshSettings().events_age_s / 2,
    ),
}


@pytest.mark.parametrize("promise", INEQUALITIES)
def test_the_constants_of_time_fit_together(promise: str) -> None:
    less, more = INEQUALITIES[promise]
    assert less < more
