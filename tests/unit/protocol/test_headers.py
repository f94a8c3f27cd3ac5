"""Header blocks, as bytes."""

from typing import Any

import pytest

from mesh.protocol import headers


def test_a_block_is_as_the_server_wants_it() -> None:
    assert headers.block(("Nats-Msg-Id", "t.j"), ("Mesh-Attempts", 3)) == (
        b"NATS/1.0\r\nNats-Msg-Id: t.j\r\nMesh-Attempts: 3\r\n\r\n"
    )
    assert headers.block() == b"NATS/1.0\r\n\r\n"


def test_a_fence_is_a_block_with_its_lines_behind_it() -> None:
    line = headers.line("Content-Type", headers.MSGPACK)
    assert line == b"Content-Type: application/msgpack\r\n"
    assert headers.expecting(7, line) == headers.block(
        ("Nats-Expected-Last-Subject-Sequence", 7), ("Content-Type", "application/msgpack")
    )
    assert headers.expecting(0) == headers.block(("Nats-Expected-Last-Subject-Sequence", 0))


@pytest.mark.parametrize("bad", ["a\r\nNats-Rollup: all", "a\nb", "a\rb", "\r\n", "end\n"])
def test_a_value_cannot_forge_another_header(bad: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        headers.block(("traceparent", bad))
    with pytest.raises(ValueError, match="line break"):
        headers.block((bad, "x"))
    with pytest.raises(ValueError, match="line break"):
        headers.line("x", bad)


@pytest.mark.parametrize(
    ("raw", "status", "found"),
    [
        (b"", 0, {}),
        (b"NATS/1.0\r\n\r\n", 0, {}),
        (b"NATS/1.0 503\r\n\r\n", 503, {"Status": "503"}),
        (b"NATS/1.0 404 No Messages\r\n\r\n", 404, {"Status": "404", "Description": "No Messages"}),
        (b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 3\r\n\r\n", 204, None),
        (b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", 100, None),
        (b"NATS/1.0 4x4\r\n\r\n", 0, None),
        (b"NATS/1.0", 0, {}),
    ],
)
def test_an_inline_status_is_read(raw: bytes, status: int, found: dict[str, Any] | None) -> None:
    assert headers.status(raw) == status
    if found is not None:
        assert headers.parse(raw) == found


def test_a_header_called_status_is_no_status() -> None:
    """Anybody can send a header of that name; only the server writes the first line."""
    raw = headers.block(("Status", "404"), ("Description", "No Messages"))
    assert headers.status(raw) == 0
    assert headers.parse(raw)["Status"] == "404"


def test_a_header_called_status_cannot_hide_the_servers() -> None:
    raw = b"NATS/1.0 503 gone\r\nStatus: 200\r\nDescription: fine\r\n\r\n"
    assert headers.parse(raw) == {"Status": "503", "Description": "gone"}


@pytest.mark.parametrize(
    ("value", "media"),
    [
        ("application/json", "application/json"),
        ("Application/MsgPack", "application/msgpack"),
        ("application/json; charset=utf-8", "application/json"),
        (" application/json ;x", "application/json"),
        ("", ""),
    ],
)
def test_the_media_type_is_read_without_its_parameters(value: str, media: str) -> None:
    assert headers.media_type(value) == media


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe", b"NATS", b"NATS/1.0\r\nno colon\r\n\r\n", b"NATS/1.0\r\n: x\r\n\r\n", b":::"]
)
def test_garbage_is_read_without_a_fuss(raw: bytes) -> None:
    headers.parse(raw)
    headers.status(raw)
