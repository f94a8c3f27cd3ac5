"""`mesh frontdoor`: plain NATS requests, answered without a worker in the same process."""

import asyncio
import json
import signal

import nats
from nats.aio.msg import Msg

from tests.cli.conftest import Cli


def ask(url: str, subject: str, body: bytes = b"") -> Msg:
    async def asking() -> Msg:
        client = await nats.connect(url)
        try:
            return await client.request(subject, body, timeout=20)
        finally:
            await client.close()

    return asyncio.run(asking())


def test_it_answers_with_what_workers_without_a_front_door_make(mesh: Cli) -> None:
    door = mesh.spawn("frontdoor")
    assert "mesh.rpc.<tenant>.<model> is answered" in door.wait_for("ready")
    worker = mesh.spawn("worker", "--engine", "simulator", "--name", "demo", "--no-frontdoor")
    worker.wait_for("ready")
    answer = ask(mesh.url, "mesh.rpc.default.demo", b'{"prompt": "Hello", "max_tokens": 4}')
    assert json.loads(answer.data)["status"] == "finished"
    listed = json.loads(ask(mesh.url, "$SRV.INFO.mesh").data)
    assert [each["name"] for each in listed["endpoints"]] in (["generate", "control"], ["control"])
    door.send(signal.SIGTERM)
    assert door.wait() == 0


def test_where_there_is_no_mesh_it_says_what_to_do(cli: Cli) -> None:
    ended = cli.call("frontdoor", "--nats", "nats://127.0.0.1:1")
    assert ended.returncode == 4
    assert "cannot reach NATS" in ended.stderr
