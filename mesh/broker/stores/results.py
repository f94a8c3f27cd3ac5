"""Results: written once, read by key. One bucket of small values, and an object store for the large.

`create` is the point where a job ends: the server lets the first writer win and refuses every later one.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection

import msgspec
import nats.errors
from nats.js.api import ObjectMeta, ObjectMetaOptions

from mesh.broker.stores.purge import purge_subject
from mesh.broker.stores.reads import StoredMessage, get_batch, get_from_leader
from mesh.broker.topology.declaration import read_settings
from mesh.broker.transport.mapping import mapped, read_puback
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import BrokerError, MeshError, ProtocolError, SequenceError
from mesh.job_key import JobKey
from mesh.protocol import codec, headers
from mesh.protocol.messages import MAX_RESULT_TTL_MS, Result
from mesh.protocol.subjects import check_token

MARGIN_BYTES = 4096  # headers and framing beside a value
MOST_AT_ONCE = 256  # Results of one question: JetStream answers with 1024 at most
MOST_TENANTS = 20  # that are named where an id is one of several
MANY_S = 10.0  # for all of them to come
OBJECT_CHUNK_BYTES = 128 * 1024  # ADR-20's default
_MSGPACK = headers.line("Content-Type", headers.MSGPACK)


class Stored(msgspec.Struct, frozen=True):
    """A Result as it stands in the bucket."""

    result: Result
    body: bytes


class ResultStore:
    """The results of one mesh."""

    def __init__(self, link: MeshLink) -> None:
        self._link = link
        self._connection = link.connection
        self._names = link.names
        self._direct = f"$JS.API.DIRECT.GET.KV_{link.names.results_bucket}."

    @property
    def max_bytes(self) -> int:
        """The largest value that fits a message; a larger Result goes to the object store."""
        return self._connection.max_payload - MARGIN_BYTES

    async def create(self, key: JobKey, body: bytes, ttl_ms: int, timeout_s: float = 5.0) -> bool:
        """Store a job's Result if it has none yet; whether this call stored it.

        Args:
            body: the encoded Result, at most `max_bytes` bytes.
            ttl_ms: milliseconds until the server removes it.
            timeout_s: seconds for the server to answer each of at most three requests.

        Raises:
            DisconnectedError, BrokerTimeoutError: unknown whether it was stored; `create` again says.
            QuotaExceededError, TopologyError, UnavailableError: the bucket is full, missing, or has no leader.
            UnauthorizedError: this user may not write there.
        """
        subject = self._names.result_key(key)
        rest = b"Nats-TTL: %dms\r\n" % ttl_ms
        if codec.sniff(body) == "msgpack":
            rest += _MSGPACK
        try:
            await self._write(subject, body, headers.expecting(0, rest), timeout_s)
        except SequenceError:
            found = await self.read_last(key)
            if found is None or not _is_marker(found):
                return False
            try:  # an operator deleted the Result of an earlier run
                await self._write(subject, body, headers.expecting(found.sequence, rest), timeout_s)
            except SequenceError:
                return False
        return True

    async def _write(self, key: str, body: bytes, header: bytes, timeout_s: float) -> None:
        _, payload = await self._connection.request(key, body, header, timeout_s)
        read_puback(payload, f"store {key}")

    async def get(self, key: JobKey, timeout_s: float = 5.0) -> Stored | None:
        """A job's Result, None if it has none (or no longer). May lag by a moment on a replicated bucket.

        Args:
            timeout_s: seconds for NATS to answer.

        Raises:
            DisconnectedError, BrokerTimeoutError, UnavailableError: no answer, or no bucket.
            ProtocolError: the value under the job's key is no Result.
        """
        subject = self._direct + self._names.result_key(key)
        header, payload = await self._connection.request(subject, timeout_s=timeout_s)
        if not payload:
            status = headers.status(header)
            if status == 404 or b"KV-Operation:" in header:
                return None
            raise BrokerError(f"read the Result of {key.id}: status {status or 'missing'}")
        return Stored(codec.decode_result(payload), payload)

    async def get_many(self, tenant: str, jobs: Collection[str]) -> dict[str, Result]:
        """The Results of those that have one, by job id, with one question. As `get`, it may lag.

        Args:
            jobs: ids, at most MOST_AT_ONCE.

        Raises:
            BrokerError: no answer within MANY_S seconds, or no bucket.
            UnauthorizedError: this user may read one at a time only.
        """
        ids = {self._names.result_key(JobKey(tenant, job)): job for job in jobs}
        ask = {"multi_last": list(ids), "batch": len(ids)}
        found: dict[str, Result] = {}
        for message in await get_batch(self._connection, f"KV_{self._names.results_bucket}", ask, MANY_S):
            with contextlib.suppress(ProtocolError):  # the marker of one that was deleted, or nothing of ours
                found[ids[message.subject]] = codec.decode_result(message.body)
        return found

    async def tenants_of(self, job: str) -> set[str]:
        """Tenants of which a job of this id has a Result. `job` must be a subject token.

        Raises:
            BrokerError: as `get`, or the id is one of too many.
        """
        ask = {"multi_last": [self._names.result_key(JobKey("*", job))], "batch": MOST_TENANTS}
        found = await get_batch(self._connection, f"KV_{self._names.results_bucket}", ask)
        return {message.subject.split(".")[-2] for message in found}

    async def get_written(self, key: JobKey) -> Stored | None:
        """As `get`, from the bucket's leader, which never lags.

        Raises:
            BrokerError: NATS did not answer, or the bucket is missing.
            ProtocolError: the value under the job's key is no Result.
        """
        message = await self.read_last(key)
        if message is None or _is_marker(message):
            return None
        return Stored(codec.decode_result(message.body), message.body)

    async def read_last(self, key: JobKey) -> StoredMessage | None:
        """The value under a job's key, a Result or the marker of a deleted one, from the bucket's leader.

        Raises:
            BrokerError: as `get_written`.
        """
        ask = {"last_by_subj": self._names.result_key(key)}
        return await get_from_leader(self._connection, f"KV_{self._names.results_bucket}", ask)

    async def remove(self, key: JobKey, last: int) -> bool:
        """Remove the value under the job's key, so that another can be created; whether it was there.

        A value stored after `last` stays. No marker of the deletion is left: `create` would fail on it.

        Args:
            last: sequence in the bucket's stream, of the value to remove.

        Raises:
            InvalidRequestError: tenant or job is no subject token.
            BrokerError: as `get`.
        """
        check_token("tenant", key.tenant)
        check_token("id", key.id)
        subject = self._names.result_key(key)
        return await purge_subject(self._connection, f"KV_{self._names.results_bucket}", subject, last) > 0

    def check(self, key: JobKey, on_found: Callable[[Stored], None]) -> None:
        """Call `on_found` on the loop if the job has a Result. Never raises; a fault is as if it had none.

        One request, answered or given up within two seconds.
        """

        def answered(error: MeshError | None, header: bytes, payload: bytes) -> None:
            if error is None and payload:
                with contextlib.suppress(ProtocolError):
                    on_found(Stored(codec.decode_result(payload), payload))

        with contextlib.suppress(MeshError):
            self._connection.call(self._direct + self._names.result_key(key), b"", b"", answered, timeout_s=2.0)

    async def put_object(self, name: str, body: bytes) -> None:
        """Store a value of any size within a minute; the bucket is made on first use.

        `nats object get` reads it. The same name again replaces the value.

        Raises:
            QuotaExceededError: the account has no room.
            BrokerError: JetStream refused it, or did not take all of it in time.
        """
        bucket = self._names.objects_bucket
        try:
            async with asyncio.timeout(60):
                context = self._connection.link.jetstream()
                try:
                    store = await context.object_store(bucket)
                except nats.js.errors.NotFoundError:
                    settings = await read_settings(self._link)
                    store = await context.create_object_store(
                        bucket,
                        description="Results too large for one message",
                        ttl=MAX_RESULT_TTL_MS // 1000,  # one for all: as long as any Result may be kept
                        storage=settings.storage,
                        replicas=settings.replicas,
                    )
                options = ObjectMetaOptions(max_chunk_size=min(OBJECT_CHUNK_BYTES, self.max_bytes))
                await store.put(name, body, meta=ObjectMeta(description="a mesh Result", options=options))
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise mapped(error) from error

    async def get_object(self, name: str) -> bytes:
        """A value that `put_object` stored, whole in memory.

        Raises:
            TopologyError: it is not there.
            BrokerError: NATS did not answer within a minute.
        """
        try:
            async with asyncio.timeout(60):
                store = await self._connection.link.jetstream().object_store(self._names.objects_bucket)
                found = await store.get(name)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise mapped(error) from error
        return bytes(found.data or b"")


def _is_marker(message: StoredMessage) -> bool:
    """Whether it says that a value was deleted, as `nats kv del` writes it. Source: ADR-8."""
    return not message.body and b"KV-Operation:" in message.header
