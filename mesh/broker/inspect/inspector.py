"""Reads the state of a mesh from its server, streams, consumers and presence records. Changes nothing."""

import asyncio

import msgspec
import nats.errors

from mesh.broker import topology
from mesh.broker.inspect.facts import (
    LaneFacts,
    ServerFacts,
    StoreFacts,
    read_lane,
    read_server,
    read_store,
    silent_store,
)
from mesh.broker.stores.reads import get_from_leader
from mesh.broker.topology.streams import streams
from mesh.broker.transport.mapping import NO_STREAM, mapped, read_api
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import BrokerTimeoutError, TopologyError

PING_S = 5.0
STORE_S = 2.0  # for a stream's leader to answer; a stream without a leader never answers
AT_ONCE = 32  # concurrent reads


class Inspector:
    """Reads one mesh over one connection."""

    def __init__(self, link: MeshLink) -> None:
        self._link = link
        self._connection = link.connection
        self._names = link.names

    async def server(self) -> ServerFacts:
        """Return the facts of the connected server.

        Raises:
            UnavailableError: the server has no JetStream for this account.
            BrokerError: the server did not answer.
        """
        link = self._connection.link
        began = self._link.clock.monotonic_s()
        try:
            await link.rtt(PING_S)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise mapped(error) from error
        rtt_ms = (self._link.clock.monotonic_s() - began) * 1000
        _, payload = await self._connection.request("$JS.API.INFO")
        return read_server(link._server_info, read_api(payload, "account information"), rtt_ms)

    async def clock(self) -> int:
        """Return the server's time in Unix ms.

        Raises:
            TopologyError: there is no mesh on this NATS.
            BrokerError: NATS did not answer.
        """
        _, unix_ms = await topology.stream_clock(self._link, self._names.requests_stream)
        return unix_ms

    async def stores(self) -> tuple[list[StoreFacts], list[str]]:
        """Return the mesh's existing streams and buckets, and the names of the missing ones.

        The operator's settings decide which are needed. A stream without a leader does not answer, and its `leader`
        is empty.

        Raises:
            TopologyError: there is no mesh on this NATS.
            BrokerError: NATS did not answer.
        """
        settings = await topology.read_settings(self._link)
        needed = [str(config["name"]) for _, config in streams(self._names, settings)]
        more = [
            f"OBJ_{self._names.objects_bucket}",
            self._names.record_stream,
        ]  # created on first use; kept after recording ended
        more = [stream for stream in more if stream not in needed]
        found = await asyncio.gather(*(self._store(stream) for stream in (*needed, *more)))
        missing = [stream.removeprefix("KV_") for stream, store in zip(needed, found, strict=False) if store is None]
        there = [store for store in found[: len(needed)] if store is not None]
        return [*there, *(store for store in found[len(needed) :] if store is not None and store.leader)], missing

    async def depths(self) -> dict[str, int]:
        """Return how many jobs each subject of the request stream holds, waiting and running.

        Raises:
            TopologyError: there is no mesh on this NATS.
            BrokerError: NATS did not answer.
        """
        found: dict[str, int] = {}
        stream = self._names.requests_stream
        while True:
            body = {"subjects_filter": f"{self._names.ns}.req.>", "offset": len(found)}
            _, payload = await self._connection.request(
                f"$JS.API.STREAM.INFO.{stream}", msgspec.json.encode(body), timeout_s=10.0
            )
            answer = read_api(payload, f"stream {stream}")
            page: dict[str, int] = answer["state"].get("subjects") or {}
            found |= page
            if not page or len(found) >= answer.get("total", 0):
                return found

    async def lanes(self) -> list[LaneFacts]:
        """Return the queues' consumers, sorted by name.

        Raises:
            BrokerError: NATS did not answer.
        """
        states = await topology.consumer_states(self._connection, self._names.requests_stream)
        lanes = (read_lane(self._names, name, states[name]) for name in sorted(states))
        return [lane for lane in lanes if lane is not None]

    async def stored_times(self, asks: list[tuple[str, int]]) -> list[int | None]:
        """Return the storage times of requests, in Unix ms.

        Each read transfers a whole request, so ask only for subjects that hold one.

        Args:
            asks: pairs of subject filter and stream sequence.

        Returns:
            For each pair, the time of the first matching request at or after the sequence; None: there is none.

        Raises:
            BrokerError: NATS did not answer.
        """
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(subject: str, sequence: int) -> int | None:
            async with gate:
                ask = {"seq": max(1, sequence), "next_by_subj": subject}
                message = await get_from_leader(self._connection, self._names.requests_stream, ask)
            return message.unix_ms if message is not None else None

        return list(await asyncio.gather(*(one(*each) for each in asks)))

    async def _store(self, stream: str) -> StoreFacts | None:
        """Return the facts of a stream; None: it does not exist."""
        try:
            _, payload = await self._connection.request(f"$JS.API.STREAM.INFO.{stream}", timeout_s=STORE_S)
            return read_store(read_api(payload, f"stream {stream}"))
        except BrokerTimeoutError:
            return silent_store(stream)
        except TopologyError as error:
            if error.err_code == NO_STREAM:
                return None
            raise
