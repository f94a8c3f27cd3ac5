"""Every error of nats-py, and every refusal of JetStream, becomes ours on purpose."""

import inspect
import types

import msgspec
import nats.errors
import nats.js.errors
import pytest

from mesh import errors
from mesh.broker.transport.mapping import (
    FULL,
    NATS_ERRORS,
    NO_CONSUMER,
    NO_JETSTREAM,
    NO_STREAM,
    TOO_LARGE,
    WRONG_LAST_SEQUENCE,
    ApiError,
    PubAck,
    api_error,
    mapped,
    read_api,
    read_puback,
)
from mesh.errors import SequenceError


def public_errors(module: types.ModuleType) -> list[type[BaseException]]:
    return [
        each
        for name, each in inspect.getmembers(module, inspect.isclass)
        if issubclass(each, BaseException) and each.__module__ == module.__name__ and not name.startswith("_")
    ]


THEIRS = public_errors(nats.errors) + public_errors(nats.js.errors)

# These end as plain BrokerError, and may: each with the reason.
MISUSE = "a mistake in our own calls, which the mesh's subjects, callbacks and timeouts cannot make"
UNUSED = "of a part of nats-py that the mesh does not use"
PLAIN = {
    "Error": "the base, in both modules",
    "BadSubscriptionError": MISUSE,
    "BadSubjectError": MISUSE,
    "BadHeaderError": MISUSE,
    "BadTimeoutError": MISUSE,
    "InvalidCallbackTypeError": MISUSE,
    "MsgAlreadyAckdError": UNUSED + ": messages are acknowledged by subject",
    "NotJSMessageError": UNUSED + ": messages are acknowledged by subject",
    "SlowConsumerError": UNUSED + ": handlers are called at once; the object store reads with one, and is retried",
    "ServerNotInPoolError": UNUSED + ": a custom choice of servers",
    "APIError": "JetStream refused, with a code of its own",
    "ServerError": "JetStream failed (500)",
    "BadRequestError": "JetStream refused (400)",
    "ConsumerInvalidResetError": UNUSED + ": ordered consumers",
    "ConsumerSequenceMismatchError": UNUSED + ": ordered consumers",
    "TooManyStalledMsgsError": UNUSED + ": asynchronous publishing",
    "BadBucketError": "a bucket that is no bucket",
    "KeyValueError": UNUSED + ": the key-value wrapper",
    "KeyWrongLastSequenceError": UNUSED + ": the key-value wrapper",
    "NoKeysError": UNUSED + ": the key-value wrapper",
    "KeyHistoryTooLargeError": UNUSED + ": the key-value wrapper",
    "InvalidKeyError": UNUSED + ": the key-value wrapper",
    "KeyValueLimitMarkerTTLNotSupportedError": UNUSED + ": the key-value wrapper",
    "InvalidBucketNameError": MISUSE,
    "InvalidObjectNameError": MISUSE,
    "BadObjectMetaError": "an object that was damaged",
    "DigestMismatchError": "an object that was damaged",
    "LinkIsABucketError": UNUSED + ": links between objects",
    "ObjectAlreadyExists": UNUSED + ": links between objects",
}


def make(kind: type[BaseException]) -> BaseException:
    """An instance, without the arguments that only nats-py could give."""
    return kind.__new__(kind)


def entry_for(kind: type[BaseException]) -> tuple[type[BaseException], type[errors.MeshError]]:
    return next(entry for entry in NATS_ERRORS if issubclass(kind, entry[0]))


def test_there_are_errors_to_map() -> None:
    assert len(THEIRS) > 50


@pytest.mark.parametrize("kind", THEIRS, ids=lambda each: f"{each.__module__}.{each.__name__}")
def test_each_error_of_nats_is_mapped_on_purpose(kind: type[Exception]) -> None:
    theirs, _ = entry_for(kind)
    if theirs is nats.errors.Error:
        assert kind.__name__ in PLAIN, f"nats-py raises {kind.__name__}; say in broker/transport/mapping what it means"
    else:
        assert kind.__name__ not in PLAIN, f"{kind.__name__} is mapped; take it from the list"


def test_the_list_names_nothing_that_is_gone() -> None:
    assert set(PLAIN) <= {each.__name__ for each in THEIRS}


