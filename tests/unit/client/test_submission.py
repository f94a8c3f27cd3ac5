"""Whether two requests of one id ask for the same."""

import pytest

from mesh.broker.stores.delivery import StoredRequest, read_stored
from mesh.client.submission import SentRequest
from mesh.errors import InvalidRequestError
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Message, Request, Result
from mesh.protocol.subjects import Names

FIRST = Request(id="j", prompt="Hello", max_tokens=4, metadata={"x": float("nan"), "y": b"\0", "z": [1, 2.5, None]})


def asked(request: Request, encoding: codec.Encoding = "json", model: str = "m") -> SentRequest:
    return SentRequest("j", model, codec.encode(request, encoding), encoding)


def stored(body: bytes, encoding: codec.Encoding = "json") -> StoredRequest:
    header = f"NATS/1.0\r\nContent-Type: application/{encoding}\r\n\r\n".encode()
    return read_stored(Names(), "mesh.req.m.standard.t.0", 1, body, header, stored_unix_ms=1)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_request_sent_again_is_the_same(encoding: Encoding) -> None:
    again = asked(FIRST, encoding)
    again.check_same(stored(again.body, encoding))
    reordered = codec.encode({"metadata": FIRST.metadata, "max_tokens": 4, "prompt": "Hello", "id": "j"}, encoding)
    again.check_same(stored(reordered, encoding))
    result = Result(id="j", tenant="t", model="m", status="finished", metadata=FIRST.metadata)
    again.check_result(codec.decode_result(codec.encode(result, encoding)))


def test_the_encoding_is_not_what_is_asked() -> None:
    plain = Request(id="j", messages=[Message(role="user", content="Hi")], temperature=0)
    asked(plain).check_same(stored(codec.encode(plain, "msgpack"), "msgpack"))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"id": "j", "prompt": "Other"}', "prompt"),
        (b'{"id": "j", "prompt_token_ids": [1]}', "prompt"),
        (b'{"id": "j", "prompt": "Hello", "max_tokens": 4}', "metadata"),
        (b'{"id": "j", "prompt": 5}', "body"),
        (b"", "body"),
    ],
)
def test_what_asks_for_something_else_is_named(body: bytes, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"another {field}") as refused:
        asked(FIRST).check_same(stored(body))
    assert refused.value.field == "id"


def test_another_model_is_something_else() -> None:
    with pytest.raises(InvalidRequestError, match="another model"):
        asked(FIRST, model="n").check_same(stored(codec.encode(FIRST)))
    with pytest.raises(InvalidRequestError, match="another model"):
        asked(FIRST, model="n").check_result(Result(id="j", tenant="t", model="m", status="finished"))
