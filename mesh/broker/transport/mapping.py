"""Maps nats-py's exceptions and JetStream's error answers to the mesh's errors.

tests/unit/broker/test_mapping.py fails when nats-py has an error class that is not listed here.
"""

import re
import ssl
from typing import Any

import msgspec
import nats.errors
import nats.js.errors

from mesh.broker.transport.nats_client import NoTlsError
from mesh.errors import (
    BrokerError,
    BrokerTimeoutError,
    ConfigError,
    DisconnectedError,
    MeshError,
    ProtocolError,
    QuotaExceededError,
    SequenceError,
    TooLargeError,
    TopologyError,
    UnauthorizedError,
    UnavailableError,
)

# The most specific class first; the first that matches decides.
NATS_ERRORS: tuple[tuple[type[BaseException], type[MeshError]], ...] = (
    (nats.errors.MaxPayloadError, TooLargeError),
    (nats.errors.AuthorizationError, UnauthorizedError),
    (NoTlsError, ConfigError),
    (nats.errors.InvalidUserCredentialsError, ConfigError),
    (nats.errors.SecureConnRequiredError, ConfigError),
    (nats.errors.SecureConnWantedError, ConfigError),
    (nats.errors.SecureConnFailedError, ConfigError),
    (nats.errors.NoRespondersError, UnavailableError),
    (nats.errors.TimeoutError, BrokerTimeoutError),
    (nats.errors.ConnectionClosedError, DisconnectedError),
    (nats.errors.ConnectionDrainingError, DisconnectedError),
    (nats.errors.ConnectionReconnectingError, DisconnectedError),
    (nats.errors.StaleConnectionError, DisconnectedError),
    (nats.errors.OutboundBufferLimitError, DisconnectedError),
    (nats.errors.NoServersError, DisconnectedError),
    (nats.errors.ProtocolError, ProtocolError),
    (nats.errors.JsonParseError, ProtocolError),
    (nats.js.errors.ServiceUnavailableError, UnavailableError),
    (nats.js.errors.NoStreamResponseError, UnavailableError),
    (nats.js.errors.NotFoundError, TopologyError),
    (nats.errors.Error, BrokerError),
    (TimeoutError, BrokerTimeoutError),  # Python's own class is an OSError too, so it comes first
    (OSError, DisconnectedError),
)

# The TLS alert of a server that got no client certificate, or one of an unknown authority.
_OF_OUR_CERTIFICATE = re.compile("ALERT.*(CERTIFICATE|UNKNOWN_CA)")
_LAST_SEQUENCE = re.compile(r"wrong last sequence: (\d+)")

# JetStream error codes. Source: server/errors.json of nats-server.
WRONG_LAST_SEQUENCE = (10071, 10164)  # the second from a clustered stream
# The stream (messages, bytes, messages per subject), the account, the server (any, memory, disk).
FULL = (10077, 10002, 10023, 10028, 10047)
TOO_LARGE = (10054, 10097)  # the message, its headers
NO_STREAM = 10059
NO_CONSUMER = 10014
NO_JETSTREAM = (10039, 10076)
NO_MESSAGE = 10037
NO_SEQUENCE = 10043
DELETE_FAILED = 10057


class ApiError(msgspec.Struct, frozen=True):
    """The `error` object of a JetStream answer."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct, frozen=True):
    """JetStream's answer to a publish. Source: ADR-1."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


_PUBACK = msgspec.json.Decoder(PubAck)


def mapped(error: BaseException) -> MeshError:
    """Return the mesh's error for one of nats-py's. The caller raises it `from` the original."""
    for theirs, ours in NATS_ERRORS:
        if isinstance(error, theirs):
            return ours(str(error) or type(error).__name__)
    return BrokerError(f"{type(error).__name__}: {error}")


def final_fault(error: BaseException, where: str) -> MeshError | None:
    """Return the mesh's error for a permanent failure to connect to `where`; None: a retry may succeed."""
    if isinstance(error, NoTlsError):
        return ConfigError(
            f"{where}: {error}; give the server a `tls` block, or use nats:// without --tls-ca and --tls-cert",
            key="nats",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError(
            f"{where}: its certificate is not trusted ({error.verify_message}); give its authority's certificate with "
            "--tls-ca, and an address that is in the certificate",
            key="tls-ca",
        )
    if isinstance(error, ssl.SSLError) and _OF_OUR_CERTIFICATE.search(error.reason or ""):
        return ConfigError(
            f"{where} accepts only clients with a certificate that it trusts ({error.reason}); "
            "give --tls-cert and --tls-key",
            key="tls-cert",
        )
    if "authorization" in str(error).lower():
        return UnauthorizedError(
            f"NATS at {where} refused this user (authorization violation); "
            "give --creds, --nkey or --user and --password"
        )
    return None


def api_error(error: ApiError, what: str) -> MeshError:
    """Return the mesh's error for a JetStream error. `what` names the request, for the message."""
    text = f"{what}: {error.description or 'error'} (JetStream {error.err_code})"
    number = error.err_code
    if number in WRONG_LAST_SEQUENCE:
        found = _LAST_SEQUENCE.search(error.description)
        return SequenceError(text, last=int(found[1]) if found else 0)
    if number in FULL:
        return QuotaExceededError(f"{text}; try again later")
    if number in TOO_LARGE:
        return TooLargeError(text)
    if number in (NO_STREAM, NO_CONSUMER, *NO_JETSTREAM):
        return TopologyError(f"{text}; `mesh init --nats URL` shows what is missing", err_code=number)
    if error.code == 503:
        return UnavailableError(text, err_code=number)
    return BrokerError(text, err_code=number)


def read_puback(payload: bytes, what: str) -> PubAck:
    """Decode a PubAck.

    Raises:
        MeshError: the publish was refused; the error comes from `api_error`.
        ProtocolError: the answer is not from JetStream.
    """
    try:
        ack = _PUBACK.decode(payload)
    except msgspec.MsgspecError:
        raise ProtocolError(f"{what}: the answer is not a PubAck: {payload[:80]!r}") from None
    if ack.error is not None:
        raise api_error(ack.error, what)
    return ack


def read_api(payload: bytes, what: str) -> dict[str, Any]:
    """Decode the answer of a JetStream API request.

    Raises:
        MeshError: the answer holds an error; the error comes from `api_error`.
        ProtocolError: the answer is not a JSON object.
    """
    try:
        answer = msgspec.json.decode(payload)
    except msgspec.MsgspecError:
        raise ProtocolError(f"{what}: the answer is not JSON: {payload[:80]!r}") from None
    if not isinstance(answer, dict):
        raise ProtocolError(f"{what}: the answer is not an object")
    if answer.get("error"):
        raise api_error(msgspec.convert(answer["error"], ApiError, strict=False), what)
    return answer