def test_the_specific_comes_before_the_general() -> None:
    """The first match decides, so no class may stand behind its own base class."""
    entries = [entry for entry in NATS_ERRORS if entry[0] in THEIRS]
    for number, (theirs, _) in enumerate(entries):
        for before, _ in entries[:number]:
            assert not issubclass(theirs, before), f"{theirs.__name__} is never reached"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (nats.errors.MaxPayloadError, errors.TooLargeError),
        (nats.errors.AuthorizationError, errors.UnauthorizedError),
        (nats.errors.InvalidUserCredentialsError, errors.ConfigError),
        (nats.errors.SecureConnWantedError, errors.ConfigError),
        (nats.errors.NoRespondersError, errors.UnavailableError),
        (nats.errors.TimeoutError, errors.BrokerTimeoutError),
        (nats.errors.FlushTimeoutError, errors.BrokerTimeoutError),
        (nats.errors.DrainTimeoutError, errors.BrokerTimeoutError),
        (nats.js.errors.FetchTimeoutError, errors.BrokerTimeoutError),
        (nats.errors.ConnectionClosedError, errors.DisconnectedError),
        (nats.errors.UnexpectedEOF, errors.DisconnectedError),
        (nats.errors.NoServersError, errors.DisconnectedError),
        (nats.js.errors.ServiceUnavailableError, errors.UnavailableError),
        (nats.js.errors.NoStreamResponseError, errors.UnavailableError),
        (nats.js.errors.NotFoundError, errors.TopologyError),
        (nats.js.errors.BucketNotFoundError, errors.TopologyError),
        (nats.errors.ProtocolError, errors.ProtocolError),
        (ConnectionRefusedError, errors.DisconnectedError),
        (ValueError, errors.BrokerError),
    ],
)
def test_what_happened_keeps_its_meaning(theirs: type[Exception], ours: type[Exception]) -> None:
    found = mapped(theirs())
    assert type(found) is ours
    assert str(found)


@pytest.mark.parametrize("kind", THEIRS, ids=lambda each: each.__name__)
def test_every_error_maps_to_one_of_ours_that_can_be_made(kind: type[Exception]) -> None:
    ours = entry_for(kind)[1]
    assert issubclass(ours, errors.MeshError)
    assert str(ours("why")) == "why"


def test_an_error_without_words_is_told_by_its_name() -> None:
    assert str(mapped(OSError())) == "OSError"
    assert str(mapped(KeyError("x"))) == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        *[(ApiError(400, number, "wrong last sequence: 5"), errors.SequenceError) for number in WRONG_LAST_SEQUENCE],
        *[(ApiError(503, number, "maximum messages exceeded"), errors.QuotaExceededError) for number in FULL],
        *[(ApiError(400, number, "too large"), errors.TooLargeError) for number in TOO_LARGE],
        *[
            (ApiError(404, number, "not found"), errors.TopologyError)
            for number in (NO_STREAM, NO_CONSUMER, *NO_JETSTREAM)
        ],
        (ApiError(503, 10008, "no leader"), errors.UnavailableError),
        (ApiError(500, 10099, "no suitable peers"), errors.BrokerError),
        (ApiError(), errors.BrokerError),
    ],
)
def test_each_refusal_of_jetstream_keeps_its_meaning(error: ApiError, kind: type[Exception]) -> None:
    found = api_error(error, "store it")
    assert type(found) is kind
    assert "store it" in str(found)


@pytest.mark.parametrize("number", [10002, 10023, 10028, 10047, 10077])
@pytest.mark.parametrize("status", [400, 500, 503])
def test_what_is_full_is_a_quota_and_passes(number: int, status: int) -> None:
    """Codes of nats-server's errors.json: a full account, a server without memory or disk, a full stream."""
    found = api_error(ApiError(status, number, "resource limits exceeded for account"), "store it")
    assert type(found) is errors.QuotaExceededError
    assert found.retryable
    with pytest.raises(errors.QuotaExceededError):
        read_puback(msgspec.json.encode({"error": {"code": status, "err_code": number, "description": "full"}}), "x")


def test_a_wrong_last_sequence_tells_the_right_one() -> None:
    for code, text, last in ((10071, "wrong last sequence: 57", 57), (10164, "wrong last sequence", 0)):
        error = api_error(ApiError(400, code, text), "x")
        assert isinstance(error, SequenceError)
        assert error.last == last


def test_a_puback_is_read() -> None:
    assert read_puback(b'{"stream":"S","seq":7,"duplicate":true,"domain":"hub"}', "x") == PubAck("S", 7, True)
    with pytest.raises(errors.SequenceError) as refused:
        read_puback(b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}}', "x")
    assert refused.value.last == 3


@pytest.mark.parametrize("payload", [b"", b"+OK", b"[]", b'{"seq":"x"}', b"\xff", b"null"])
def test_what_is_no_puback_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(errors.ProtocolError, match="publish it"):
        read_puback(payload, "publish it")


def test_an_api_answer_is_read() -> None:
    assert read_api(b'{"type":"io.nats","config":{}}', "x") == {"type": "io.nats", "config": {}}
    with pytest.raises(errors.TopologyError) as refused:
        read_api(
            msgspec.json.encode({"error": {"code": 404, "err_code": NO_STREAM, "description": "gone"}}), "stream S"
        )
    assert refused.value.err_code == NO_STREAM


@pytest.mark.parametrize("payload", [b"", b"x", b"[]", b"7"])
def test_what_is_no_api_answer_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(errors.ProtocolError):
        read_api(payload, "stream S")


def test_a_timeout_of_pythons_own_is_a_timeout() -> None:
    assert type(mapped(TimeoutError())) is errors.BrokerTimeoutError


def test_the_specific_class_comes_before_the_general() -> None:
    for number, (theirs, _) in enumerate(NATS_ERRORS):
        for before, _ in NATS_ERRORS[:number]:
            assert not issubclass(theirs, before), f"{theirs.__name__} is never reached"
