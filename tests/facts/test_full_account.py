"""What nats-server says of an account that is full, and that the mesh calls it a quota."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.mapping import read_api, read_puback
from mesh.broker.transport.options import ConnectOptions
from mesh.errors import QuotaExceededError
from mesh.server import embedded_server

ACCOUNT = """
accounts { A: { jetstream: { max_file: 65536, max_mem: 65536 }, users: [ { user: a, password: a } ] } }
no_auth_user: a
"""


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Connection]:
    """A connection to an account of 64 KiB."""
    async with (
        embedded_server(tmp_path / "nats", extra=ACCOUNT) as server,
        connect(ConnectOptions(servers=(server.url,), name="test")) as connected,
    ):
        yield connected


async def create(account: Connection, **config: object) -> None:
    body = msgspec.json.encode({"name": "S", "subjects": ["s"], "storage": "file", **config})
    _, payload = await account.request("$JS.API.STREAM.CREATE.S", body)
    read_api(payload, "create S")


async def fill(account: Connection) -> None:
    for _ in range(200):
        _, payload = await account.request("s", b"x" * 1024)
        read_puback(payload, "publish")


async def test_a_publish_into_a_full_account_is_refused_for_its_quota(account: Connection) -> None:
    await create(account)
    with pytest.raises(QuotaExceededError, match="JetStream 10002"):
        await fill(account)


@pytest.mark.parametrize(("storage", "code"), [("file", 10047), ("memory", 10028)])
async def test_a_stream_larger_than_the_account_is_refused_for_its_quota(
    account: Connection, storage: str, code: int
) -> None:
    with pytest.raises(QuotaExceededError, match=f"JetStream {code}"):
        await create(account, storage=storage, max_bytes=1 << 20)
