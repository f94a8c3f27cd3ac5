"""Answers `<ns>.ctl.<tenant>.cancel|status|replay.<job>`, in one queue group over all processes that serve it.

It also answers `….output.<job>` and `….model.<model>`, for clients without JetStream (see client/control_api).
Source: nats/PROTOCOL.md, "Steering a job".
"""

import asyncio
import logging

import msgspec
from msgspec.structs import replace

from mesh.audit.writer import Auditor
from mesh.broker.broker import Broker
from mesh.broker.stores.journal import SEQUENCE, events_of
from mesh.broker.transport.service import Endpoint, ServiceRequest
from mesh.client.catalog import Catalog
from mesh.errors import BrokerError, InvalidRequestError, MeshError, ResultNotFoundError, TopologyError
from mesh.job_key import JobKey
from mesh.protocol import codec, headers, version
from mesh.protocol.history import read_history
from mesh.protocol.messages import Delta, ErrorInfo, Event, JobStatus, LaterEvent, Result
from mesh.protocol.refusals import BAD_REQUEST, INTERNAL, NOT_FOUND, UNAVAILABLE, details_of, service_code
from mesh.protocol.subjects import is_token
from mesh.reconcile.termination import Termination

log = logging.getLogger("mesh.gateway")

QUEUE = "mesh-ctl"
MAX_AT_ONCE = 256  # requests in progress; more are refused with 503, so a flood costs no memory
WORKER_ANSWER_S = 1.5  # for the worker that runs a job to end it
CANCEL_LOOKS = 3  # tries to find the job's worker, since a job may start or move; then this process ends the job
PAGE = 200
PIECE_BYTES = 128 * 1024  # of a Result too large for a message
VERBS = ("cancel", "status", "replay", "output", "model")
_USE = {
    "subject": "<namespace>.ctl.<tenant>.cancel|status|replay|output.<job>, or model.<model>",
    "body": 'replay: {"index": n}, or {"after": sequence, "limit": n}; else empty',
    "answer": "cancel, status: one JSON object; replay: the events from output token n on, then an empty message; "
    "output: the Result in pieces, model: one JSON object, then an empty message",
}


def _fault_of(request: ServiceRequest) -> MeshError | None:
    """The error of a request whose protocol version is not understood; None: it is."""
    if not request.header:
        return None
    fields = {key.lower(): value for key, value in headers.parse(request.header).items()}
    try:
        version.check_request(fields.get("mesh-protocol", ""))
    except MeshError as error:
        return error
    return None


class ReplayQuery(msgspec.Struct, frozen=True):
    """The body of `replay`: the first output token wanted, or a position in the journal."""

    index: int = 0
    after: int | None = None  # stream sequence; each event then carries its own in `Nats-Sequence`
    limit: int = PAGE  # events at most, with `after`


