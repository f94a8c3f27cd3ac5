"""The constants of time that two rooms must agree on. Pure. tests/unit/protocol/test_timing.py checks their relations.

A constant of one module alone stays in that module.
"""

# Retries: a call that NATS did not answer is repeated so soon; a lease, a deadline or a timeout bounds the repeats.
RETRY_S = 0.1
LAG_S = 0.05  # between two reads of a replica that lags behind its leader

# Presence: a worker rewrites its value every beat; the bucket drops the value after so many missed beats.
PRESENCE_BEAT_S = 2.0
PRESENCE_BEATS = 3
PRESENCE_SILENT_S = 4.5  # operators are told of a worker that has not beaten for so long

# Leases: a delivery belongs to a worker for `ack_wait` after its last confirmed renewal was sent.
LEASE_BEATS = 4  # renewals in one `ack_wait`: three may be lost
LEASE_GUARD = 0.05  # of `ack_wait`: time for an action to reach the server before it would deliver again

# Connections: an unresponsive server is noticed after CONNECTION_PING_S * (CONNECTION_PINGS + 1).
CONNECTION_PING_S = 2
CONNECTION_PINGS = 2

# Failure detection: peers ping each other, and a worker that is pinged announces its leases.
PEER_PING_S = 0.25  # between pings of one peer
PEER_PATIENCE_S = 0.3  # between the first ping without a responder and the verdict
LEASES_ANNOUNCED_S = 3.0  # a pinged worker announces what it takes and gives for so long after each ping
LIVENESS_RENEW_S = 2.0  # the most between two renewals of a worker's liveness record

# Death check: a worker that was cut off has so long to object before its job is given up as poison.
OBJECTION_S = 6.0

# Closing a journal: a worker that finds it closed leaves the job alone for so long, twice what the closer has to store.
ENDING_S = 4.0

# Deadlines: the worker that runs a job ends it; other processes end what is left a grace period later.
EXPIRY_GRACE_MS = 1000
EXPIRY_SWEEP_S = 1.0
RESULT_MARGIN_S = 30.0  # a client waits so long beyond the deadline for the Result

# Draining: a worker that was told to drain ends within its grace period, HAND_BACK_S, and a lapsed presence.
HAND_BACK_S = 2.0
DRAIN_MARGIN_S = 15.0  # operators wait so long beyond the grace period

# Front doors: client libraries wait two seconds before they connect again.
LIBRARY_RECONNECT_S = 2.0
REQUESTER_GONE_S = 2.5  # a requester that was not heard for so long has gone away
REQUESTER_BACK_S = 5.0  # an answer is repeated for so long where a connection was away
