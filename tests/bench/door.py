"""What the front door costs over the mesh's own client. Called by `python -m tests.bench frontdoor`.

The same worker process behind both, asked over the same connection; what is added is told in NATS round trips
to that process, taken in the same round.
"""

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass

from mesh.broker.broker import Broker
from mesh.broker.stores.workers import PresenceStore
from mesh.broker.transport.connection import Connection
from mesh.client.internal import core_of
from mesh.protocol import codec
from mesh.protocol.messages import Delta, Request, Result
from mesh.protocol.subjects import Names
from tests.bench.report import Report
from tests.bench.sides import MeshAsker, Side, running_mesh
from tests.bench.simulated import Round, Sizes
from tests.bench.stream import BenchError, Stream
from tests.bench.worker import MODEL

DOOR, CLIENT = "front door", "client"
ADDED = "unary alone: added, in round trips"
TRIPS = 500  # of which the median is the round trip


@dataclass(slots=True)
class DoorAsker:
    """Plain NATS request/reply."""

    connection: Connection

    async def run(self, request: Request) -> Stream:
        stream = Stream("", time.monotonic())
        # The front door's own default is the Result alone.
        body = codec.encode({**_fields(request), "stream": request.stream})
        subject = f"mesh.rpc.default.{MODEL}"
        if request.stream:
            answers = await self.connection.collect(subject, body, lambda header, payload: not payload, timeout_s=60.0)
            events = [codec.decode_event(payload) for _, payload in answers[:-1]]
        else:
            _, payload = await self.connection.request(subject, body, timeout_s=60.0)
            events = [codec.decode_event(payload)]
        for event in events:
            if isinstance(event, Delta):
                stream.add(event.text, event.token_ids)
        result = events[-1]
        if not isinstance(result, Result):
            raise BenchError(f"the last event is {result!r}")
        result.raise_for_status()
        stream.job, stream.result_text, stream.done_s = result.id, str(result.text), time.monotonic()
        return stream


async def measure(rounds: int, sizes: Sizes | None = None) -> Report:
    """Both sides in turn; who goes first alternates."""
    sizes = sizes or Sizes()
    async with running_mesh("mesh") as (client, worker, broker_pid):
        connection = core_of(client).connection
        report = Report("front door", [DOOR, CLIENT])
        sides = [
            Side(DOOR, DoorAsker(connection), worker, broker_pid),
            Side(CLIENT, MeshAsker(client), worker, broker_pid),
        ]
        [presence] = await PresenceStore(Broker(connection, Names())).all()
        for side in sides:
            await Round(Report("warm-up", []), sizes).unary_many(side)
        for number in range(rounds):
            trip_s = await _round_trip_s(connection, Names().system("ping", presence.worker))
            for run in (Round.unary_alone, Round.streamed_alone, Round.unary_many):
                for side in sides if number % 2 == 0 else sides[::-1]:
                    await run(Round(report, sizes), side)
            alone = report.rows["unary alone p50, µs"]
            report.add(ADDED, DOOR, (alone[DOOR][-1] - alone[CLIENT][-1]) / (trip_s * 1e6))
            print(f"round {number + 1} of {rounds} is done", file=sys.stderr, flush=True)
    return report


async def _round_trip_s(connection: Connection, subject: str) -> float:
    times = []
    for _ in range(TRIPS):
        began_s = time.monotonic()
        await connection.request(subject)
        times.append(time.monotonic() - began_s)
        await asyncio.sleep(0)
    return statistics.median(times)


def _fields(request: Request) -> dict[str, object]:
    return {"prompt": request.prompt, "max_tokens": request.max_tokens, "temperature": request.temperature}
