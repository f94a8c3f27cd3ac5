"""Bytes to messages and back, in both encodings. Pure.

Every body is decoded straight into typed structs, so a hostile one costs no more memory than its own size. Every
failure of a decoder becomes one error that names the field.
"""

import re
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from mesh.errors import InvalidRequestError, ProtocolError, UnsupportedError
from mesh.protocol import headers
from mesh.protocol.messages import (
    AuditEntry,
    Delta,
    Event,
    JobStatus,
    LaterEvent,
    LivenessRecord,
    Note,
    OnDisconnect,
    Pong,
    Presence,
    Request,
    Result,
    RpcOptions,
    Started,
    Tier,
)
from mesh.protocol.subjects import is_token

Encoding = Literal["json", "msgpack"]

# Errors that decoders raise on hostile input, such as deep nesting, 5,000-digit numbers and bad UTF-8.
_BROKEN = (msgspec.MsgspecError, RecursionError, ValueError, OverflowError, MemoryError)
_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<where>[^`]*)`)?$", re.DOTALL)

_EMPTY = "the body is empty; send a JSON object or a MessagePack map"

# The types of events and notes that this version knows.
_OUR_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in (Started, Delta, Result, Note))

_JSON_ENCODER = msgspec.json.Encoder()
_MSGPACK_ENCODER = msgspec.msgpack.Encoder()


class _Identity(msgspec.Struct, frozen=True):
    """The field that lets a malformed request be answered under its own id."""

    id: Any = None


class _RpcRequest(Request, frozen=True, kw_only=True):
    """The body of a request at the front door: the fields of a Request and of RpcOptions side by side."""

    stream: bool = False
    tier: Tier = "standard"
    on_disconnect: OnDisconnect = "cancel"


class _Decoders:
    """One decoder per type, built once because building one inspects the whole type."""

    def __init__(self, kind: Any) -> None:
        self.request = kind(Request)
        self.rpc = kind(_RpcRequest)
        self.event = kind(Event)
        self.later = kind(LaterEvent)
        self.result = kind(Result)
        self.note = kind(Note)
        self.liveness = kind(LivenessRecord)
        self.identity = kind(_Identity)
        self.presence = kind(Presence)
        self.audit = kind(AuditEntry)
        self.any = kind()


_DECODERS: dict[Encoding, _Decoders] = {
    "json": _Decoders(msgspec.json.Decoder),
    "msgpack": _Decoders(msgspec.msgpack.Decoder),
}


def encoding_of(content_type: str) -> Encoding:
    """The encoding a Content-Type names; JSON if it names none.

    Raises:
        UnsupportedError: any other media type.
    """
    if content_type in ("", headers.JSON):
        return "json"
    if content_type in (headers.MSGPACK, "application/x-msgpack", "application/vnd.msgpack"):
        return "msgpack"
    raise UnsupportedError(
        f"{content_type[:80]!r} is neither {headers.JSON} nor {headers.MSGPACK}", field="Content-Type"
    )


def sniff(body: bytes) -> Encoding:
    """The encoding of a message the mesh itself wrote: a JSON object opens with a brace, a map never does."""
    return "json" if body[:1] == b"{" else "msgpack"


def encode(message: msgspec.Struct | dict[str, Any], encoding: Encoding = "json") -> bytes:
    """One message as bytes."""
    if isinstance(message, Result):
        message = as_sent(message)
    return _JSON_ENCODER.encode(message) if encoding == "json" else _MSGPACK_ENCODER.encode(message)


def as_sent(result: Result) -> Result:
    """The Result as it is encoded: with the one of `text`, `embeddings` and `object` that holds its output."""
    absent: dict[str, Any] = {}  # msgspec leaves out a field that is UNSET
    if result.embeddings is not None or result.object is not None:
        absent["text"] = UNSET
    if result.embeddings is None:
        absent["embeddings"] = UNSET
    if result.object is None:
        absent["object"] = UNSET
    return msgspec.structs.replace(result, **absent)


def decode_request(body: bytes, encoding: Encoding) -> Request:
    """The request in `body`, with types and single-field ranges checked; `validate` checks the rest.

    Raises:
        InvalidRequestError: with the field, where one is at fault.
    """
    if not body:
        raise InvalidRequestError(_EMPTY)
    try:
        request: Request = _DECODERS[encoding].request.decode(body)
    except _BROKEN as error:
        raise _invalid(error, encoding) from None
    return request


