"""Control-API fallback for tenants, whose accounts have no JetStream.

In such an account a client reaches only the queue, the front door, the control service, its own Results and its own
live events. It reads journals, models and large Results through the control service, with the same outcome.
Source: nats/PROTOCOL.md, "Steering a job" and "Tenants".
"""

import asyncio
from collections.abc import Sequence

import msgspec

from mesh.broker.broker import Broker
from mesh.broker.stores.journal import Entry, read_entry
from mesh.errors import (
    BrokerTimeoutError,
    DisconnectedError,
    MeshError,
    ModelNotFoundError,
    ResultNotFoundError,
    TopologyError,
    UnauthorizedError,
    UnavailableError,
    VersionError,
)
from mesh.job_key import JobKey
from mesh.protocol import codec, headers, version
from mesh.protocol.messages import Result
from mesh.protocol.timing import RETRY_S
from mesh.protocol.version import ProtocolVersion

PAGE = 200  # events asked for at once: the most that the service gives
ANSWER_S = 5.0
TRIES = 2  # a process of the service that was just suspended never answers, and the next question goes to another
OUTPUT_S = 60.0  # for a Result too large for a message
NOT_FOUND = "404"


class ControlApi:
    """The control service as one tenant's client sees it. `is_needed`: JetStream itself refused this user."""

    def __init__(self, broker: Broker, tenant: str, is_needed: bool = False) -> None:
        self._connection = broker.connection
        self._names = broker.names
        self._tenant = tenant
        self._journal = broker.journal
        self._store = broker.results
        self.is_needed = is_needed
        self.protocol: ProtocolVersion | None = None  # that the mesh speaks, once it was told

    def told(self, protocol: object) -> None:
        """The service said which protocol the mesh speaks; "" or nothing: it does not know.

        Raises:
            VersionError: one that this program does not.
        """
        found = version.parse(protocol) if isinstance(protocol, str) else None
        if found is not None:
            version.check_mesh(found)
            self.protocol = found

    async def read_journal(self, job: str, after: int = 0, limit: int | None = None) -> list[Entry]:
        """A job's events after stream sequence `after`, `limit` at most: from JetStream, or as the service reads them.

        Raises:
            BrokerError: nobody answered.
        """
        if not self.is_needed:
            try:
                return await self._journal.read(self._journal.subject(JobKey(self._tenant, job)), after, limit)
            except UnauthorizedError:
                self.is_needed = True
        found: list[Entry] = []
        while limit is None or len(found) < limit:
            want = PAGE if limit is None else min(PAGE, limit - len(found))
            ask = msgspec.json.encode({"after": after, "limit": want})
            answers = await self._ask("replay", job, ask, ANSWER_S)
            page = [entry for header, payload in answers if (entry := read_entry(header, payload)) is not None]
            found += page
            if len(page) < want:
                break
            after = page[-1].sequence
        return found

    async def longest_context(self, model: str) -> int:
        """The most tokens, prompt and output together, that the workers of `model` take; 0: no worker says.

        Raises:
            ModelNotFoundError: nobody deployed it; the message says what there is.
            VersionError: the mesh speaks another major version of the protocol.
            BrokerError: nobody answered.
        """
        try:
            answers = await self._ask("model", model, b"", ANSWER_S)
        except ResultNotFoundError as error:
            raise ModelNotFoundError(str(error).removeprefix("model: "), field="model") from None
        answer = codec.decode_json(answers[0][1]) if answers else {}
        if not isinstance(answer, dict):
            return 0
        self.told(answer.get("protocol"))
        longest = answer.get("max_model_len")
        return longest if isinstance(longest, int) else 0

    async def whole(self, result: Result) -> Result:
        """A Result with its output, where that was too large for a message.

        Raises:
            ResultNotFoundError: its output is kept no longer.
            BrokerTimeoutError: NATS did not give it within a minute.
        """
        if result.object is None:
            return result
        try:
            async with asyncio.timeout(OUTPUT_S):
                while True:
                    try:
                        if self.is_needed:
                            return await self.output(result.id)
                        return codec.decode_result(await self._store.get_object(result.object))
                    except (DisconnectedError, BrokerTimeoutError, UnavailableError):
                        await asyncio.sleep(RETRY_S)  # NATS is away, and the Result is worth a wait
        except TimeoutError:
            raise BrokerTimeoutError(f"object {result.object} did not come within {OUTPUT_S:g} s; ask again") from None
        except TopologyError as error:
            raise ResultNotFoundError(f"the output of job {result.id} is kept no longer: {error}") from None

    async def output(self, job: str) -> Result:
        """The Result of a job as the service reads it, whole.

        Raises:
            ResultNotFoundError: it is kept no longer.
            BrokerError: nobody answered, or a part of it was lost on the way; ask again.
        """
        answers = await self._ask("output", job, b"", OUTPUT_S)
        body = b"".join(payload for _, payload in answers)
        size = headers.parse(answers[0][0]).get("Mesh-Bytes", "") if answers else ""
        if size != str(len(body)):
            raise BrokerTimeoutError(f"{len(body)} of {size or '?'} bytes of the Result of job {job} came; ask again")
        return codec.decode_result(body)

    async def _ask(self, verb: str, what: str, body: bytes, timeout_s: float) -> Sequence[tuple[bytes, bytes]]:
        """The messages of an answer, without the empty one at its end.

        Raises:
            ResultNotFoundError: the service says that there is no such thing.
            VersionError: it does not speak our version of the protocol.
            UnavailableError: it refused otherwise, or nobody serves it. BrokerTimeoutError: no answer.
        """
        subject = self._names.control(self._tenant, verb, what)
        for is_last_try in (False, True):
            try:
                *found, (end, _) = await self._connection.collect(
                    subject, body, _is_end, timeout_s / TRIES, version.OWN_BLOCK
                )
                break
            except BrokerTimeoutError:
                if is_last_try:
                    raise
        refused = read_refusal(end, f"{verb} of {what}")
        if refused is None:
            return found
        fields = headers.parse(end)
        if fields.get("Nats-Service-Error-Code") == NOT_FOUND:
            raise ResultNotFoundError(fields["Nats-Service-Error"])
        raise refused


def read_refusal(header: bytes, what: str) -> MeshError | None:
    """Our error for a refusal of the control service; None: the message is an answer. `what` was asked."""
    fields = headers.parse(header)
    reason = fields.get("Nats-Service-Error")
    if reason is None:
        return None
    if fields.get("Mesh-Error-Field") == version.HEADER:
        return VersionError(reason)
    return UnavailableError(f"{what}: {reason}")


def _is_end(header: bytes, payload: bytes) -> bool:
    return not payload
