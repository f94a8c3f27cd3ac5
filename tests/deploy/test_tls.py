"""TLS between the mesh and a real nats-server: what is trusted, what is refused, and how soon it is told."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.broker.transport.connection import connect, open_connection
from mesh.broker.transport.options import ConnectOptions
from mesh.broker.transport.tls import check_addresses, is_loopback
from mesh.errors import ConfigError, DisconnectedError, MeshError
from mesh.server import EmbeddedServer
from tests.deploy.pki import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


async def serving(tmp_path: Path, authority: Authority, more: str = "", days_left: int = 1) -> EmbeddedServer:
    pair = authority.issue("nats.test", days_left=days_left)
    extra = f'tls {{ cert_file: "{pair.cert}", key_file: "{pair.key}", ca_file: "{authority.ca}" {more} }}'
    server = EmbeddedServer(tmp_path / "nats", extra=extra)
    await server.start()
    return server


@pytest.fixture
async def tls_server(tmp_path: Path, authority: Authority) -> AsyncIterator[EmbeddedServer]:
    server = await serving(tmp_path, authority)
    yield server
    await server.stop(kill=True)


@pytest.fixture
async def strict_server(tmp_path: Path, authority: Authority) -> AsyncIterator[EmbeddedServer]:
    """It asks for a certificate of the client too."""
    server = await serving(tmp_path, authority, more=", verify: true")
    yield server
    await server.stop(kill=True)


def at(server: EmbeddedServer, scheme: str = "tls", **more: Any) -> ConnectOptions:
    options = ConnectOptions(servers=(server.url.replace("nats://", f"{scheme}://"),), connect_timeout_s=10)
    return replace(options, **more)


async def refused(options: ConnectOptions, match: str, kind: type[MeshError] = ConfigError) -> None:
    """The refusal is told at once, not after the timeout."""
    began_s = time.monotonic()
    with pytest.raises(kind, match=match):
        await open_connection(options)
    assert time.monotonic() - began_s < options.connect_timeout_s / 2


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_with_the_authority_the_connection_is_encrypted(
    tls_server: EmbeddedServer, authority: Authority, scheme: str
) -> None:
    async with connect(at(tls_server, scheme, tls_ca=authority.ca)) as connection:
        await connection.request("$JS.API.INFO")
        assert connection.link._transport._io_writer.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")


async def test_a_certificate_that_nobody_here_vouches_for_is_refused(tls_server: EmbeddedServer) -> None:
    await refused(at(tls_server), "not trusted.*--tls-ca")


async def test_another_authority_is_refused(tls_server: EmbeddedServer, tmp_path: Path) -> None:
    await refused(at(tls_server, tls_ca=Authority(tmp_path / "other").ca), "not trusted")


async def test_a_certificate_of_another_name_is_refused(tls_server: EmbeddedServer, authority: Authority) -> None:
    url = tls_server.url.replace("nats://127.0.0.1", "tls://localhost")
    await refused(ConnectOptions(servers=(url,), tls_ca=authority.ca, connect_timeout_s=10), "not trusted.*localhost")


async def test_a_certificate_that_is_over_is_refused(tmp_path: Path, authority: Authority) -> None:
    server = await serving(tmp_path, authority, days_left=-1)
    try:
        await refused(at(server, tls_ca=authority.ca), "not trusted.*expired")
    finally:
        await server.stop(kill=True)


async def test_with_an_authority_no_server_without_tls_will_do(server: EmbeddedServer, authority: Authority) -> None:
    """An attacker in between could pretend that the server has no TLS."""
    await refused(at(server, "nats", tls_ca=authority.ca), "offers none")


async def test_a_server_may_ask_for_our_certificate_too(strict_server: EmbeddedServer, authority: Authority) -> None:
    ours = authority.issue("worker")
    options = at(strict_server, tls_ca=authority.ca, tls_cert=ours.cert, tls_key=ours.key)
    async with connect(options) as connection:
        await connection.request("$JS.API.INFO")


async def test_cert_and_key_may_be_one_file(
    strict_server: EmbeddedServer, authority: Authority, tmp_path: Path
) -> None:
    ours = authority.issue("worker")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.cert.read_bytes() + ours.key.read_bytes())
    async with connect(at(strict_server, tls_ca=authority.ca, tls_cert=both)) as connection:
        await connection.request("$JS.API.INFO")


async def test_without_it_we_are_told_what_is_missing(strict_server: EmbeddedServer, authority: Authority) -> None:
    await refused(
        at(strict_server, tls_ca=authority.ca), "accepts only clients with a certificate that it trusts.*--tls-cert"
    )


async def test_one_that_the_server_does_not_trust_is_told_too(
    strict_server: EmbeddedServer, authority: Authority, tmp_path: Path
) -> None:
    strange = Authority(tmp_path / "other").issue("worker")
    options = at(strict_server, tls_ca=authority.ca, tls_cert=strange.cert, tls_key=strange.key)
    await refused(options, "--tls-cert")


async def test_the_connection_stays_encrypted_when_it_is_made_again(
    tls_server: EmbeddedServer, authority: Authority
) -> None:
    async with connect(at(tls_server, tls_ca=authority.ca)) as connection:
        await tls_server.stop(kill=True)
        await tls_server.start()
        await connection.wait_connected(10)
        await connection.request("$JS.API.INFO")
        assert connection.link._transport._io_writer.get_extra_info("ssl_object") is not None


def _nowhere(authority: Authority, tmp_path: Path) -> tuple[dict[str, Any], str]:
    return {"tls_ca": tmp_path / "nowhere.crt"}, r"--tls-ca .*nowhere\.crt cannot be read: No such file"


def _garbage(authority: Authority, tmp_path: Path) -> tuple[dict[str, Any], str]:
    (tmp_path / "garbage.crt").write_text("not a certificate")
    return {"tls_ca": tmp_path / "garbage.crt"}, "--tls-ca .*garbage.crt holds no certificate"


def _folder(authority: Authority, tmp_path: Path) -> tuple[dict[str, Any], str]:
    return {"tls_ca": tmp_path}, "cannot be read: Is a directory"


def _key_of_another(authority: Authority, tmp_path: Path) -> tuple[dict[str, Any], str]:
    one, other = authority.issue("one"), authority.issue("other")
    return {"tls_cert": one.cert, "tls_key": other.key}, "--tls-cert: .*one.crt and .*other.key do not hold"


def _key_alone(authority: Authority, tmp_path: Path) -> tuple[dict[str, Any], str]:
    return {"tls_key": authority.issue("one").key}, "give that too, with --tls-cert"


def _no_key(authority: Authority, tmp_path: Path) -> tuple[dict[str, Any], str]:
    return {"tls_cert": authority.issue("one").cert}, "--tls-cert: .*one.crt do not hold"


@pytest.mark.parametrize("made", [_nowhere, _garbage, _folder, _key_of_another, _key_alone, _no_key])
async def test_a_file_that_cannot_be_used_is_named(
    authority: Authority, tmp_path: Path, made: Callable[[Authority, Path], tuple[dict[str, Any], str]]
) -> None:
    files, match = made(authority, tmp_path)
    with pytest.raises(ConfigError, match=match):
        await open_connection(ConnectOptions(servers=("tls://127.0.0.1:1",), **files))


@pytest.mark.parametrize(
    "server",
    [
        "nats://10.0.0.5:4222",
        "nats://nats.example",
        "10.0.0.5",
        "nats.example:4222",
        "nats://u:p@[fd00::5]:4222",
        "ws://10.0.0.5:80",
        "nats://0.0.0.0:4222",
        "nats://127.0.0.1.example:4222",
        "nats://localhost.example",
    ],
)
async def test_clear_text_to_another_machine_is_refused_before_anything_is_sent(server: str) -> None:
    options = ConnectOptions(servers=("nats://127.0.0.1:4222", server), password="hunter2")
    with pytest.raises(ConfigError, match="clear text") as refusal:
        await open_connection(options)
    assert "u:p" not in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "server", ["nats://127.0.0.1:4222", "nats://localhost:4222", "nats://[::1]:4222", "127.8.8.8", "tls://10.0.0.5"]
)
def test_loopback_and_tls_need_no_permission(server: str) -> None:
    check_addresses(ConnectOptions(servers=(server,)))


async def test_clear_text_that_is_allowed_is_tried(authority: Authority) -> None:
    with pytest.raises(DisconnectedError):
        await open_connection(
            ConnectOptions(servers=("nats://0.0.0.0:1",), allow_plaintext=True, connect_timeout_s=0.3)
        )


def test_an_authority_makes_any_address_safe_but_a_plain_websocket(authority: Authority) -> None:
    check_addresses(ConnectOptions(servers=("nats://10.0.0.5:4222",), tls_ca=authority.ca))
    with pytest.raises(ConfigError, match="wss"):
        check_addresses(ConnectOptions(servers=("ws://10.0.0.5:80",), tls_ca=authority.ca, allow_plaintext=True))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.1.example", False), ("", False), ("::", False)],
)
def test_loopback_is_told_from_what_looks_like_it(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
