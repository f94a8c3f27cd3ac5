"""A client that knows only the protocol: plain nats-py and json, nothing of ours.

If this passes, a client in any language can be written from nats/PROTOCOL.md.
"""

import asyncio
import json
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.msg import Msg

from mesh.server import EmbeddedServer
from tests.running import RunningMesh, wait_until


async def connect(server: EmbeddedServer) -> nats.NATS:
    return await nats.connect(server.url)


class Reader:
    """One subscription, one job's events in the order they came."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def heard(self, message: Msg) -> None:
        decode = json.loads if message.data[:1] == b"{" else msgspec.msgpack.decode
        self.events.append(decode(message.data))
        if self.events[-1]["type"] == "result" and not self.done.done():
            self.done.set_result(self.events[-1])

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def check(self) -> str:
        """The text of the deltas, after checking that the history is gapless and ends once."""
        assert self.types[0] == "started"
        assert self.types.count("result") == 1
        assert self.types[-1] == "result"
        index, text = 0, ""
        for event in self.events:
            if event["type"] == "delta":
                assert event["index"] == index
                assert len(event["token_ids"]) >= 1
                index += len(event["token_ids"])
                text += event["text"]
        return text


async def submit(
    client: nats.NATS,
    job: str,
    body: dict[str, Any],
    *,
    subject: str = "mesh.req.simulator.standard.default.any",
    msgpack: bool = False,
) -> tuple[Reader, dict[str, Any]]:
    """Publish a request as the protocol says, and read its events."""
    reader = Reader()
    await client.subscribe(f"mesh.out.default.{job}", cb=reader.heard)
    headers = {"Nats-Msg-Id": f"default.{job}"}
    if msgpack:
        headers["Content-Type"] = "application/msgpack"
    payload = msgspec.msgpack.encode(body) if msgpack else json.dumps(body).encode()
    answer = await client.request(subject, payload, timeout=5, headers=headers)
    ack = json.loads(answer.data)
    assert ack["stream"] == "MESH_REQUESTS"
    return reader, ack


async def stored_result(client: nats.NATS, job: str) -> bytes:
    subject = f"$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.default.{job}"
    answer = await client.request(subject, b"", timeout=5)
    return bytes(answer.data)


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
async def test_submit_stream_and_stored_result(mesh: RunningMesh, msgpack: bool) -> None:
    client = await connect(mesh.server)
    body = {"id": "job-1", "prompt": "Once upon a time", "max_tokens": 24, "metadata": {"team": "search"}}
    reader, _ = await submit(client, "job-1", body, msgpack=msgpack)
    result = await asyncio.wait_for(reader.done, 10)

    assert reader.check() == result["text"]
    assert result["status"] == "finished"
    assert result["finish_reason"] == "length"
    assert result["usage"]["completion_tokens"] == 24
    assert result["metadata"] == {"team": "search"}
    assert result["error"] is None
    raw = await stored_result(client, "job-1")
    assert (msgspec.msgpack.decode(raw) if msgpack else json.loads(raw)) == result
    await client.close()


async def test_a_bare_publish_finds_its_result_by_the_stream_sequence(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    answer = await client.request("mesh.req.simulator.batch.default.x", b'{"prompt": "hi", "max_tokens": 3}', timeout=5)
    job = f"s{json.loads(answer.data)['seq']}"
    for _ in range(200):
        raw = await stored_result(client, job)
        if raw:
            break
        await asyncio.sleep(0.02)
    assert json.loads(raw)["status"] == "finished"
    assert json.loads(raw)["id"] == job
    await client.close()


async def test_without_stream_only_the_result_event_is_sent(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    reader, _ = await submit(client, "quiet", {"id": "quiet", "prompt": "hi", "max_tokens": 5, "stream": False})
    await asyncio.wait_for(reader.done, 10)
    assert reader.types == ["result"]
    await client.close()


async def test_embeddings(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    reader, _ = await submit(client, "vec", {"id": "vec", "input": ["one", "two"]})
    result = await asyncio.wait_for(reader.done, 10)
    assert len(result["embeddings"]) == 2
    assert "text" not in result
    await client.close()


async def test_a_second_request_with_a_known_id_is_not_run_again(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    body = {"id": "same", "prompt": "hi", "max_tokens": 8}
    reader, first = await submit(client, "same", body)
    await asyncio.wait_for(reader.done, 10)
    again = await client.request(
        "mesh.req.simulator.standard.default.any",
        json.dumps(body).encode(),
        timeout=5,
        headers={"Nats-Msg-Id": "default.same"},
    )
    assert json.loads(again.data)["seq"] == first["seq"]
    # Without the header JetStream stores it; the worker finds the Result and does not run it.
    await client.request("mesh.req.simulator.standard.default.any", json.dumps(body).encode(), timeout=5)
    await mesh.wait_queue_empty()
    history = await mesh.history("same")
    assert [type(event).__name__ for event in history].count("Result") == 1
    assert len([event for event in history if type(event).__name__ == "Started"]) <= 2
    await client.close()


async def test_three_hundred_streams_at_once(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    readers = await asyncio.gather(
        *(
            submit(
                client, f"many-{n}", {"id": f"many-{n}", "prompt": f"story {n}", "max_tokens": 16}, msgpack=n % 2 == 1
            )
            for n in range(300)
        )
    )
    results = await asyncio.wait_for(asyncio.gather(*(reader.done for reader, _ in readers)), 40)
    for (reader, _), result in zip(readers, results, strict=True):
        assert reader.check() == result["text"]
        assert result["status"] == "finished"
    assert len({result["id"] for result in results}) == 300
    await client.close()


BAD_BODIES = {
    "empty": (b"", "invalid_request"),
    "truncated": (b'{"prompt": "a', "invalid_request"),
    "an array": (b"[1, 2]", "invalid_request"),
    "a string": (b'"prompt"', "invalid_request"),
    "wrong type": (b'{"prompt": 5}', "invalid_request"),
    "two inputs": (b'{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}', "invalid_request"),
    "no input": (b'{"max_tokens": 5}', "invalid_request"),
    "unknown role": (b'{"messages": [{"role": "wizard", "content": "b"}]}', "invalid_request"),
    "NaN": (b'{"prompt": "a", "temperature": NaN}', "invalid_request"),
    "a number of 5,000 digits": (b'{"prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}", "invalid_request"),
    "a depth bomb": (b'{"prompt": "a", "metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "invalid_request"),
    "invalid UTF-8": (b'{"prompt": "\xff\xfe"}', "invalid_request"),
    "a fraction for an integer": (b'{"prompt": "a", "max_tokens": 2.5}', "invalid_request"),
    "true for a number": (b'{"prompt": "a", "temperature": true}', "invalid_request"),
    "a billion answers": (b'{"prompt": "a", "n": 1000000000}', "unsupported"),
    "tools": (b'{"prompt": "a", "tools": [{"type": "function"}]}', "unsupported"),
    "an over-long prompt": (b'{"prompt": "' + b"word " * 100_000 + b'"}', "too_large"),
    "max_tokens beyond the context": (b'{"prompt": "a", "max_tokens": 2000000000}', "invalid_request"),
    "an id with a dot": (b'{"prompt": "a", "id": "a.b"}', "invalid_request"),
}


@pytest.mark.parametrize(("body", "code"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_bad_body_ends_failed_at_once_and_harms_nobody(mesh: RunningMesh, body: bytes, code: str) -> None:
    client = await connect(mesh.server)
    other, _ = await submit(client, "other", {"id": "other", "prompt": "hi", "max_tokens": 20})
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await client.request("mesh.req.simulator.standard.default.x", body, timeout=5)
    job = f"s{json.loads(answer.data)['seq']}"
    while not (raw := await stored_result(client, job)):
        assert loop.time() - began < 5, "no Result"
        await asyncio.sleep(0.005)
    result = json.loads(raw)
    assert result["status"] == "failed"
    assert result["error"]["code"] == code
    assert result["error"]["retryable"] is False
    assert (await asyncio.wait_for(other.done, 10))["status"] == "finished"
    await mesh.wait_queue_empty()
    await client.close()


async def test_a_wrong_content_type_is_refused_with_its_name(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    answer = await client.request(
        "mesh.req.simulator.standard.default.x",
        b'{"prompt": "a"}',
        timeout=5,
        headers={"Content-Type": "text/html", "Nats-Msg-Id": "default.typed"},
    )
    assert json.loads(answer.data)["stream"] == "MESH_REQUESTS"
    await mesh.wait_queue_empty()
    result = json.loads(await stored_result(client, "typed"))
    assert result["error"]["code"] == "unsupported"
    assert "Content-Type" in result["error"]["message"]
    await client.close()


async def test_an_unknown_model_ends_failed_without_a_consumer(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    reader, _ = await submit(
        client, "lost", {"id": "lost", "prompt": "hi"}, subject="mesh.req.no-such-model.standard.default.x"
    )
    result = await asyncio.wait_for(reader.done, 5)
    assert result["error"]["code"] == "model_not_found"
    await mesh.wait_queue_empty()
    await client.close()


async def test_an_unknown_tier_ends_failed(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    reader, _ = await submit(
        client, "tier", {"id": "tier", "prompt": "hi"}, subject="mesh.req.simulator.urgent.default.x"
    )
    result = await asyncio.wait_for(reader.done, 5)
    assert result["error"]["code"] == "invalid_request"
    await mesh.wait_queue_empty()
    await client.close()


async def test_cancel_and_status_by_request_and_reply(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    reader, _ = await submit(client, "long", {"id": "long", "prompt": "hi", "max_tokens": 4000})
    await wait_until(lambda: "delta" in reader.types)
    status = json.loads((await client.request("mesh.ctl.default.status.long", b"", timeout=5)).data)
    assert status["status"] == "running"
    assert status["attempt"] == 1
    answer = json.loads((await client.request("mesh.ctl.default.cancel.long", b"", timeout=5)).data)
    assert answer == {"id": "long", "status": "cancelled"}
    result = await asyncio.wait_for(reader.done, 5)
    assert result["status"] == "cancelled"
    assert result["text"] == reader.check()
    unknown = json.loads((await client.request("mesh.ctl.default.cancel.nobody", b"", timeout=5)).data)
    assert unknown == {"id": "nobody", "status": "unknown"}
    await client.close()


async def test_replay_gives_the_events_from_an_index_then_an_empty_message(mesh: RunningMesh) -> None:
    client = await connect(mesh.server)
    reader, _ = await submit(client, "told", {"id": "told", "prompt": "hi", "max_tokens": 20})
    await asyncio.wait_for(reader.done, 5)
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish("mesh.ctl.default.replay.told", b'{"index": 10}', reply=inbox)
    events = []
    while (message := await subscription.next_msg(timeout=5)).data:
        events.append(json.loads(message.data))
    assert events[-1]["type"] == "result"
    deltas = [event for event in events if event["type"] == "delta"]
    assert deltas[0]["index"] <= 10 < deltas[0]["index"] + len(deltas[0]["token_ids"])
    assert deltas[-1]["index"] + len(deltas[-1]["token_ids"]) == 20
    await client.close()
