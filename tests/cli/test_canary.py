"""Words that must not come out: of prompts, outputs, sessions, passwords and keys, whatever goes wrong.

Each is unique, and everything the processes write is searched for it: logs at their most talkative, metrics, traces,
pages, command lines, and what the values that hold them say of themselves.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]  # it comes with nats-py, and is not typed either
import pytest
import pytest_asyncio

import mesh as library
from mesh.broker.transport.connection import connect
from mesh.broker.transport.options import ConnectOptions
from mesh.cli.option_values import Nats
from mesh.errors import MeshError
from mesh.server import EmbeddedServer
from tests.cli.collector import collecting
from tests.cli.conftest import Cli, Running, wait_until
from tests.cli.monitored import get, port_of

PROMPT, OUTPUT, SESSION = "CANARY-PROMPT-5b1f", "CANARY-OUTPUT-9c44", "CANARY-SESSION-77e0"
PASSWORD, METADATA = "CANARY-PASSWORD-e3d8", "CANARY-METADATA-1a2b"
USER = "mesh-user"
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def seed(tmp_path: Path) -> str:
    """The seed of an NKey, also in a file that processes are given."""
    made: str = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode()
    (tmp_path / "user.nk").write_text(made)
    return made


@pytest_asyncio.fixture
async def guarded(tmp_path: Path, seed: str) -> AsyncIterator[EmbeddedServer]:
    """A NATS that lets in one user with the password, and one with the key."""
    public = nkeys.from_seed(seed.encode()).public_key.decode()
    users = f'{{user: {USER}, password: "{PASSWORD}"}}, {{nkey: {public}}}'
    server = EmbeddedServer(tmp_path / "nats", extra=f"authorization {{ users: [{users}] }}")
    await server.start()
    yield server
    await server.stop(kill=True)


def options(url: str) -> ConnectOptions:
    return ConnectOptions(servers=(url,), user=USER, password=PASSWORD)


async def trouble(url: str) -> dict[str, str]:
    """Everything that can happen to a request; the statuses."""
    fields: dict[str, Any] = {"session": SESSION, "metadata": {"note": METADATA}}
    found: dict[str, str] = {}
    async with library.connect(options=options(url)) as client:
        for kind in ("plain", "break", "fail", "refuse"):
            job = await client.submit("echo", f"{kind} {PROMPT}", id=kind, **fields)
            found[kind] = (await job.result(60)).status
        streamed = await client.submit("echo", f"plain {PROMPT}", stream=True, **fields)
        found["streamed"] = "".join([delta.text async for delta in streamed])
        long = await client.submit("echo", f"long {PROMPT}", **fields)
        async for _ in long:
            break
        found["cancelled"] = await long.cancel()
        late = await client.submit(
            "echo", f"long {PROMPT}", deadline_unix_ms=time.time_ns() // 1_000_000 + 1500, **fields
        )
        found["expired"] = (await late.result(60)).status
        try:
            await client.submit("echo", f"other {PROMPT}", id="plain")
        except MeshError as error:
            found["conflict"] = type(error).__name__
    async with connect(options(url)) as connection:
        body = json.dumps({"prompt": f"plain {PROMPT}", "metadata": {"note": METADATA}}).encode()
        _, answer = await connection.request("mesh.rpc.default.echo", body, timeout_s=20)
        found["frontdoor"] = "finished" if OUTPUT in answer.decode() else answer.decode()
        await connection.request("mesh.rpc.default.echo", b'{"prompt": "' + PROMPT.encode(), timeout_s=20)
        await connection.request("mesh.req.echo.standard.default.x", PROMPT.encode(), timeout_s=20)
    return found


def command_lines(cli: Cli) -> str:
    found = [Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in cli.processes()]
    assert len(found) >= 2
    return " ".join(found)


def started(mesh: Cli, collector_url: str, log_format: str) -> list[Running]:
    """A worker that comes in with the password and a front door with the key, as talkative as they can be."""
    watched = ("--log-level", "debug", "--log-format", log_format, "--telemetry-port", "0", "--otlp", collector_url)
    engine = ("--engine", "tests.cli.echo_engine:make", "--model", "echo")
    secret = {"MESH_PASSWORD": PASSWORD, "MESH_USER": USER, "MESH_ENGINE_ARG": f"answer={OUTPUT}"}
    worker = mesh.spawn("worker", *engine, *watched, env=secret)
    door = mesh.spawn("frontdoor", "--nkey", "user.nk", *watched)
    for each in (worker, door):
        each.wait_for(" ready: ")
    return [worker, door]


async def test_no_word_of_a_job_and_no_secret_leaves_the_system(
    tmp_path: Path, guarded: EmbeddedServer, seed: str
) -> None:
    cli = Cli(tmp_path, guarded.url)
    try:
        given = {"MESH_USER": USER, "MESH_PASSWORD": PASSWORD}
        assert (await asyncio.to_thread(cli.run, "init", "--apply", env=given)).returncode == 0
        with collecting() as collector:
            running = await asyncio.to_thread(started, cli, collector.url, "json")
            found = await trouble(guarded.url)
            assert found["plain"] == found["frontdoor"] == "finished"
            assert OUTPUT in found["streamed"]
            assert found["break"] == found["fail"] == found["refuse"] == "failed"
            assert (found["cancelled"], found["expired"]) == ("cancelled", "expired")
            assert found["conflict"] == "InvalidRequestError"
            ports = [await asyncio.to_thread(port_of, each) for each in running]
            pages = [
                (await asyncio.to_thread(get, port, path))[1]
                for port in ports
                for path in ("/metrics", "/readyz", "/livez", "/")
            ]
            lines = command_lines(cli)
            wrong = await asyncio.to_thread(
                cli.run, "status", env=given | {"MESH_PASSWORD": PASSWORD + "x", "MESH_DEBUG": "1"}
            )
            assert wrong.returncode == 3
            inside = guarded.url.replace("://", f"://{USER}:{PASSWORD}x@")
            refused = await asyncio.to_thread(cli.run, "status", env={"MESH_NATS": inside, "MESH_DEBUG": "1"})
            assert refused.returncode == 3
            for each in running:
                each.send(signal.SIGTERM)
                assert await asyncio.to_thread(each.wait) == 0
            wait_until(lambda: len(collector.spans) > 10, "the traces arrive")
            traces = b" ".join(collector.bodies).decode("latin-1")
        logs = " ".join(each.out + each.err for each in running)
    finally:
        for each in cli.started:
            each.process.kill()
    nats = Nats((guarded.url,), None, None, USER, PASSWORD, None, None, None, False, "mesh")
    reprs = f"{options(guarded.url)!r} {nats!r} {ConnectOptions(servers=(inside,))!r}"
    written = {
        "logs": logs,
        "pages": " ".join(pages),
        "command lines": lines,
        "traces": traces,
        "errors": wrong.stdout + wrong.stderr + refused.stdout + refused.stderr,
        "reprs": reprs,
    }
    for what, text in written.items():
        assert text.strip(), f"{what} are searched"
        for word in (PROMPT, OUTPUT, SESSION, METADATA, PASSWORD, seed):
            assert word not in text, f"{what} hold {word}: …{text[max(0, text.index(word) - 200) :][:400]}…"
    assert "mesh_jobs_total" in written["pages"]
    assert '"event": "job_ended"' in logs
