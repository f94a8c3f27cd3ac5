"""Reads a request from the queue: decoded, with the id under which it is answered.

Callers get no raw bytes to decode: a body that is no request becomes a `StoredRequest` with an `error`.
"""

import msgspec

from mesh.errors import InvalidRequestError, RequestError
from mesh.job_key import JobKey, JobRef
from mesh.protocol import codec, headers, version
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Request
from mesh.protocol.subjects import Names, RequestAddress, is_token
from mesh.protocol.validate import validate


class StoredRequest(msgspec.Struct, frozen=True):
    """One message of the request stream."""

    sequence: int
    address: RequestAddress | None  # None: the subject is not one of the protocol's
    job: str  # the id in the body, else the one in Nats-Msg-Id if the body is broken, else s<sequence>
    encoding: Encoding
    request: Request | None  # None: see error
    error: RequestError | None
    traceparent: str
    body: bytes
    stored_unix_ms: int  # the server's clock

    @property
    def ref(self) -> JobRef:
        """Its names. It must have an address."""
        assert self.address is not None
        return JobRef(self.job, self.address.tenant, self.address.model, self.address.tier, self.sequence)


class Delivery(msgspec.Struct, frozen=True):
    """JetStream handing a job to this worker, until it is acknowledged or its lease ends."""

    stored: StoredRequest
    ref: JobRef
    address: RequestAddress
    consumer: str
    delivered: int  # JetStream's count, from 1; not monotonic over a server crash
    pending: int  # messages that wait behind this one in the consumer
    ack_subject: str

    @property
    def job(self) -> str:
        return self.stored.job

    @property
    def key(self) -> JobKey:
        return self.ref.key

    @property
    def stored_unix_ms(self) -> int:
        return self.stored.stored_unix_ms


def read_stored(
    names: Names, subject: str, sequence: int, body: bytes, header: bytes, stored_unix_ms: int
) -> StoredRequest:
    """Decode one message of the request stream; never raises for what a client may have sent."""
    address = names.read_request(subject)
    fields = {key.lower(): value for key, value in headers.parse(header).items()} if header else {}
    request: Request | None = None
    error: RequestError | None = None
    encoding: Encoding = "json"
    job: str | None = None
    is_readable = False
    try:
        encoding = codec.encoding_of(headers.media_type(fields.get("content-type", "")))
        is_readable = True
        version.check_request(fields.get("mesh-protocol", ""))
        request = codec.decode_request(body, encoding)
        validate(request)
        job = request.id
    except RequestError as refused:
        error = refused
        job = codec.identity_of(body, encoding) if is_readable else None
    if error is not None:
        request = None
        if not is_token(job):
            job = _identity_in_header(fields.get("nats-msg-id", ""), address)
    return StoredRequest(
        sequence=sequence,
        address=address,
        job=job or f"s{sequence}",
        encoding=encoding,
        request=request,
        error=error,
        traceparent=fields.get("traceparent", "")[:128],
        body=body,
        stored_unix_ms=stored_unix_ms,
    )


def read_delivery(names: Names, subject: bytes, reply: bytes, body: bytes, header: bytes) -> Delivery | None:
    """The delivery in a message of a pull; None if it is not one of the request stream's.

    Source: the reply subject's form is ADR-15 ($JS.ACK), in the short form and the long one with domain and account.
    """
    ack_subject = reply.decode("utf-8", "replace")
    parts = ack_subject.split(".")
    if len(parts) >= 11:
        parts = parts[:2] + parts[4:11]
    if len(parts) != 9 or parts[0] != "$JS" or parts[1] != "ACK":
        return None
    consumer, delivered, sequence, _, stored_ns, pending = parts[3:9]
    stored_unix_ms = int(stored_ns) // 1_000_000
    stored = read_stored(names, subject.decode("utf-8", "replace"), int(sequence), body, header, stored_unix_ms)
    if stored.address is None:
        return None
    return Delivery(
        stored=stored,
        ref=stored.ref,
        address=stored.address,
        consumer=consumer,
        delivered=int(delivered),
        pending=int(pending),
        ack_subject=ack_subject,
    )


def _identity_in_header(message_id: str, address: RequestAddress | None) -> str | None:
    """The job a broken body meant, from `Nats-Msg-Id: <tenant>.<job>`."""
    tenant, _, job = message_id.partition(".")
    if address is not None and tenant == address.tenant and is_token(job):
        return job
    return None


def refusal(delivery: Delivery) -> RequestError:
    """Why a delivery without a request is refused."""
    return delivery.stored.error or InvalidRequestError("the body is no request")
