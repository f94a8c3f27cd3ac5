"""Bytes to messages and back: what is meant arrives, what is hostile is named and refused."""

import time
from collections.abc import Callable

import msgspec
import pytest

from mesh.errors import InvalidRequestError, ProtocolError, RequestError, TooLargeError, UnsupportedError
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import (
    Delta,
    ErrorInfo,
    Message,
    Presence,
    Request,
    ResponseFormat,
    Result,
    Started,
    StructuredOutputs,
    Timing,
    Usage,
)
from mesh.protocol.subjects import is_token
from mesh.protocol.validate import validate
from tests.unit.protocol.hostile import BODIES

ENCODINGS = ("json", "msgpack")

REQUESTS = [
    Request(prompt="Once upon a time"),
    Request(prompt="Line\nbreak \u2028 and 🦜", id="job-1", max_tokens=1, temperature=0.0, seed=-(2**63), stop="\n\n"),
    Request(messages=[Message(role="system", content=""), Message(role="user", content="Hello")], top_p=0.5, top_k=-1),
    Request(
        prompt_token_ids=[0, 2**31 - 1], stop=["a", "b"], logit_bias={"7": -100.0}, stream=False, session="chat-42"
    ),
    Request(input=["one", "two"], metadata={"team": "search", "deep": {"list": [1, None, 2.5, True]}}),
    Request(prompt="a", response_format=ResponseFormat(type="json_schema", json_schema={"schema": {"type": "object"}})),
    Request(prompt="a", structured_outputs=StructuredOutputs(choice=["yes", "no"]), on_worker_loss="fail", min_p=1.0),
    Request(prompt="a", deadline_unix_ms=2**53, result_ttl_ms=1000, n=1, allowed_token_ids=[5], bad_words=["x"]),
]

RESULT = Result(
    id="job-1",
    tenant="default",
    model="demo",
    status="finished",
    text="there \x00 \U0001f99c",
    finish_reason="stop",
    usage=Usage(prompt_tokens=5, completion_tokens=12, cached_tokens=4),
    attempts=2,
    worker="w-3f",
    timing=Timing(queued_ms=1, first_token_ms=40, total_ms=300),
    created_unix_ms=1_790_000_000_000,
    finished_unix_ms=1_790_000_000_300,
    metadata={"team": "search"},
)
EVENTS = [
    Started(id="j", attempt=1, index=0, worker="w", unix_ms=1, sequence=17),
    Delta(id="j", attempt=1, index=0, text=" there", token_ids=[318]),
    Delta(id="j", attempt=2, index=1, text="", token_ids=[1, 2], finish_reason="length", usage=Usage(prompt_tokens=1)),
    RESULT,
    Result(id="j", tenant="t", model="m", status="failed", text="", error=ErrorInfo(code="internal", message="why")),
    Result(id="j", tenant="t", model="m", status="finished", embeddings=[[0.5, -1.25], [0.0, 3.0]]),
    Result(id="j", tenant="t", model="m", status="finished", object="t.j"),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_a_request_survives_the_way(request_: Request, encoding: Encoding) -> None:
    back = codec.decode_request(codec.encode(request_, encoding), encoding)
    assert back == request_
    validate(back)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("event", EVENTS, ids=range(len(EVENTS)))
def test_an_event_survives_the_way_and_tells_its_encoding_itself(
    event: Delta | Result | Started, encoding: Encoding
) -> None:
    body = codec.encode(event, encoding)
    assert codec.sniff(body) == encoding
    assert codec.decode_event(body) == event
    if isinstance(event, Result):
        assert codec.decode_result(body) == event


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_presence_survives_the_way(encoding: Encoding) -> None:
    presence = Presence(
        worker="w-1",
        model="demo",
        state="ready",
        engine="simulator",
        engine_version="1",
        version="0.1.0",
        host="h",
        pid=7,
        capacity=3,
        running=1,
        lanes=[0, 2],
    )
    assert codec.decode_presence(codec.encode(presence, encoding)) == presence


def test_the_names_on_the_wire_are_those_of_the_protocol() -> None:
    """A change here breaks clients in other languages."""
    fields = msgspec.json.decode(codec.encode(RESULT))
    assert list(fields) == [
        "type",
        "id",
        "tenant",
        "model",
        "status",
        "text",
        "finish_reason",
        "usage",
        "error",
        "attempts",
        "worker",
        "timing",
        "created_unix_ms",
        "finished_unix_ms",
        "metadata",
    ]
    assert fields["type"] == "result"
    assert list(msgspec.json.decode(codec.encode(EVENTS[0]))) == [
        "type",
        "id",
        "attempt",
        "index",
        "worker",
        "unix_ms",
        "sequence",
    ]
    assert msgspec.json.decode(codec.encode(EVENTS[1])) == {
        "type": "delta",
        "id": "j",
        "attempt": 1,
        "index": 0,
        "text": " there",
        "token_ids": [318],
    }


def test_fields_of_a_later_version_are_skipped() -> None:
    later = b'{"prompt": "a", "colour": "red", "future": {"deep": [1, 2, {"x": null}]}}'
    assert codec.decode_request(later, "json") == Request(prompt="a")
    started = b'{"type":"started","id":"j","attempt":1,"index":0,"worker":"w","unix_ms":1,"mood":"good"}'
    assert codec.decode_event(started) == Started(id="j", attempt=1, index=0, worker="w", unix_ms=1)


def test_an_explicit_null_is_as_if_the_field_were_not_there() -> None:
    assert codec.decode_request(b'{"prompt": "a", "max_tokens": null, "seed": null, "tools": null}', "json") == Request(
        prompt="a"
    )


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("", "json"),
        ("application/json", "json"),
        ("application/msgpack", "msgpack"),
        ("application/x-msgpack", "msgpack"),
        ("application/vnd.msgpack", "msgpack"),
    ],
)
def test_the_content_type_names_the_encoding(content_type: str, encoding: Encoding) -> None:
    assert codec.encoding_of(content_type) == encoding


