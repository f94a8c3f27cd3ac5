"""Requesters at the front door that lose their connection, ask again, share a job, or cannot be told apart."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.broker.transport.service import Endpoint, Service, ServiceRequest
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.gateway import clients as clients_module
from mesh.gateway.clients import Clients
from mesh.gateway.nats import requester as requester_module
from mesh.gateway.nats.requester import Requester
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from tests.running import present, running_mesh, wait_until

RPC = "mesh.rpc.default.simulator"
SLOW = SimulatorSettings(model="simulator", between_tokens_ms=20)
pytestmark = pytest.mark.timeout(60)


class Reader:
    """A stream with a subscription of its own."""

    def __init__(self, client: nats.NATS) -> None:
        self.client = client
        self.events: list[dict[str, Any]] = []
        self.ended = asyncio.Event()

    async def ask(self, body: dict[str, Any]) -> "Reader":
        inbox = self.client.new_inbox()
        await self.client.subscribe(inbox, cb=self._heard)
        await self.client.publish(RPC, json.dumps({**body, "stream": True}).encode(), reply=inbox)
        return self

    async def _heard(self, message: Msg) -> None:
        if message.data:
            self.events.append(json.loads(message.data))
        else:
            self.ended.set()

    def has_begun(self) -> bool:
        return any(event["type"] == "delta" for event in self.events)

    async def status(self) -> str:
        await asyncio.wait_for(self.ended.wait(), 40)
        return str(self.events[-1]["status"])


async def test_who_asks_again_after_a_break_gets_the_job_and_not_its_end(tmp_path: Path) -> None:
    """That the first requester is gone is noticed when the second one waits already."""
    async with running_mesh(tmp_path / "nats") as mesh:
        for _ in range(2):
            await mesh.start_worker(SLOW)
        body = {"id": "again", "prompt": "Hello", "max_tokens": 300}
        first = await Reader(await nats.connect(mesh.url)).ask(body)
        await wait_until(first.has_begun)
        await first.client.close()
        client = await nats.connect(mesh.url)
        again = [await Reader(client).ask(body) for _ in range(3)]
        assert [await each.status() for each in again] == ["finished"] * 3
        await client.close()


async def test_a_second_request_of_an_id_that_nats_forgot_does_not_end_the_first(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1, duplicate_window_s=1)) as mesh:
        await mesh.start_worker(SLOW)
        body = {"id": "shared", "prompt": "Hello", "max_tokens": 400, "on_disconnect": "finish"}
        first = await Reader(await nats.connect(mesh.url)).ask(body)
        await wait_until(lambda: len(first.events) > 100)  # two seconds
        first_client, second = first.client, await nats.connect(mesh.url)
        await first_client.close()
        reading = await Reader(second).ask({**body, "on_disconnect": "cancel"})
        await wait_until(reading.has_begun)
        await second.close()

        async def ended() -> bool:
            return await mesh.result("shared") is not None

        await wait_until(ended, 20)
        assert present(await mesh.result("shared")).status == "finished"


@pytest.mark.parametrize("streams", [True, False], ids=["stream", "unary"])
async def test_a_requester_that_connects_again_two_seconds_later_is_answered(tmp_path: Path, streams: bool) -> None:
    """As long as nats-py, Go and Node wait before they try a server again."""
    async with running_mesh(tmp_path / "nats") as mesh:
        worker = await mesh.start_worker(SLOW)
        client = await nats.connect(mesh.url, reconnect_time_wait=2, max_reconnect_attempts=-1)
        body = {"id": "cut", "prompt": "Hello", "max_tokens": 60}  # it ends before
        if streams:
            reader = await Reader(client).ask(body)
        else:
            asking = asyncio.create_task(client.request(RPC, json.dumps(body).encode(), timeout=30))
        await wait_until(lambda: worker.statistics().running == 1)
        await mesh.server.stop(kill=True)
        await mesh.server.start()
        status = await reader.status() if streams else json.loads((await asking).data)["status"]
        await client.close()
    assert status == "finished"


async def test_an_answer_that_is_ready_before_its_requester_is_back_waits_for_it(server: EmbeddedServer) -> None:
    async with connect(ConnectOptions(servers=(server.url,), name="test")) as connection:
        requests: list[ServiceRequest] = []
        endpoint = Endpoint("generate", "mesh.rpc.>", "q", requests.append, {})
        service = Service(Broker(connection, Names()), "w", (endpoint,))
        client = await nats.connect(server.url, reconnect_time_wait=1.5, max_reconnect_attempts=-1)
        asking = [asyncio.create_task(client.request("mesh.rpc.a.b", b"", timeout=20)) for _ in range(2)]
        await wait_until(lambda: len(requests) == 2)
        await server.stop(kill=True)
        answering = [requests[0].respond_last(b"here"), requests[1].refuse_last(503, "not now")]
        waiting = asyncio.gather(*answering)
        await server.start()
        answers = [await each for each in asking]
        assert sorted(answer.data for answer in answers) == [b"", b"here"]
        assert sorted((answer.headers or {}).get("Nats-Service-Error-Code", "") for answer in answers) == ["", "503"]
        await waiting
        await client.close()
        service.close()


async def test_somebody_who_listened_to_everything_takes_no_requester_with_him(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        worker = await mesh.start_worker(SLOW)
        client, watcher = await nats.connect(mesh.url), await nats.connect(mesh.url)
        probes: list[Msg] = []

        async def heard(message: Msg) -> None:
            if message.subject.endswith(".mesh-probe"):
                probes.append(message)

        await watcher.subscribe(">", cb=heard)
        await watcher.flush()
        body = b'{"prompt": "a", "max_tokens": 350}'
        inbox = "_INBOX.mine.1"
        answer = await client.subscribe(inbox)
        await client.publish(RPC, body, reply=inbox)
        await client.publish(RPC, body, reply="_INBOX.2")
        other = await client.subscribe("_INBOX.2")
        await wait_until(lambda: worker.statistics().running == 2)
        await wait_until(lambda: len(probes) >= 3)
        await watcher.close()
        results = [json.loads((await each.next_msg(timeout=30)).data) for each in (answer, other)]
        await client.close()
    assert [result["status"] for result in results] == ["finished", "finished"]


async def test_a_slow_server_makes_no_requester_go_away(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer within the time is no proof that somebody heard the question."""
    monkeypatch.setattr(requester_module, "LOOK_S", 0.05)
    monkeypatch.setattr(requester_module, "REQUESTER_GONE_S", 0.2)
    async with connect(ConnectOptions(servers=(server.url,), name="test")) as connection:
        client = await nats.connect(server.url)
        await client.subscribe("_INBOX.mine.1")
        await client.flush()
        gone: list[bool] = []
        pid = int((server.store / "nats-server.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        requester = Requester(connection, "_INBOX.mine.1", lambda: gone.append(True))
        await wait_until(lambda: " 0 calls" not in repr(connection))
        await wait_until(lambda: " 0 calls" in repr(connection))  # both questions timed out
        os.kill(pid, signal.SIGCONT)
        await wait_until(lambda: gone or requester._timer.cancelled())
        requester.close()
        await client.close()
    assert not gone


async def test_a_reply_subject_that_is_too_long_costs_nobody_the_connection(tmp_path: Path) -> None:
    """The server bounds a line: what is sent to a long subject, with an inbox beside it, may not fit."""
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW)
        client = await nats.connect(mesh.url)
        body = b'{"prompt": "a", "max_tokens": 100, "stream": true}'
        await client.publish(RPC, body, reply="x.y." + "r" * 4057)
        answer = await client.request(RPC, b'{"prompt": "a", "max_tokens": 60}', timeout=20)
        await client.close()
        log = "".join(each.read_text() for each in (tmp_path / "nats").glob("*.log"))
    assert json.loads(answer.data)["status"] == "finished"
    assert "maximum control line exceeded" not in log


async def test_a_client_that_is_in_use_is_not_put_away(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, "MAX_IDLE", 2)
    clients = Clients(Broker(connection, Names()))
    used = clients.get("used", "json")
    for number in range(5):
        clients.get(f"t{number}", "json")
        clients.release(f"t{number}", "json")
    assert clients.get("used", "json") is used
    assert len(clients) == 2
    await clients.close()
