"""Connections that cannot be made, or that NATS ends for good, and a journal that somebody else wrote into."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh.broker.transport.connection import Connection, connect, open_connection
from mesh.broker.transport.nats_client import NatsClient
from mesh.broker.transport.options import ConnectOptions
from mesh.errors import ConfigError, DisconnectedError, MeshError, UnauthorizedError
from mesh.server import EmbeddedServer, free_port
from tests.running import RunningMesh, wait_until


def revivers() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "mesh-revive"]


async def test_a_connection_that_could_not_be_opened_leaves_no_task() -> None:
    with pytest.raises(DisconnectedError):
        await open_connection(ConnectOptions(servers=(f"nats://127.0.0.1:{free_port()}",), connect_timeout_s=0.2))
    assert revivers() == []


def has_left(connection: Connection, link: NatsClient) -> bool:
    return connection.link is not link


async def test_one_task_at_a_time_revives_a_closed_connection(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.broker.transport.connection.FIRST_CONNECT_S", 0.1)
    connection = await open_connection(ConnectOptions(servers=(server.url,)))
    await connection.link.close()  # as nats-py does on an expired user or a protocol error
    await server.stop(kill=True)
    first = connection.link
    await wait_until(lambda: connection.link is not first)
    for _ in range(3):  # three links later there is still one reviver
        await wait_until(partial(has_left, connection, connection.link))
        assert len(revivers()) == 1
    await connection.close()
    assert revivers() == []


async def test_waiting_for_a_connection_that_just_broke_waits(connection: Connection, server: EmbeddedServer) -> None:
    await server.stop(kill=True)
    await wait_until(lambda: not connection.is_connected)
    with pytest.raises(DisconnectedError):
        await connection.wait_connected(0.05)


async def test_a_wrong_password_is_unauthorized_and_quick(tmp_path: Path) -> None:
    guarded = EmbeddedServer(tmp_path / "g", extra="authorization { users: [ {user: a, password: b} ] }")
    await guarded.start()
    began = time.monotonic()
    try:
        with pytest.raises(UnauthorizedError):
            await open_connection(ConnectOptions(servers=(guarded.url,), user="a", password="wrong"))
        assert time.monotonic() - began < 2
    finally:
        await guarded.stop(kill=True)


async def test_tls_is_not_silently_left_out(server: EmbeddedServer) -> None:
    with pytest.raises(ConfigError, match="tls"):
        async with connect(ConnectOptions(servers=(server.url.replace("nats://", "tls://"),), connect_timeout_s=1)):
            pass


async def test_a_journal_somebody_else_wrote_into_holds_no_slot_for_ever(mesh: RunningMesh) -> None:
    """Before its job is submitted, somebody of the account publishes to the job's subject."""
    mesh.connection.publish("mesh.out.default.j", b"garbage")
    await mesh.connection.request("$JS.API.INFO")
    async with mesh_api.connect(mesh.url) as client:
        result = await (await client.submit("simulator", "a", max_tokens=3, id="j")).result(timeout=15)
    assert result.status == "finished"
    await wait_until(lambda: mesh.workers[0].statistics().running == 0, 5)


@pytest.mark.parametrize("address", ["nats://", "nats://h:port", "http://127.0.0.1"])
async def test_a_bad_address_is_one_of_our_errors(address: str) -> None:
    with pytest.raises(MeshError):
        await open_connection(ConnectOptions(servers=(address,), connect_timeout_s=0.3))


async def test_an_nkey_file_of_garbage_is_one_of_our_errors(server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "x.nk").write_text("not a seed")
    with pytest.raises(MeshError):
        await open_connection(ConnectOptions(servers=(server.url,), connect_timeout_s=0.3, nkey_seed=tmp_path / "x.nk"))
