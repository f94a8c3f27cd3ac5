"""Whatever is lost between two processes and the server: they never lead at the same time."""

import asyncio
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.broker import Broker
from mesh.broker.transport.mapping import WRONG_LAST_SEQUENCE
from mesh.protocol import headers
from mesh.protocol.subjects import Names
from mesh.protocol.timing import PRESENCE_BEAT_S, PRESENCE_BEATS
from mesh.reconcile.leader import LeaderLease
from tests.simulated import FATES, Fate, Line, pass_time, run_simulated

LEASE_S = PRESENCE_BEAT_S * PRESENCE_BEATS
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
# How long a process waits before it asks again: a beat, at once, or as one that was suspended.
PAUSES = st.lists(st.sampled_from([0.0, 0.3, 1.0, PRESENCE_BEAT_S, LEASE_S - 0.5, LEASE_S + 0.5]), max_size=15)


class Key:
    """One key that lapses, written only at the revision that its writer names."""

    def __init__(self) -> None:
        self.revision = 0
        self.newest = 0
        self.written_s = 0.0

    def write(self, expected: int, now_s: float) -> bytes:
        if self.revision and now_s >= self.written_s + LEASE_S:
            self.revision = 0  # the bucket forgets it
        if expected != self.revision:
            text = f"wrong last sequence: {self.revision}"
            return b'{"error":{"code":400,"err_code":%d,"description":"%s"}}' % (
                WRONG_LAST_SEQUENCE[0],
                text.encode(),
            )
        self.newest += 1
        self.revision, self.written_s = self.newest, now_s
        return b'{"stream":"S","seq":%d}' % self.revision


class Way:
    """One process's way to the key, on which its calls and answers get lost."""

    def __init__(self, key: Key, fates: list[Fate]) -> None:
        self._key = key
        self._line = Line(fates)
        self._loop = asyncio.get_running_loop()

    async def request(
        self, subject: str, payload: bytes = b"", header: bytes = b"", timeout_s: float = 5.0
    ) -> tuple[bytes, bytes]:
        expected = int(headers.parse(header)[EXPECTED])
        return b"", await self._line.carry(lambda: self._key.write(expected, self._loop.time()))


class Link:
    """The part of a Broker that a LeaderLease uses."""

    def __init__(self, way: Way) -> None:
        self.connection, self.names = way, Names()


class Process:
    """One that wants to lead."""

    def __init__(self, key: Key, fates: list[Fate], name: str) -> None:
        self.lease = LeaderLease(cast(Broker, Link(Way(key, fates))), "expiry", name)
        self.leads_until_s = 0.0

    async def run(self, pauses: list[float], other: "Process") -> None:
        loop = asyncio.get_running_loop()
        for pause_s in pauses:
            await pass_time(pause_s)
            sent_s = loop.time()
            if await self.lease.hold():
                assert other.leads_until_s <= loop.time(), "two leaders"
                self.leads_until_s = sent_s + LEASE_S
            # After a refusal, or none, what was promised before still counts: a task of before may go on with it.


async def lead(pauses: list[list[float]], fates: list[list[Fate]]) -> None:
    key = Key()
    one, two = Process(key, fates[0], "w-1"), Process(key, fates[1], "w-2")
    await asyncio.gather(one.run(pauses[0], two), two.run(pauses[1], one))
    await pass_time(LEASE_S)
    for process in (one, two):  # once nothing is lost and the lease lapsed, whoever asks leads: at the second ask
        assert await process.lease.hold() or await process.lease.hold()
        await pass_time(LEASE_S)


@given(st.tuples(PAUSES, PAUSES), st.tuples(FATES, FATES))
def test_two_processes_never_lead_at_once(
    pauses: tuple[list[float], list[float]], fates: tuple[list[Fate], list[Fate]]
) -> None:
    # What is left of the fates would be met by the last question, which is to show that the role is not lost.
    cut = [list(each[: len(asks)]) for each, asks in zip(fates, pauses, strict=True)]
    run_simulated(lead(list(pauses), cut))
