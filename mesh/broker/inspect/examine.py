"""Reads the facts that only `mesh doctor` needs: connection, clocks, leaders, answering workers. Changes nothing.

broker/inspect/inspector reads the facts that other commands need too.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mesh.broker import topology
from mesh.broker.inspect.server_info import (
    AccountFacts,
    GreetingFacts,
    ServiceFacts,
    read_account,
    read_greeting,
    read_service,
)
from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mapping import NO_STREAM, read_api
from mesh.broker.transport.mesh_link import MeshLink
from mesh.clock import SYSTEM
from mesh.errors import BrokerError, BrokerTimeoutError, TopologyError, UnavailableError

LEADER_S = 2.0  # JetStream does not answer at all for a stream without a leader
SERVICES_S = 3.0  # for all services to answer
QUIET_S = 0.7  # after this time without an answer, no more are expected
MOST_SERVICES = 1000
PING_S = 1.5  # much longer than a busy worker needs


@dataclass(frozen=True, slots=True)
class ClockSample:
    """One reading of the server's clock."""

    sent_unix_ms: float  # the request left, by this machine's clock
    heard_unix_ms: float  # the answer arrived, by this machine's clock
    server_unix_ms: float


def greeting(connection: Connection) -> GreetingFacts:
    """Return the greeting that the server sent when the connection opened."""
    link = connection.link
    writer = getattr(link._transport, "_io_writer", None)
    has_tls = writer is not None and writer.get_extra_info("ssl_object") is not None
    return read_greeting(link._server_info, has_tls)


async def account(connection: Connection) -> AccountFacts:
    """Return the account's JetStream limits and their use.

    Raises:
        UnavailableError, TopologyError: the account has no JetStream.
        BrokerError: NATS did not answer.
    """
    _, payload = await connection.request("$JS.API.INFO", timeout_s=LEADER_S)
    return read_account(read_api(payload, "account information"))


async def clock_samples(connection: Connection, count: int) -> list[ClockSample]:
    """Read the server's clock `count` times. The list is empty where the account has no stream to query.

    Raises:
        BrokerError: NATS did not answer.
    """
    _, payload = await connection.request("$JS.API.STREAM.NAMES")
    streams: list[str] = read_api(payload, "streams").get("streams") or []
    samples = []
    for _ in range(count if streams else 0):
        sent = SYSTEM.wall_ns() / 1e6
        _, payload = await connection.request(f"$JS.API.STREAM.INFO.{streams[0]}", timeout_s=LEADER_S)
        heard = SYSTEM.wall_ns() / 1e6
        answer = read_api(payload, f"stream {streams[0]}")
        samples.append(ClockSample(sent, heard, datetime.fromisoformat(answer["ts"]).timestamp() * 1000))
    return samples


async def exists(connection: Connection, stream: str) -> bool:
    """Return whether a stream exists; True also if it does not answer.

    Raises:
        DisconnectedError: there is no connection.
    """
    try:
        _, payload = await connection.request(f"$JS.API.STREAM.INFO.{stream}", timeout_s=LEADER_S)
        read_api(payload, f"stream {stream}")
    except TopologyError as error:
        return error.err_code != NO_STREAM
    except (BrokerTimeoutError, UnavailableError):
        return True
    return True


async def leaderless(link: MeshLink) -> list[str]:
    """Return the mesh's existing streams and buckets without a leader, and consumers if the request stream has one."""
    streams = [link.names.requests_stream, link.names.events_stream, link.names.dead_stream, link.names.audit_stream]
    streams += [f"KV_{link.names.results_bucket}", f"KV_{link.names.workers_bucket}"]
    lost = await asyncio.gather(*(_is_leaderless(link.connection, each) for each in streams))
    found = [name for name, is_lost in zip(streams, lost, strict=True) if is_lost]
    if link.names.requests_stream not in found:
        states = await topology.consumer_states(link.connection, link.names.requests_stream)
        found += [name for name, state in sorted(states.items()) if _lacks_leader(state)]
    return found


async def services(link: MeshLink) -> list[ServiceFacts]:
    """Return the processes that answer as the mesh's micro service, sorted by id, through NATS's service discovery."""
    connection = link.connection
    found: dict[str, ServiceFacts] = {}
    heard = asyncio.Event()

    def answered(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        service = read_service(payload)
        if service is not None and len(found) < MOST_SERVICES:
            found[service.id] = service
        heard.set()

    inbox = connection.new_inbox()
    subscription = connection.subscribe(inbox, answered)
    try:
        connection.publish(f"$SRV.PING.{link.names.ns}", b"", reply=inbox)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVICES_S):
                while True:
                    async with asyncio.timeout(QUIET_S):
                        await heard.wait()
                    heard.clear()
    finally:
        subscription.close()
    return [found[id] for id in sorted(found)]


async def silent(link: MeshLink, workers: Sequence[str]) -> list[str]:
    """Return the workers that do not answer."""
    answers = await asyncio.gather(*(_answers(link, each) for each in workers))
    return [name for name, has_answered in zip(workers, answers, strict=True) if not has_answered]


async def _is_leaderless(connection: Connection, stream: str) -> bool:
    try:
        _, payload = await connection.request(f"$JS.API.STREAM.INFO.{stream}", timeout_s=LEADER_S)
        return _lacks_leader(read_api(payload, f"stream {stream}"))
    except TopologyError as error:
        return error.err_code != NO_STREAM
    except BrokerError:
        return True


def _lacks_leader(answer: dict[str, Any]) -> bool:
    """Return whether a clustered stream or consumer has no leader.

    A server without a cluster reports no leaders for consumers, and itself for streams.
    """
    cluster: dict[str, Any] = answer.get("cluster") or {}
    return bool(cluster) and not cluster.get("leader")


async def _answers(link: MeshLink, worker: str) -> bool:
    try:
        await link.connection.request(link.names.system("ping", worker), timeout_s=PING_S)
    except BrokerError:
        return False
    return True
