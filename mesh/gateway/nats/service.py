"""The front door: serves plain NATS requests on `<ns>.rpc.<tenant>.<model>`, for clients in any language.

It submits each request as a job, follows the job, and answers. A front door that dies loses no job: the job goes on,
and a second request with the same id gets its answer. Workers host it, and so does `mesh frontdoor`.
Source: nats/PROTOCOL.md, "The front door".
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from mesh.audit.writer import Auditor
from mesh.broker.broker import Broker
from mesh.broker.stores.quotas import Quotas
from mesh.broker.transport.service import Endpoint, ServiceRequest
from mesh.errors import BrokerError, InvalidRequestError, MeshError, QuotaExceededError, UnavailableError
from mesh.gateway.admission import Admission
from mesh.gateway.clients import Clients
from mesh.gateway.session import Session
from mesh.gateway.waiters import Waiters
from mesh.job_key import JobRef
from mesh.protocol.refusals import INTERNAL, details_of, service_code
from mesh.protocol.subjects import check_token, is_token

log = logging.getLogger("mesh.gateway")

QUEUE = "mesh-rpc"
CLOSE_S = 5.0  # for answers that are almost there
GONE = "gone"  # the reason to cancel a task whose requester went away
_USE = {
    "subject": "<namespace>.rpc.<tenant>.<model>",
    "body": "a Request as JSON or MessagePack, and: tier, stream (false), on_disconnect (cancel | finish)",
    "answer": "the Result; with stream: the events, then an empty message",
}


class FrontDoor:
    """The front door of one process, until `close`. The caller serves its `endpoint`."""

    def __init__(
        self,
        broker: Broker,
        admission: Admission | None = None,
        audit: Auditor | None = None,
    ) -> None:
        self._clock = broker.clock
        self._names = broker.names
        self._queue = broker.queue
        self._skip = len(broker.names.ns) + len(".rpc.")
        self._admission = admission or Admission()
        self._audit = audit
        self._clients = Clients(broker)
        self._quotas = Quotas(broker)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: set[Session] = set()
        self._refused: Counter[str] = Counter()  # by number
        self._answered: Counter[str] = Counter()  # by status
        self._left = 0  # requesters that went away
        self._unlisten = broker.connection.listen(self._connection_changed)
        self.endpoint = Endpoint("generate", f"{broker.names.ns}.rpc.>", QUEUE, self._heard, _USE, self._statistics)

    async def close(self) -> None:
        """Wait CLOSE_S for open requests, then tell the other requesters that their jobs go on.

        The caller must stop serving the endpoint first.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._unlisten()
        self._quotas.close()
        await self._clients.close()

    def _statistics(self) -> dict[str, Any]:
        """The counters for `nats micro stats`."""
        return {
            "open": self._admission.open,
            "tenants": self._admission.tenants,
            "answered": dict(self._answered),
            "refused": dict(self._refused),
            "left": self._left,
        }

    def _connection_changed(self, connected: bool) -> None:
        if connected:
            for session in self._sessions:
                session.missed()

    def _heard(self, request: ServiceRequest) -> None:
        """Admit an arrived request and start its task, or refuse it."""
        tokens = request.subject[self._skip :].split(".")
        try:
            if len(tokens) != 2:
                raise InvalidRequestError("must be <namespace>.rpc.<tenant>.<model>", field="subject")
            tenant, model = check_token("tenant", tokens[0]), check_token("model", tokens[1])
            self._admission.enter(tenant, len(request.payload))
        except MeshError as error:
            request.refuse(*self._refusal(request, error))
            return
        task = asyncio.create_task(self._serve(request, tenant, model), name=f"mesh-rpc-{tenant}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: ServiceRequest, tenant: str, model: str) -> None:
        """Serve one request from its arrival to its end. Raises nothing."""
        pending_bytes, session = len(request.payload), None
        try:
            waiters = Waiters(Broker(request.connection, self._names), tenant)
            session = Session(request, model, lambda encoding: self._clients.get(tenant, encoding), waiters)
            self._sessions.add(session)
            await self._quotas.admit(tenant, session.asked, self._clock.server_unix_ms())
            await session.submit()
            request.payload = b""  # the queue has it
            if not session.is_named:
                self._admission.stored(pending_bytes)
                pending_bytes = 0
            self._tell_accepted(session, tenant, model)
            result = await session.answer(self._canceller())
            self._answered[result.status] += 1
            request.done()
        except asyncio.CancelledError as error:
            await self._cut_off(request, session, error.args)
        except QuotaExceededError as error:
            await request.refuse_last(*self._refusal(request, await self._with_depth(error, tenant)))
        except MeshError as error:
            await request.refuse_last(*self._refusal(request, error, session))
        except Exception:  # the outermost frame of a request: the requester must not wait for ever
            log.exception("a request at the front door failed", extra={"event": "frontdoor_failed"})
            self._refused[str(INTERNAL)] += 1
            request.refuse(INTERNAL, "internal error; see the log of the front door")
        finally:
            self._admission.stored(pending_bytes)
            self._admission.leave(tenant)
            if session is not None:
                session.close()
                self._clients.release(tenant, session.encoding)
                self._sessions.discard(session)

    def _tell_accepted(self, session: Session, tenant: str, model: str) -> None:
        """Write an audit entry, if this request created the job."""
        if self._audit is not None and session.job is not None and not session.job.is_joined:
            self._audit.accepted(JobRef(session.job.id, tenant, model, session.manner.tier, session.job.sequence))

    def _canceller(self) -> Callable[[], None]:
        """A callback that cancels the current task because its requester is gone."""
        task = asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            task.cancel(GONE)

        return cancel

    async def _cut_off(self, request: ServiceRequest, session: Session | None, why: tuple[object, ...]) -> None:
        """End a request whose requester went away, or which this closing front door cannot serve."""
        if GONE in why and session is not None:
            self._left += 1
            await session.abandon()
            request.done()
            return
        request.refuse(*self._refusal(request, UnavailableError("this front door is closing; ask again"), session))

    async def _with_depth(self, error: QuotaExceededError, tenant: str) -> QuotaExceededError:
        """The same error, with the number of the tenant's jobs."""
        try:
            depth = await self._queue.depth(tenant)
        except BrokerError:
            return error
        text = f"{error.reason}; tenant {tenant} has {depth} jobs waiting or running"
        return QuotaExceededError(text, retry_after_ms=error.retry_after_ms)

    def _refusal(
        self, request: ServiceRequest, error: MeshError, session: Session | None = None
    ) -> tuple[int, str, tuple[tuple[str, str], ...]]:
        """Count a refusal and write an audit entry; the answer's number, reason and further headers."""
        code, details, text = service_code(error), details_of(error), str(error)
        self._refused[str(code)] += 1
        if self._audit is not None and (session is None or session.job is None):
            tokens = request.subject[self._skip :].split(".")
            whose = tokens if len(tokens) == 2 and all(map(is_token, tokens)) else []
            self._audit.refused(error, *whose)
        if session is not None and session.job is not None:
            details = (*details, ("Mesh-Job", session.job.id))
            text += f"; job {session.job.id} goes on, and the same id asked again gets its answer"
        return code, text, details
