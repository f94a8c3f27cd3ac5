"""Whatever bytes arrive: a request, or a refusal that says why; never another exception."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mesh.broker.stores.delivery import read_stored
from mesh.errors import InvalidRequestError, ProtocolError, RequestError
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Delta, Message, Request
from mesh.protocol.subjects import Names, is_token
from mesh.protocol.validate import validate

ENCODING = st.sampled_from(["json", "msgpack"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXT | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
FIELDS = list(Request.__struct_fields__)

requests = st.builds(
    Request,
    id=st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    prompt=TEXT.filter(bool),
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.floats(0, 1, exclude_min=True),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.none() | TEXT.filter(bool) | st.lists(TEXT.filter(bool), max_size=4),
    stop_token_ids=st.none() | IDS,
    logit_bias=st.none() | st.dictionaries(st.integers(0, 10**9).map(str), st.floats(-100, 100), max_size=3),
    session=st.none() | TEXT.filter(bool),
    stream=st.booleans(),
    on_worker_loss=st.sampled_from(["resume", "restart", "fail"]),
    metadata=st.none()
    | st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT, max_size=3),
)


@given(requests, ENCODING)
def test_every_good_request_arrives_as_it_was(request_: Request, encoding: Encoding) -> None:
    body = codec.encode(request_, encoding)
    assert codec.decode_request(body, encoding) == request_
    assert codec.identity_of(body, encoding) == request_.id
    validate(request_)


@given(st.lists(st.builds(Message, role=st.sampled_from(["user", "tool"]), content=TEXT), min_size=1), ENCODING)
def test_every_chat_arrives_as_it_was(messages: list[Message], encoding: Encoding) -> None:
    chat = Request(messages=messages)
    assert codec.decode_request(codec.encode(chat, encoding), encoding) == chat


@given(TEXT, st.lists(st.integers(0, 2**31 - 1)), ENCODING)
def test_every_delta_arrives_as_it_was(text: str, ids: list[int], encoding: Encoding) -> None:
    delta = Delta(id="j", attempt=1, index=3, text=text, token_ids=ids)
    assert codec.decode_event(codec.encode(delta, encoding)) == delta


def judge(body: bytes, encoding: Encoding) -> None:
    with contextlib.suppress(RequestError):
        validate(codec.decode_request(body, encoding))
    found = codec.identity_of(body, encoding)
    assert found is None or is_token(found)
    for decode in (codec.decode_event, codec.decode_result, codec.decode_presence, codec.decode_json):
        with contextlib.suppress(ProtocolError):
            decode(body)


@given(st.binary(max_size=200), ENCODING)
def test_any_bytes_are_a_request_or_refused(body: bytes, encoding: Encoding) -> None:
    judge(body, encoding)


@given(st.dictionaries(st.sampled_from(FIELDS) | TEXT, PLAIN, max_size=5), ENCODING)
def test_any_object_is_a_request_or_refused(fields: dict[str, Any], encoding: Encoding) -> None:
    encode = msgspec.json.encode if encoding == "json" else msgspec.msgpack.encode
    judge(encode(fields), encoding)


@given(requests, ENCODING, st.data())
def test_a_request_with_a_few_bytes_changed_is_a_request_or_refused(
    request_: Request, encoding: Encoding, data: DataObject
) -> None:
    body = bytearray(codec.encode(request_, encoding))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    judge(bytes(body[: data.draw(st.integers(0, len(body)))]), encoding)


@given(st.binary(max_size=100), st.binary(max_size=100), st.text(max_size=30))
def test_any_stored_message_has_an_identity_that_can_be_answered(body: bytes, header: bytes, subject: str) -> None:
    stored = read_stored(Names(), subject, 7, body, header, 5)
    assert is_token(stored.job)
    assert (stored.request is None) == (stored.error is not None)


@given(PLAIN.filter(lambda value: value is not None and not isinstance(value, str)))
def test_a_prompt_that_is_no_text_is_the_prompts_fault(value: object) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        codec.decode_request(msgspec.msgpack.encode({"prompt": value}), "msgpack")
    assert refused.value.field == "prompt"
