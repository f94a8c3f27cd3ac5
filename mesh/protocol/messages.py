"""The messages of the protocol: requests, events, results, presence. Pure data with the wire's names and units.

Field order is the order on the wire. New fields get defaults; no field is ever retyped or reused. A reader skips
unknown fields, so it understands a peer of a later minor version.
Source: nats/PROTOCOL.md in this repository.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mesh.errors import JobCancelledError, JobExpiredError, JobFailedError

DEFAULT_MAX_TOKENS = 256  # enough for a chat answer; a request for more sets `max_tokens`
DEFAULT_DEADLINE_MS = 600_000
DEFAULT_RESULT_TTL_MS = 3_600_000
MAX_RESULT_TTL_MS = 7 * 24 * 3_600_000  # the bucket's own limit, see broker/topology

Tier = Literal["interactive", "standard", "batch"]
TIERS: tuple[Tier, ...] = ("interactive", "standard", "batch")  # highest first
Status = Literal["finished", "failed", "cancelled", "expired"]
STATUSES: tuple[Status, ...] = ("finished", "failed", "cancelled", "expired")

# A type checker knows today's statuses. The decoder accepts any string, because a later minor may add a status. An
# unknown status means that the job ended and did not finish.
if TYPE_CHECKING:
    AnyStatus = Status
else:
    AnyStatus = str
Role = Literal["system", "developer", "user", "assistant", "tool"]

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
UnixMs = Annotated[int, Meta(ge=1, le=2**53)]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a chat."""

    role: Role
    content: str


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's `response_format`: free text, any JSON object, or JSON after a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None  # {"name": …, "schema": {…}}


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True):
    """vLLM's `structured_outputs`: exactly one of these."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One inference request. Decoding checks types; `protocol.validate` checks fields against each other."""

    id: str | None = None  # subject token; without it the job is `s<stream sequence>`
    # Exactly one of the next four.
    prompt: str | None = None
    messages: list[Message] | None = None  # n >= 1 turns, oldest first
    prompt_token_ids: list[TokenId] | None = None  # n >= 1 ids
    input: str | list[str] | None = None  # embeddings: one vector per string

    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None  # None: DEFAULT_MAX_TOKENS
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None  # None: 1.0, as OpenAI and vLLM
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] = 0  # 0 and -1: all
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    seed: Int64 | None = None  # None: derived from tenant and job, so that every attempt draws alike
    stop: str | list[str] | None = None
    stop_token_ids: list[TokenId] | None = None
    ignore_eos: bool = False
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0, le=2)] = 1.0
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    allowed_token_ids: list[TokenId] | None = None
    bad_words: list[str] | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    deadline_unix_ms: UnixMs | None = None  # None: ten minutes after it was stored
    result_ttl_ms: Annotated[int, Meta(ge=1000, le=MAX_RESULT_TTL_MS)] = DEFAULT_RESULT_TTL_MS
    stream: bool = True  # False: only the result event
    session: str | None = None  # jobs of one session prefer one lane
    metadata: dict[str, Any] | None = None  # echoed in the Result, never interpreted by the mesh
    on_worker_loss: Literal["resume", "restart", "fail"] = "resume"

    # Fields of OpenAI's or vLLM's API that the mesh does not serve: a value that has an effect is `unsupported`.
    n: int | None = None
    best_of: int | None = None
    logprobs: Any = None
    top_logprobs: Any = None
    prompt_logprobs: Any = None
    echo: Any = None
    suffix: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None


OnDisconnect = Literal["cancel", "finish"]


class RpcOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a request at the front door, in the same body as the Request."""

    tier: Tier = "standard"
    stream: bool = False  # the events, not the Result alone
    on_disconnect: OnDisconnect = "cancel"  # whether the job goes on without its requester


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens counted by the engine; over all attempts, a token shown once is counted once."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, found in the engine's prefix cache


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds since the request was stored, by the worker's clock."""

    queued_ms: int = 0  # until the attempt that ended the job started
    first_token_ms: int | None = None  # None: no token was made, or another worker made the first
    total_ms: int = 0


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job did not finish. `code` is one of the codes in mesh.errors."""

    code: str
    message: str
    retryable: bool = False


class Started(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="started"):
    """A worker took the job. The first `index` output tokens of earlier attempts stand."""

    id: str
    attempt: int  # from 1: 1 + the number of started events before
    index: int
    worker: str
    unix_ms: int
    sequence: int = 0  # the request's own stream sequence: tells a takeover from a duplicate submit
    isolated: bool = False  # no other job runs in this worker meanwhile, because this one may kill workers
    closing: bool = False  # True: no attempt; it closes the journal to workers, because the job is about to be ended


class Note(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="note"):
    """How an attempt without a Result ended; one without a note may have died with its worker. Private to the mesh."""

    id: str
    attempt: int
    # Returned: its worker stops, or lost the job and is alive. Failed: the engine failed on this job only. Died: the
    # engine died. Probing: no verdict yet. An unknown verdict counts as failed.
    verdict: str
    reason: str = ""
    unix_ms: int = 0  # probing: the instant of the check, by the clock of the worker that checks


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's answer to a ping. Private to the mesh."""

    born_unix_ms: int = 0  # when its process began, by its own clock; earlier attempts under its name are another's


class LivenessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a worker is alive, by itself or by the process that found it dead. Private to the mesh."""

    worker: str
    session: str  # of the live process; "" in a death
    is_alive: bool
    by: str = ""  # the process that found it dead


class Delta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="delta"):
    """New output. The next delta's index is this one's plus len(token_ids)."""

    id: str
    attempt: int
    index: int
    text: str  # the text of these tokens; may be "" while a character or a stop string is incomplete
    token_ids: list[int]  # n_new ids, n_new >= 1
    # Only on the last delta, so that the next worker can write the Result without the engine.
    finish_reason: str | None = None
    usage: Usage | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="result"):
    """How a job ended: the stored value and the last event."""

    id: str
    tenant: str
    model: str
    status: AnyStatus
    # On the wire, exactly one of the next three is present, see `codec.encode`.
    text: str = ""  # also "" where `embeddings` or `object` holds the output
    embeddings: list[list[float]] | None = None  # one vector per input, all of one length
    object: str | None = None  # the whole Result lies in `mesh_objects` under this name
    finish_reason: str | None = None  # stop | length | the engine's own word
    usage: Usage = Usage()
    error: ErrorInfo | None = None
    attempts: int = 0
    worker: str = ""
    timing: Timing = Timing()
    created_unix_ms: int = 0  # the server's clock, when the request was stored
    finished_unix_ms: int = 0  # the worker's clock
    metadata: dict[str, Any] | None = None

    def raise_for_status(self) -> "Result":
        """Return self if the job finished.

        Raises:
            JobFailedError, JobCancelledError, JobExpiredError: as the status says; `.result` is self.
        """
        if self.status == "finished":
            return self
        kind = {"cancelled": JobCancelledError, "expired": JobExpiredError}.get(self.status, JobFailedError)
        error = self.error or ErrorInfo(code="internal", message="no reason was given")
        raise kind(f"job {self.id} {self.status}: {error.message}", result=self, code=error.code)


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job's status, as a worker reports it."""

    id: str
    # queued | running | a Status | unknown: no such job, or it ended longer ago than its result_ttl_ms. A later minor
    # may add others.
    status: str
    attempt: int = 0  # from 1; 0: none has begun
    index: int = 0  # output tokens so far
    worker: str = ""  # the one that runs it or ran it last; "": none yet
    protocol: str = ""  # the mesh's version; "": the process that answers cannot read it


Event = Started | Delta | Result


class LaterEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a later minor, with an unknown `type`. Readers show it or skip it, and count its place."""

    type: str
    id: str = ""
    attempt: int = 0
    index: int = 0


# returned: a worker handed it back without a Result. buried, redriven, dropped: as a dead letter. gap: the writer
# left entries out. The last four are actions of an operator.
AuditEvent = Literal[
    "accepted",
    "refused",
    "started",
    "taken_over",
    "returned",
    "ended",
    "buried",
    "gap",
    "redriven",
    "dropped",
    "paused",
    "resumed",
    "drained",
]


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a job, or one action of an operator. It has names, codes and numbers, and never a user's text.

    Fields that are unknown, or without meaning for the event, are left out.
    """

    event: str  # an AuditEvent, or one of a newer mesh
    unix_ms: int  # by the clock of the process that writes it
    by: str  # the worker or other process that writes it; for an operator, the name of the connection
    tenant: str = ""
    job: str = ""
    model: str = ""
    tier: str = ""
    sequence: int = 0  # of the request in its stream
    attempt: int = 0
    index: int = 0  # output tokens that stand from earlier attempts
    taken_from: str = ""  # the worker of the attempt before
    cause: str = ""  # of a takeover, a return or an ending
    status: str = ""  # of the Result
    code: str = ""  # of the error
    field: str = ""  # the request's field at fault
    attempts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0  # of output, over all attempts
    queued_ms: int | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None
    count: int = 1  # of similar refusals without a job in a short time, or of entries left out
    worker: str = ""  # the one that was told to drain
    for_s: float | None = None  # of a pause that ends by itself
    user: str = ""  # the operator's, as NATS knows it
    host: str = ""  # the operator's


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """One live worker. It is stored every beat in `mesh_workers`, and gone three beats after the last."""

    worker: str
    model: str
    state: str  # starting | ready | draining; in an unknown state of a later minor, the worker takes no jobs
    engine: str
    engine_version: str
    version: str  # of the mesh
    host: str
    pid: int
    capacity: int  # jobs at once
    running: int
    lanes: list[int] = []  # lanes this worker pulls first
    max_model_len: int = 0  # tokens, prompt and output together; 0: not limited
    finished: int = 0  # jobs ended by this worker since it started
    tokens: int = 0  # output tokens since it started
    started_unix_ms: int = 0
    beat_unix_ms: int = 0
    protocol: str = "1.0"  # the version that it speaks
