"""The telemetry port against whoever connects to it: one page, in bounded time and memory, and nothing breaks."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from mesh.errors import ConfigError
from mesh.telemetry import endpoint
from mesh.telemetry.pages import MOST_HEAD_BYTES, Page
from tests.running import wait_until


async def hello() -> Page:
    return Page(200, b"hello\n")


async def broken() -> Page:
    raise ValueError("a fault of the page")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with endpoint.opened("127.0.0.1", 0, {"/hello": hello, "/broken": broken}) as opened:
        yield opened.port


async def ask(port: int, request: bytes) -> bytes:
    """Everything that comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


async def test_a_page_is_answered_and_the_connection_closed(port: int) -> None:
    answer = await ask(port, get("/hello"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhello\n")


async def test_an_unknown_path_names_those_there_are(port: int) -> None:
    answer = await ask(port, get("/"))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"/hello" in answer


async def test_a_page_that_breaks_is_a_500_without_the_reason(port: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = await ask(port, get("/broken"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"a fault" not in answer
    assert "a fault of the page" in caplog.text


async def test_a_body_is_not_waited_for(port: int) -> None:
    answer = await ask(port, b"POST /hello HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nhalf of it")
    assert answer.startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x00\xff\x16\x03 nonsense\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nX: " + b"a" * (MOST_HEAD_BYTES * 2) + b"\r\n\r\n", 431),
        (b"x" * (MOST_HEAD_BYTES * 4), 431),
    ],
)
async def test_garbage_and_huge_heads_are_refused(port: int, request_bytes: bytes, status: int) -> None:
    answer = await ask(port, request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_half_a_request_that_ends_is_refused(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /hel")
    writer.write_eof()
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_who_sends_too_slowly_is_shown_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "HEAD_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /hello HTTP/1.1\r\n")
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_who_takes_no_answer_is_shown_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "HEAD_S", 0.3)
    monkeypatch.setattr(endpoint, "ANSWER_S", 0.2)

    async def huge() -> Page:
        return Page(200, bytes(50 << 20))

    async with endpoint.opened("127.0.0.1", 0, {"/huge": huge}) as opened:
        _, writer = await asyncio.open_connection("127.0.0.1", opened.port, limit=1024)
        writer.write(get("/huge"))
        await wait_until(lambda: opened.visitors == 1)
        await wait_until(lambda: opened.visitors == 0)
        writer.close()


async def test_many_who_say_nothing_do_not_keep_a_probe_out(port: int) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(endpoint.MOST_VISITORS * 2)]
    assert (await ask(port, get("/hello"))).startswith(b"HTTP/1.1 200 ")
    for _, writer in silent:
        writer.close()


async def test_as_many_as_may_come_at_once_are_all_answered(port: int) -> None:
    answers = await asyncio.gather(*(ask(port, get("/hello")) for _ in range(endpoint.MOST_VISITORS)))
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


async def test_a_port_that_is_taken_is_a_setting_that_cannot_be_used(port: int) -> None:
    with pytest.raises(ConfigError, match="cannot be listened on") as refused:
        async with endpoint.opened("127.0.0.1", port, {}):
            pass
    assert refused.value.key == "telemetry-port"


async def test_an_address_that_is_none_is_a_setting_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="cannot be listened on"):
        async with endpoint.opened("no.such.host.invalid", 0, {}):
            pass


async def test_the_port_is_free_once_it_is_closed() -> None:
    async with endpoint.opened("127.0.0.1", 0, {"/hello": hello}) as opened:
        port = opened.port
        await ask(port, get("/hello"))
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_ipv6_is_spoken_where_it_is_there() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("needs IPv6")
    async with endpoint.opened("::1", 0, {"/hello": hello}) as opened:
        reader, writer = await asyncio.open_connection("::1", opened.port)
        writer.write(get("/hello"))
        assert b"hello" in await reader.read()
        writer.close()
