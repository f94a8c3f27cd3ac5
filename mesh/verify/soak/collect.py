"""Reads JetStream's content after a run, on a mesh at rest: journals, Results, dead letters, and leftovers."""

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
TRIES = 20  # a replica may lag, and a server may have just restarted
PAUSE_S = 0.25


async def collect(broker: Broker, history: RunHistory, drained_s: float | None) -> None:
    """Add JetStream's content to `history`.

    Args:
        drained_s: seconds from the last fault's end to an empty queue; None: the queue never became empty.

    Raises:
        BrokerError: NATS does not answer.
    """
    await _collect_events(broker, history)
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
    """Wait until the queue is empty and no delivery is unacknowledged; return False after `timeout_s`."""
    end = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            if await queued(broker) == 0 and await _ack_pending(broker) == 0:
                return True
        except BrokerError:
            pass  # a server is restarting
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(0.1)


async def queued(broker: Broker) -> int:
    """Return the number of requests in the queue, running ones included.

    Raises:
        BrokerError: NATS did not answer.
    """
    return int((await topology.stream_state(broker.connection, broker.names.requests_stream))["messages"])


async def _ack_pending(broker: Broker) -> int:
    states = await topology.consumer_states(broker.connection, broker.names.requests_stream)
    return sum(int(state.get("num_ack_pending", 0)) for state in states.values())


async def _collect_events(broker: Broker, history: RunHistory) -> None:
    private = (broker.names.system("attempts") + ".", broker.names.system("notes") + ".")
    journals = {f"{broker.names.ns}.out.": history.events, **dict.fromkeys(private, history.attempts)}
    for message in await _read_all(broker.connection, broker.names.events_stream):
        kept = next((kept for prefix, kept in journals.items() if message.subject.startswith(prefix)), None)
        if kept is None:
            continue  # an event of a worker, not of a job
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
    """Return every message of a stream at rest.

    Raises:
        BrokerError: the stream cannot be read completely.
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
    raise BrokerError(f"stream {stream} cannot be read completely: {len(found)} of {wanted} messages")
