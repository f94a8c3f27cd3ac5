"""Reads back, when all is over, what JetStream kept: journals, Results, dead letters, and what should be nothing.

Called by run, on a mesh at rest.
"""

import asyncio

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.reads import PageSize, StoredMessage, read_pages
from mesh.broker.transport.connection import Connection
from mesh.errors import BrokerError, ProtocolError
from mesh.protocol import codec, headers
from mesh.protocol.messages import Event, Started
from mesh.verify.soak.history import DeadLetterSeen, Rest, RunHistory, StoredEvent

PAGE = PageSize(messages=500, timeout_s=20.0)
TRIES = 20  # a replica may lag, and a server may have just come back
PAUSE_S = 0.25


async def harvest(broker: Broker, history: RunHistory, drained_s: float | None) -> None:
    """Fill in what is kept.

    Args:
        drained_s: seconds from the last fault's end to an empty queue, None if it was not emptied.

    Raises:
        BrokerError: NATS does not answer.
    """
    await _harvest_events(broker, history)
    results = await _read_all(broker.connection, f"KV_{broker.names.results_bucket}")
    for message in results:
        result = codec.decode_result(message.body)
        history.results[message.subject.rpartition(".")[2]] = result
    for message in await _read_all(broker.connection, broker.names.dead_stream):
        fields = headers.parse(message.header)
        attempts = fields.get("Mesh-Attempts", "")
        reason = f"{fields.get('Mesh-Error-Code', '?')}: {fields.get('Mesh-Error', '')}"
        letter = DeadLetterSeen(fields.get("Mesh-Job", "?"), int(attempts) if attempts.isdigit() else 0, reason)
        history.letters.append(letter)
    history.rest = await _rest(broker, len(results), drained_s)


async def wait_drained(broker: Broker, timeout_s: float) -> bool:
    """Until the queue is empty and nothing awaits an acknowledgement; whether it came to that in time."""
    end = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            if await queued(broker) == 0 and await _ack_pending(broker) == 0:
                return True
        except BrokerError:
            pass  # a server is just coming back
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(0.1)


async def queued(broker: Broker) -> int:
    """Requests in the queue, running ones among them.

    Raises:
        BrokerError: NATS did not answer.
    """
    return int((await topology.stream_state(broker.connection, broker.names.requests_stream))["messages"])


async def _ack_pending(broker: Broker) -> int:
    states = await topology.consumer_states(broker.connection, broker.names.requests_stream)
    return sum(int(state.get("num_ack_pending", 0)) for state in states.values())


async def _harvest_events(broker: Broker, history: RunHistory) -> None:
    private = (broker.names.system("attempts") + ".", broker.names.system("notes") + ".")
    journals = {f"{broker.names.ns}.out.": history.events, **dict.fromkeys(private, history.attempts)}
    for message in await _read_all(broker.connection, broker.names.events_stream):
        kept = next((kept for prefix, kept in journals.items() if message.subject.startswith(prefix)), None)
        if kept is None:
            continue  # of the workers, and not of a job
        event: Event | None = None
        note = ""
        try:
            event = codec.decode_event(message.body)
        except ProtocolError:
            note = message.body[:200].decode("utf-8", "replace")
        job = message.subject.rpartition(".")[2]
        kept.setdefault(job, []).append(StoredEvent(message.sequence, event, note))
        if isinstance(event, Started) and event.sequence:
            history.sequences.setdefault(event.sequence, job)


async def _rest(broker: Broker, result_keys: int, drained_s: float | None) -> Rest:
    bucket = await topology.stream_state(broker.connection, f"KV_{broker.names.results_bucket}")
    return Rest(
        queued=await queued(broker),
        ack_pending=await _ack_pending(broker),
        result_keys=result_keys,
        result_writes=int(bucket["last_seq"]),
        drained_s=drained_s,
    )


async def _read_all(connection: Connection, stream: str) -> list[StoredMessage]:
    """Every message of a stream at rest.

    Raises:
        BrokerError: it cannot be read whole.
    """
    for _ in range(TRIES):
        try:
            wanted = int((await topology.stream_state(connection, stream))["messages"])
            found = [each async for page in read_pages(connection, stream, ">", size=PAGE) for each in page]
        except BrokerError:
            found, wanted = [], -1
        if len(found) == wanted:
            return found
        await asyncio.sleep(PAUSE_S)
    raise BrokerError(f"stream {stream} cannot be read whole: {len(found)} of {wanted} messages")
