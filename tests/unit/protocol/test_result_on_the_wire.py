"""A Result always reads as text and vectors; on the wire exactly one of text, embeddings and object stands."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mesh.errors import ProtocolError
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import JobStatus, Result

OUTPUTS = {
    "text": ({"text": "Hello"}, {"text": "Hello"}),
    "no text": ({}, {"text": ""}),
    "vectors": ({"embeddings": [[1.0, 2.0]]}, {"embeddings": [[1.0, 2.0]]}),
    "no vectors": ({"embeddings": []}, {"embeddings": []}),
    "kept elsewhere": ({"object": "t.j.1"}, {"object": "t.j.1"}),
}
DECODE: dict[Encoding, Callable[[bytes], dict[str, Any]]] = {
    "json": msgspec.json.decode,
    "msgpack": msgspec.msgpack.decode,
}


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize(("given", "sent"), OUTPUTS.values(), ids=OUTPUTS)
def test_a_result_carries_its_output_in_one_field_and_reads_back_the_same(
    given: dict[str, Any], sent: dict[str, Any], encoding: Encoding
) -> None:
    result = Result(id="j", tenant="t", model="m", status="finished", **given)
    body = codec.encode(result, encoding)
    fields = DECODE[encoding](body)
    assert {name: fields[name] for name in ("text", "embeddings", "object") if name in fields} == sent
    assert list(fields)[:5] == ["type", "id", "tenant", "model", "status"]
    assert codec.decode_result(body) == codec.decode_event(body) == result
    assert isinstance(codec.decode_result(body).text, str)


def test_a_status_of_a_newer_mesh_is_read() -> None:
    body = b'{"id": "j", "status": "parked", "attempt": 1, "index": 2, "worker": "w", "parked_unix_ms": 5}'
    assert codec.decode_status(body) == JobStatus(id="j", status="parked", attempt=1, index=2, worker="w")
    assert codec.decode_status(b'{"id": "j", "status": "cancelled"}') == JobStatus(id="j", status="cancelled")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"id": "j", "status": 5}', b"\xff"])
def test_an_answer_that_is_no_status_is_an_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode_status(body)