class JobsApi:
    """The control service of one process, until `close`."""

    def __init__(self, broker: Broker, host: str, audit: Auditor | None = None) -> None:
        """`host`: the name of a worker, or of another process."""
        self._connection = broker.connection
        self._names = broker.names
        self._skip = len(broker.names.ns) + len(".ctl.")
        self._termination = Termination(broker, host, "cancel", audit)
        self._catalog = Catalog(broker)
        self._tasks: set[asyncio.Task[None]] = set()
        self.endpoint = Endpoint("control", f"{broker.names.ns}.ctl.>", QUEUE, self._heard, _USE)

    async def close(self) -> None:
        """Cancel the answers in progress. The caller must stop serving the endpoint first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _heard(self, request: ServiceRequest) -> None:
        tokens = request.subject[self._skip :].split(".")
        if len(self._tasks) >= MAX_AT_ONCE:
            request.refuse(UNAVAILABLE, "too many control requests at once; try again")
        elif len(tokens) != 3 or tokens[1] not in VERBS:
            request.refuse(NOT_FOUND, f"the subject must be <namespace>.ctl.<tenant>.{'|'.join(VERBS)}.<job>")
        elif not (is_token(tokens[0]) and is_token(tokens[2])):
            request.refuse(BAD_REQUEST, "tenant and job must be of the form [A-Za-z0-9_-]{1,64}")
        elif (refused := _fault_of(request)) is not None:
            request.refuse(service_code(refused), str(refused), details_of(refused))
        else:
            tenant, verb, job = tokens
            task = asyncio.create_task(self._answer(request, tenant, verb, job), name=f"mesh-ctl-{verb}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: ServiceRequest, tenant: str, verb: str, job: str) -> None:
        try:
            match verb:
                case "cancel":
                    request.respond(codec.encode({"id": job, "status": await self._cancel(JobKey(tenant, job))}))
                case "status":
                    status, protocol = await self._status(JobKey(tenant, job)), await self._catalog.protocol()
                    request.respond(codec.encode(replace(status, protocol=protocol)))
                case "replay":
                    await self._replay(request, JobKey(tenant, job))
                case "output":
                    await self._output(request, JobKey(tenant, job))
                case _:
                    await self._model(request, job)
            request.done()
        except MeshError as error:
            request.refuse(service_code(error), str(error), details_of(error))
        except Exception:  # the outermost frame of a request: the requester must not wait for ever
            log.exception("%s of job %s failed", verb, job, extra={"event": "control_failed", "job": job})
            request.refuse(INTERNAL, "internal error; see the worker's log")

    async def _cancel(self, key: JobKey) -> str:
        """End the job, queued or running; its terminal status, or `unknown`."""
        subject = self._names.system("cancel", key.tenant, key.id)
        for look in range(1, CANCEL_LOOKS + 1):
            found = await self._termination.store.get(key)
            if found is not None:
                return found.result.status
            try:
                _, payload = await self._connection.request(subject, timeout_s=await self._patience(key))
                return payload.decode()
            except BrokerError:
                pass  # no worker runs it, or its worker did not end it in time
            stored = await self._termination.queue.find(key)
            if stored is None:
                found = await self._termination.store.get(key)
                return found.result.status if found is not None else "unknown"
            began = await self._is_running(key)
            if began and look < CANCEL_LOOKS:
                continue  # it may be moving to another worker
            reason = "cancelled on request" if began else "cancelled before it started"
            ended = await self._termination.end(stored, "cancelled", ErrorInfo(code="cancelled", message=reason))
            return ended.status
        raise AssertionError("the last look ends it")

    async def _patience(self, key: JobKey) -> float:
        """How long to wait for a worker, in seconds; short if the job never started."""
        return WORKER_ANSWER_S if await self._is_running(key) else 0.2

    async def _is_running(self, key: JobKey) -> bool:
        journal = self._termination.journal
        if await journal.last(journal.subject(key)) is not None:
            return True
        return await journal.last(journal.attempts_subject(key)) is not None

    async def _status(self, key: JobKey) -> JobStatus:
        journal = self._termination.journal
        entries = await journal.read(journal.subject(key))
        if not entries:
            entries = await journal.read(journal.attempts_subject(key))
        history = read_history(events_of(entries))
        found = await self._termination.store.get(key)
        result = found.result if found is not None else history.result
        if result is not None:
            return JobStatus(
                id=key.id,
                status=result.status,
                attempt=result.attempts,
                index=result.usage.completion_tokens,
                worker=result.worker,
            )
        status = "running"
        if not history.attempts:
            status = "queued"
            if await self._termination.queue.find(key) is None:  # unknown, unless it ended while we looked
                found = await self._termination.store.get_written(key)
                status = found.result.status if found is not None else "unknown"
        return JobStatus(id=key.id, status=status, attempt=history.attempts, index=history.index, worker=history.worker)

    async def _replay(self, request: ServiceRequest, key: JobKey) -> None:
        """Send the events from output token `index` on, then an empty message."""
        try:
            asked = msgspec.json.decode(request.payload, type=ReplayQuery) if request.payload else ReplayQuery()
        except msgspec.MsgspecError as error:
            raise InvalidRequestError(f'must be {{"index": n}}: {error}', field="body") from None
        journal, is_known, index = self._termination.journal, False, asked.index
        subject = journal.subject(key)
        if asked.after is not None:
            for entry in await journal.read(subject, max(0, asked.after), max(1, min(PAGE, asked.limit))):
                request.respond(entry.body, headers.block((SEQUENCE, entry.sequence)))
            request.respond(b"")
            return
        async for page in journal.pages(subject):
            is_known = True
            for entry in page:
                event: Event | LaterEvent | None = entry.event
                if isinstance(event, Delta) and event.index + len(event.token_ids) <= index:
                    continue
                if event is None:
                    event = entry.later
                if isinstance(event, Delta | Result) or (event is not None and event.index >= index):
                    request.respond(entry.body)
        if not is_known:
            found = await self._termination.store.get(key)
            if found is not None:
                request.respond(found.body)
        request.respond(b"")

    async def _output(self, request: ServiceRequest, key: JobKey) -> None:
        """Send the whole Result in pieces, each with the total size, then an empty message."""
        store = self._termination.store
        found = await store.get(key) or await store.get_written(key)
        if found is None:
            raise ResultNotFoundError(f"job {key.id} has no Result, or it is kept no longer")
        body = found.body
        if found.result.object is not None:
            try:
                body = await store.get_object(found.result.object)
            except TopologyError:
                raise ResultNotFoundError(f"the output of job {key.id} is kept no longer") from None
        size = headers.block(("Mesh-Bytes", len(body)))
        for start in range(0, len(body), PIECE_BYTES):
            request.respond(body[start : start + PIECE_BYTES], size)
            await asyncio.sleep(0)  # let other answers proceed
        request.respond(b"")

    async def _model(self, request: ServiceRequest, model: str) -> None:
        """Send the limits of a model, then an empty message."""
        await self._catalog.learn_of(model)
        answer = {"model": model, "max_model_len": self._catalog.longest_context(model)}
        request.respond(codec.encode(answer | {"protocol": await self._catalog.protocol()}))
        request.respond(b"")