def decode_rpc(body: bytes, encoding: Encoding) -> tuple[Request, RpcOptions]:
    """The request and the options in a body at the front door, decoded once; checked as by `decode_request`.

    Raises:
        InvalidRequestError: with the field, where one is at fault.
    """
    if not body:
        raise InvalidRequestError(_EMPTY)
    try:
        asked: _RpcRequest = _DECODERS[encoding].rpc.decode(body)
    except _BROKEN as error:
        raise _invalid(error, encoding) from None
    request = Request(**{name: getattr(asked, name) for name in Request.__struct_fields__})
    return request, RpcOptions(tier=asked.tier, stream=asked.stream, on_disconnect=asked.on_disconnect)


def identity_of(body: bytes, encoding: Encoding) -> str | None:
    """The `id` of a body that does not decode as a request, if it can still be read."""
    try:
        found = _DECODERS[encoding].identity.decode(body).id
    except _BROKEN:
        return None
    return found if is_token(found) else None


def decode_event(body: bytes) -> Event:
    """An event of a job.

    Raises:
        ProtocolError: the worker that sent it does not speak this protocol.
    """
    try:
        event: Event = _DECODERS[sniff(body)].event.decode(body)
    except _BROKEN as error:
        raise ProtocolError(f"not an event: {error}") from None
    return event


def decode_later(body: bytes) -> LaterEvent | None:
    """The envelope of an event of a later minor, which `decode_event` refuses; None: the body is no event."""
    try:
        event: LaterEvent = _DECODERS[sniff(body)].later.decode(body)
    except _BROKEN:
        return None
    return event if event.type not in _OUR_TYPES else None


def decode_note(body: bytes) -> Note | None:
    """The note on an attempt; None if the body is no note."""
    try:
        note: Note = _DECODERS[sniff(body)].note.decode(body)
    except _BROKEN:
        return None
    return note


def decode_liveness_record(body: bytes) -> LivenessRecord:
    """A worker's liveness record.

    Raises:
        ProtocolError: the body is no liveness record.
    """
    try:
        record: LivenessRecord = _DECODERS[sniff(body)].liveness.decode(body)
    except _BROKEN as error:
        raise ProtocolError(f"not a liveness record: {error}") from None
    return record


def decode_pong(body: bytes) -> Pong:
    """A worker's answer to a ping; the default for an empty one, as older workers send it."""
    try:
        return msgspec.json.decode(body, type=Pong)
    except _BROKEN:
        return Pong()


def decode_status(body: bytes) -> JobStatus:
    """A job's status, as a worker reports it.

    Raises:
        ProtocolError: the body is no status.
    """
    try:
        status: JobStatus = msgspec.json.decode(body, type=JobStatus)
    except _BROKEN as error:
        raise ProtocolError(f"not a job's status: {error}") from None
    return status


def decode_result(body: bytes) -> Result:
    """A stored Result.

    Raises:
        ProtocolError: it is not one.
    """
    try:
        result: Result = _DECODERS[sniff(body)].result.decode(body)
    except _BROKEN as error:
        raise ProtocolError(f"not a Result: {error}") from None
    return result


def decode_presence(body: bytes) -> Presence:
    """A worker's presence.

    Raises:
        ProtocolError: it is not one.
    """
    try:
        presence: Presence = _DECODERS[sniff(body)].presence.decode(body)
    except _BROKEN as error:
        raise ProtocolError(f"not a Presence: {error}") from None
    return presence


def decode_audit(body: bytes) -> AuditEntry:
    """An entry of the audit log.

    Raises:
        ProtocolError: the body is no entry.
    """
    try:
        entry: AuditEntry = _DECODERS["json"].audit.decode(body)
    except _BROKEN as error:
        raise ProtocolError(f"not an audit entry: {error}") from None
    return entry


def decode_json(body: bytes) -> Any:
    """Any JSON, for answers of the NATS server whose shape the caller checks.

    Raises:
        ProtocolError: it is not JSON.
    """
    try:
        return _DECODERS["json"].any.decode(body)
    except _BROKEN as error:
        raise ProtocolError(f"not JSON: {error}") from None


def _invalid(error: BaseException, encoding: Encoding) -> InvalidRequestError:
    """A decoder's error in the protocol's terms: the field and the reason."""
    if isinstance(error, msgspec.ValidationError):
        match = _WHERE.match(str(error))
        where = (match["where"] if match else None) or ""
        what = match["what"] if match else str(error)
        field = where.removeprefix("$").removeprefix(".")
        return InvalidRequestError(what[0].lower() + what[1:], field=field or None)
    if isinstance(error, RecursionError):
        return InvalidRequestError("the body is nested too deeply")
    kind = "JSON" if encoding == "json" else "MessagePack"
    return InvalidRequestError(f"the body is not valid {kind}: {str(error)[:200]}")
