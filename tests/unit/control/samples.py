"""A look at a mesh of one queue and one worker, and a job of it: what the tests of this folder vary."""

from mesh.broker.inspect.facts import LaneFacts, ServerFacts, StoreFacts
from mesh.control.jobs.job_state import JobSeen
from mesh.control.status.depth import Snapshot, WorkerSeen, read_queues
from mesh.protocol.messages import Presence
from mesh.protocol.subjects import Names

NAMES = Names()
LANE = LaneFacts(name="m-standard-0", model="m", tier="standard", lane="0", pending=7, in_flight=2, deliveries=10)
WORKER = Presence(
    worker="w-1",
    model="m",
    state="ready",
    engine="simulator",
    engine_version="1",
    version="0.1.0",
    host="h",
    pid=1,
    capacity=4,
    running=2,
    finished=8,
    tokens=100,
    started_unix_ms=5,
)
SEEN = JobSeen(
    job="j", tenant="t", model="m", tier="batch", lane="0", state="running", sequence=1, age_ms=1, deadline_ms=1
)


def snapshot(
    unix_ms: int = 10_000, lane: LaneFacts = LANE, worker: Presence = WORKER, beat: int = 9000, last: int = 17
) -> Snapshot:
    queues, unroutable = read_queues(NAMES, {"mesh.req.m.standard.t.0": lane.pending + lane.in_flight}, [lane])
    requests = StoreFacts(
        name="MESH_REQUESTS", kind="stream", messages=lane.pending + lane.in_flight, bytes=1, last_sequence=last
    )
    return Snapshot(
        unix_ms=unix_ms,
        server=ServerFacts(name="s", version="2.15.1"),
        stores=[requests],
        missing=[],
        queues=queues,
        unroutable=unroutable,
        workers=[WorkerSeen(presence=worker, beat_unix_ms=beat, age_ms=unix_ms - beat)],
        dead_letters=0,
    )
