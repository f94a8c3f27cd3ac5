"""The stored limits of tenants, and the counters of their usage.

Limits are keys of one small bucket. They are read once, and again after each notice of a change. Without limits, a job
costs one look into an empty table. Counters are JetStream's own (ADR-49): one publish adds and returns the sum, and a
message id makes it count once.
"""

import asyncio
import logging

import msgspec

from mesh.broker.stores.queue import RequestQueue
from mesh.broker.stores.reads import PageSize, StoredMessage, read_pages
from mesh.broker.transport.mapping import read_api
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import MeshError, ProtocolError, UnauthorizedError, UnavailableError
from mesh.job_key import JobKey
from mesh.policies.quota import QuotaLimits, QuotaUsage, day_of, decide, minute_of
from mesh.protocol import headers
from mesh.protocol.messages import Request

log = logging.getLogger("mesh.broker")

# Where a subscriber hears everything, NATS does not say that the bucket is missing: this bounds the wait for it.
PAGE = PageSize(timeout_s=5.0)
_LIMITS = msgspec.json.Decoder(QuotaLimits)


class Quotas:
    """The limits of one mesh as this process knows them, until `close`."""

    def __init__(self, link: MeshLink) -> None:
        self._link = link
        self._connection = link.connection
        self._names = link.names
        self._queue = RequestQueue(link)
        self._limits: dict[str, QuotaLimits] = {}
        self._default: QuotaLimits | None = None
        self._is_loaded = False
        self._loading: asyncio.Task[None] | None = None
        self._unlisten = link.connection.listen(self._connection_changed)
        self._subscription = link.connection.subscribe(link.names.system("quota"), self._heard)

    def close(self) -> None:
        """Receive no more notices of changes. Idempotent."""
        self._subscription.close()
        self._unlisten()
        if self._loading is not None:
            self._loading.cancel()

    def of(self, tenant: str) -> QuotaLimits | None:
        """The limits of a tenant; None: it has none."""
        return self._limits.get(tenant, self._default)

    async def load(self) -> None:
        """Read the limits anew. Where that is not possible, those known before count."""
        try:
            self._limits, self._default = await read_limits(self._link)
        except UnauthorizedError as error:
            log.warning("limits of tenants are not known here: %s", error, extra={"event": "quota_unknown"})
        except MeshError as error:
            log.debug("limits of tenants: %s", error, extra={"event": "quota_unread"})
            return
        self._is_loaded = True

    async def admit(self, tenant: str, request: Request, now_unix_ms: int) -> None:
        """Let a request into the queue.

        Raises:
            QuotaExceededError, TooLargeError: the tenant's limits do not allow it.
            BrokerError: NATS did not say what it has used.
        """
        if not self._is_loaded:
            await self.load()
        limits = self.of(tenant)
        if limits is None:
            return
        queued = 0 if limits.queued is None else await self._queue.depth(tenant)
        usage = QuotaUsage(queued=queued, tokens=await self._tokens(tenant, limits, now_unix_ms))
        refusal = decide(limits, usage, request, now_unix_ms)
        if refusal is None and limits.requests_per_minute is not None:
            requests = await self._count(tenant, "asked", minute_of(now_unix_ms), 1) or 0
            refusal = decide(limits, QuotaUsage(requests=requests), request, now_unix_ms)
        if refusal is not None:
            raise refusal

    async def begin(self, key: JobKey, request: Request, stored_unix_ms: int, now_unix_ms: int) -> None:
        """Let a job begin that was stored then. Asked again for the same job it counts once.

        Raises:
            As `admit`.
        """
        limits = self.of(key.tenant)
        if limits is None:
            return
        tokens, requests = await self._tokens(key.tenant, limits, now_unix_ms), 0
        if limits.requests_per_minute is not None:
            requests = (
                await self._count(key.tenant, "stored", minute_of(stored_unix_ms), 1, f"{key.tenant}.{key.id}.request")
                or 0
            )
        refusal = decide(limits, QuotaUsage(requests=requests, tokens=tokens), request, now_unix_ms)
        if refusal is not None:
            raise refusal

    async def spent(self, key: JobKey, tokens: int, now_unix_ms: int) -> None:
        """A job has ended that took so many tokens of prompt and output.

        Raises:
            BrokerError: NATS did not take it.
        """
        limits = self.of(key.tenant)
        if limits is not None and limits.tokens_per_day is not None and tokens:
            await self._count(key.tenant, "tokens", day_of(now_unix_ms), tokens, f"{key.tenant}.{key.id}.tokens")

    async def _tokens(self, tenant: str, limits: QuotaLimits, now_unix_ms: int) -> int:
        if limits.tokens_per_day is None:
            return 0
        subject = self._names.usage(tenant, "tokens", day_of(now_unix_ms))
        header, body = await self._connection.request(f"$JS.API.DIRECT.GET.{self._names.usage_stream}.{subject}")
        return 0 if headers.status(header) == 404 else _value(body)

    async def _count(self, tenant: str, what: str, period: str, by: int, message_id: str = "") -> int | None:
        """Add to a counter; its sum with that, None if that message id was counted before."""
        pairs: list[tuple[str, str | int]] = [("Nats-Incr", f"+{by}")]
        if message_id:
            pairs.append(("Nats-Msg-Id", message_id))
        subject = self._names.usage(tenant, what, period)
        _, payload = await self._connection.request(subject, b"", headers.block(*pairs))
        answer = read_api(payload, f"count {subject}")
        return None if answer.get("duplicate") else _value(payload)

    def _heard(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        self._load_soon()

    def _connection_changed(self, connected: bool) -> None:
        if connected:
            self._load_soon()

    def _load_soon(self) -> None:
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()  # it may have read the limits before the change
        self._loading = asyncio.get_running_loop().create_task(self.load(), name="mesh-quota-load")


async def read_limits(link: MeshLink) -> tuple[dict[str, QuotaLimits], QuotaLimits | None]:
    """The limits of every tenant that has some, and of all others.

    Raises:
        BrokerError: NATS did not answer.
    """
    found: dict[str, QuotaLimits] = {}
    skip, default = len(link.names.limits_key("")), None
    bucket = link.names.tenants_bucket
    try:
        async for page in read_pages(link.connection, f"KV_{bucket}", f"$KV.{bucket}.>", size=PAGE):
            for message in page:
                limits = _limits_in(message)
                if limits is not None and message.subject == link.names.default_limits_key:
                    default = limits
                elif limits is not None:
                    found[message.subject[skip:]] = limits
    except UnavailableError:
        return {}, None  # nobody has limited anybody
    return found, default


async def write_limits(link: MeshLink, tenant: str | None, limits: QuotaLimits) -> None:
    """Set the limits of a tenant, or of all that have none of their own if it is None; empty ones are removed.

    Raises:
        BrokerError: NATS did not take them.
    """
    key = link.names.default_limits_key if tenant is None else link.names.limits_key(tenant)
    body, header = msgspec.json.encode(limits), b""
    if limits.is_empty:
        body, header = b"", headers.block(("KV-Operation", "DEL"))  # as `nats kv del` does it (ADR-8)
    _, payload = await link.connection.request(key, body, header)
    read_api(payload, f"store {key}")
    link.connection.publish(link.names.system("quota"), b"")


def _limits_in(message: StoredMessage) -> QuotaLimits | None:
    if not message.body:
        return None
    try:
        return _LIMITS.decode(message.body)
    except msgspec.MsgspecError:
        log.warning("%s holds no limits and is passed over", message.subject, extra={"event": "quota_garbled"})
        return None


def _value(payload: bytes) -> int:
    """The sum in a counter's message or PubAck."""
    try:
        return int(msgspec.json.decode(payload)["val"])
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError):
        raise ProtocolError(f"{payload[:80]!r} is no counter") from None