@pytest.mark.parametrize("content_type", ["text/plain", "application/protobuf", "json", "x" * 10_000, "a\r\nb"])
def test_any_other_content_type_is_refused_briefly(content_type: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        codec.encoding_of(content_type)
    assert refused.value.field == "Content-Type"
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused_by_name_and_fast(name: str) -> None:
    encoding, body, field = BODIES[name]
    began = time.thread_time()
    with pytest.raises(RequestError) as refused:
        validate(codec.decode_request(body, encoding))
    took_s = time.thread_time() - began
    assert type(refused.value) in (InvalidRequestError, UnsupportedError, TooLargeError)
    if field is not None:
        assert refused.value.field == field
    assert 0 < len(str(refused.value)) < 500
    assert took_s < 1.0  # of processor time: a body that takes quadratic time needs minutes


@pytest.mark.parametrize("name", BODIES)
def test_what_stands_as_id_in_a_hostile_body_is_a_token_or_nothing(name: str) -> None:
    encoding, body, _ = BODIES[name]
    found = codec.identity_of(body, encoding)
    assert found is None or is_token(found)


def test_the_message_of_a_refusal_starts_small_and_says_what_was_expected() -> None:
    with pytest.raises(InvalidRequestError, match=r"^max_tokens: expected `int"):
        codec.decode_request(b'{"prompt": "a", "max_tokens": "5"}', "json")


@pytest.mark.parametrize(
    ("body", "encoding", "found"),
    [
        (b'{"id": "job-1", "prompt": 7}', "json", "job-1"),
        (b'{"prompt": [], "id": "job-1"}', "json", "job-1"),
        (msgspec.msgpack.encode({"id": "job-1", "max_tokens": "x"}), "msgpack", "job-1"),
        (b'{"id": "a.b"}', "json", None),
        (b'{"id": 7}', "json", None),
        (b'{"id": ["a"]}', "json", None),
        (b'{"id": "job-1", "prompt": ', "json", None),
        (b"", "json", None),
        (b"\x81\xa2id\x81\x80\x01", "msgpack", None),
    ],
)
def test_the_id_of_a_broken_body_is_found_if_it_can_be(body: bytes, encoding: Encoding, found: str | None) -> None:
    assert codec.identity_of(body, encoding) == found


@pytest.mark.parametrize("decode", [codec.decode_event, codec.decode_result, codec.decode_presence, codec.decode_json])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"{}}",
        b'{"type": "other"}',
        b'{"type": 7}',
        b"{" + b'"a":{' * 50_000,
        b"\x81\xa4type\xa5other",
        b"{" + b"9" * 5000,
    ],
)
def test_what_no_worker_says_is_a_protocol_error(decode: Callable[[bytes], object], body: bytes) -> None:
    if decode is codec.decode_json and body in (b'{"type": "other"}', b'{"type": 7}'):
        return  # JSON all the same
    with pytest.raises(ProtocolError):
        decode(body)


@pytest.mark.parametrize("decode", [codec.decode_result, codec.decode_presence])
def test_an_event_of_another_kind_is_not_taken_for_a_result(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(ProtocolError):
        decode(codec.encode(EVENTS[0]))


def test_a_megabyte_of_nested_lists_costs_no_more_than_itself() -> None:
    """Untyped decoding makes 76 MB of one; a field of a known type is refused at its first bracket."""
    import tracemalloc

    body = b'{"prompt": [' + b"[]," * 300_000 + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError):
            codec.decode_request(body, "json")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(body)
