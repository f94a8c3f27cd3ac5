"""A job is shared if another requester waits for it or began it, in any order of joins, leaves and suspensions."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import StoredRequest
from mesh.broker.stores.journal import Journal
from mesh.broker.stores.queue import RequestQueue
from mesh.errors import BrokerTimeoutError, DisconnectedError, UnauthorizedError, UnavailableError
from mesh.gateway.waiters import Waiters
from mesh.job_key import JobKey
from mesh.protocol.messages import Started
from mesh.protocol.subjects import Names
from tests.simulated import run_simulated
from tests.wire import delivery_of

DOORS = 3
JOBS = ("j", "k")
INBOX = b"_INBOX.asks"
Heard = Callable[[bytes, bytes, bytes, bytes], None]
SEQUENCES = st.sampled_from([None, 41, 42])  # None: nothing is known
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "leave", "suspend", "wake", "lose", "ask", "ask", "forbid"]),
        st.integers(0, DOORS - 1),
        st.sampled_from(JOBS),
    ),
    max_size=25,
)


class Subjects:
    """Who listens where: the subscriptions of all front doors."""

    def __init__(self) -> None:
        self.ears: list[Ear] = []
        self.answers = 0


class Ear:
    """One subscription, until it is closed."""

    def __init__(self, line: "Line", subject: str, heard: Heard) -> None:
        self.line, self.subject, self.heard = line, subject, heard

    def close(self) -> None:
        self.line.subjects.ears.remove(self)


class Line:
    """One front door's connection."""

    def __init__(self, subjects: Subjects) -> None:
        self.subjects = subjects
        self.is_suspended = self.is_lost = self.is_forbidden = False

    def subscribe(self, subject: str, on_message: Heard) -> Ear:
        ear = Ear(self, subject, on_message)
        self.subjects.ears.append(ear)
        return ear

    def publish(self, subject: str, payload: bytes) -> None:
        if self.is_lost:
            raise DisconnectedError("no connection")
        assert subject.encode() == INBOX
        self.subjects.answers += 1

    async def request(self, subject: str, payload: bytes = b"", timeout_s: float = 5.0) -> tuple[bytes, bytes]:
        if self.is_forbidden:
            raise UnauthorizedError("this front door may not ask")
        ears = [ear for ear in self.subjects.ears if ear.subject == subject]
        if not ears:
            raise UnavailableError("nobody listens")
        before = self.subjects.answers
        for ear in ears:
            if not ear.line.is_suspended:
                ear.heard(subject.encode(), INBOX, payload, b"")
        if self.subjects.answers == before:
            raise BrokerTimeoutError("no answer")
        return b"", b""


class Head(Journal):
    def __init__(self, sequence: int | None) -> None:
        self._sequence = sequence

    async def begun(self, key: JobKey) -> Started | None:
        if self._sequence is None:
            return None
        return Started(id=key.id, attempt=1, index=0, worker="w", unix_ms=1, sequence=self._sequence)


class Queue(RequestQueue):
    def __init__(self, sequence: int | None) -> None:
        self._sequence = sequence

    async def find(self, key: JobKey) -> StoredRequest | None:
        return delivery_of(job=key.id, sequence=self._sequence).stored if self._sequence is not None else None


async def wait(steps: list[tuple[str, int, str]], began: int | None, queued: int | None) -> None:
    subjects = Subjects()
    lines = [Line(subjects) for _ in range(DOORS)]
    doors = [
        Waiters(
            cast(Broker, SimpleNamespace(connection=line, names=Names(), journal=Head(began), queue=Queue(queued))), "t"
        )
        for line in lines
    ]
    waits: dict[int, str] = {}
    first = began if began is not None else queued
    for what, number, job in steps:
        door, line = doors[number], lines[number]
        match what:
            case "join" if number not in waits:
                door.join(job)
                waits[number] = job
            case "leave":
                door.close()
                waits.pop(number, None)
            case "suspend" | "wake":
                line.is_suspended = what == "suspend"
            case "lose":
                line.is_lost = not line.is_lost
            case "forbid":
                line.is_forbidden = not line.is_forbidden
            case "ask":
                others = [each for each, waited in waits.items() if waited == job and each != number]
                is_heard = bool(others) and not line.is_forbidden
                assert await door.shares(job, 42) == (is_heard or first == 41)
                waits.pop(number, None)
        listening = sorted(ear.subject for ear in subjects.ears)
        assert listening == sorted(Names().system("joined", "t", waited) for waited in waits.values())


@given(STEPS, SEQUENCES, SEQUENCES)
def test_a_job_is_shared_if_another_waits_for_it_or_began_it(
    steps: list[tuple[str, int, str]], began: int | None, queued: int | None
) -> None:
    run_simulated(wait(steps, began, queued))
