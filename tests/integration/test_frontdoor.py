"""The front door, asked by a client that knows only the protocol: plain nats-py, nothing of ours."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import nats
import pytest
from nats.aio.msg import Msg

import mesh as mesh_api
from mesh.broker.topology import MeshSettings
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.gateway.admission import Admission, Limits
from mesh.protocol import codec, validate
from mesh.protocol.messages import Delta, Request
from tests.running import RunningMesh, present, running_mesh, wait_until

RPC = "mesh.rpc.default.simulator"
SLOW = SimulatorSettings(model="simulator", between_tokens_ms=20)
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def asker(mesh: RunningMesh) -> AsyncIterator[nats.NATS]:
    client = await nats.connect(mesh.url)
    yield client
    await client.close()


def refusal(message: Msg) -> tuple[str, str]:
    headers = message.headers or {}
    return headers.get("Nats-Service-Error-Code", ""), headers.get("Nats-Service-Error", "")


async def stream(
    client: nats.NATS,
    body: dict[str, Any],
    subject: str = RPC,
    deadline_s: float = 20.0,
    headers: dict[str, str] | None = None,
) -> list[Msg]:
    """Every message up to the empty one, that one included: what `nats req --wait-for-empty` does."""
    inbox = client.new_inbox()
    heard: asyncio.Queue[Msg] = asyncio.Queue()
    subscription = await client.subscribe(inbox, cb=heard.put)
    await client.publish(subject, json.dumps(body).encode(), reply=inbox, headers=headers)
    messages: list[Msg] = []
    async with asyncio.timeout(deadline_s):
        while not messages or messages[-1].data:
            messages.append(await heard.get())
    await subscription.unsubscribe()
    return messages


def text_of(events: list[dict[str, Any]]) -> str:
    """The text of the deltas, after checking that the history is gapless and ends with one Result."""
    assert [event["type"] for event in events].count("result") == 1
    assert events[-1]["type"] == "result"
    index, text = 0, ""
    for event in events:
        if event["type"] == "delta":
            assert event["index"] == index
            index += len(event["token_ids"])
            text += event["text"]
    return text


async def test_one_request_has_the_result_for_its_one_reply(mesh: RunningMesh, asker: nats.NATS) -> None:
    body = b'{"prompt": "Hello", "max_tokens": 16, "metadata": {"team": "search"}}'
    result = json.loads((await asker.request(RPC, body, timeout=10)).data)
    assert (result["type"], result["status"], result["usage"]["completion_tokens"]) == ("result", "finished", 16)
    assert result["metadata"] == {"team": "search"}
    stored = present(await mesh.result(result["id"]))
    assert json.loads(codec.encode(stored)) == result, "what the store has is the same object"


async def test_with_stream_the_events_come_and_then_an_empty_message(mesh: RunningMesh, asker: nats.NATS) -> None:
    messages = await stream(asker, {"prompt": "Hello", "max_tokens": 24, "stream": True})
    assert refusal(messages[-1]) == ("", "")
    events = [json.loads(message.data) for message in messages[:-1]]
    assert events[0]["type"] == "started"
    assert text_of(events) == events[-1]["text"]
    history = await mesh.history(events[-1]["id"])
    assert events == [json.loads(codec.encode(event)) for event in history], "event by event as in the journal"


async def test_messagepack_is_answered_in_messagepack(asker: nats.NATS) -> None:
    body = msgspec.msgpack.encode({"prompt": "Hello", "max_tokens": 5})
    headers = {"Content-Type": "application/msgpack"}
    answer = await asker.request(RPC, body, timeout=10, headers=headers)
    assert msgspec.msgpack.decode(answer.data)["status"] == "finished"
    assert answer.headers["Content-Type"] == "application/msgpack"
    inbox = asker.new_inbox()
    subscription = await asker.subscribe(inbox)
    body = msgspec.msgpack.encode({"prompt": "Hello", "max_tokens": 5, "stream": True})
    await asker.publish(RPC, body, reply=inbox, headers=headers)
    events = []
    while (message := await subscription.next_msg(timeout=10)).data:
        events.append(msgspec.msgpack.decode(message.data))
    assert text_of(events) == events[-1]["text"]


REFUSED = {
    "an empty body": (RPC, b"", "400", "empty"),
    "no object": (RPC, b"[1]", "400", "object"),
    "truncated": (RPC, b'{"prompt": "a', "400", "JSON"),
    "invalid UTF-8": (RPC, b'{"prompt": "\xff\xfe"}', "400", ""),
    "a depth bomb": (RPC, b'{"prompt": ' + b"[" * 100_000, "400", ""),
    "a wrong type": (RPC, b'{"prompt": "a", "max_tokens": "7"}', "400", "max_tokens"),
    "two inputs": (RPC, b'{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}', "400", "exactly one"),
    "an unknown role": (RPC, b'{"messages": [{"role": "boss", "content": "b"}]}', "400", "role"),
    "an unknown tier": (RPC, b'{"prompt": "a", "tier": "gold"}', "400", "tier"),
    "an unknown on_disconnect": (RPC, b'{"prompt": "a", "on_disconnect": "?"}', "400", "on_disconnect"),
    "many answers": (RPC, b'{"prompt": "a", "n": 1000000000}', "400", "n:"),
    "a bad id": (RPC, b'{"prompt": "a", "id": "a.b"}', "400", "id"),
    "an unknown model": ("mesh.rpc.default.nobody", b'{"prompt": "a"}', "404", "simulator"),
    "no model": ("mesh.rpc.default", b'{"prompt": "a"}', "400", "subject"),
    "too many tokens": ("mesh.rpc.default.simulator.x", b'{"prompt": "a"}', "400", "subject"),
    "a model that is no token": ("mesh.rpc.default.a%b", b'{"prompt": "a"}', "400", "model"),
    "a long tenant": (f"mesh.rpc.{'t' * 65}.simulator", b'{"prompt": "a"}', "400", "tenant"),
    "beyond the context": (RPC, b'{"prompt": "a", "max_tokens": 100000000}', "400", "max_tokens"),
    "an unknown verb": ("mesh.ctl.default.stop.job-1", b"", "404", "cancel"),
    "a job that is no token": ("mesh.ctl.default.cancel.a%b", b"", "400", "job"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_served_is_refused_at_once_with_number_and_reason(
    mesh: RunningMesh, asker: nats.NATS, case: str
) -> None:
    subject, body, code, reason = REFUSED[case]
    await asker.request(RPC, b'{"prompt": "warm", "max_tokens": 1}', timeout=10)
    began = time.monotonic()
    answer = await asker.request(subject, body, timeout=5)
    took_s = time.monotonic() - began
    assert refusal(answer)[0] == code
    assert reason in refusal(answer)[1]
    assert answer.data == b""
    assert took_s < 1.0, "milliseconds, on an idle machine"
    assert await mesh.queued() == 0


async def test_a_wrong_content_type_is_refused(asker: nats.NATS) -> None:
    answer = await asker.request(RPC, b'{"prompt": "a"}', timeout=5, headers={"Content-Type": "text/xml"})
    assert refusal(answer)[0] == "400"
    assert answer.headers["Mesh-Error-Code"] == "unsupported"
    assert answer.headers["Mesh-Error-Field"] == "Content-Type"


async def test_a_refused_stream_ends_with_the_refusal(asker: nats.NATS) -> None:
    messages = await stream(asker, {"prompt": "a", "n": 2, "stream": True})
    assert [refusal(message)[0] for message in messages] == ["400"]


async def test_the_tier_is_that_of_the_body(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1)) as mesh:
        worker = await mesh.start_worker()
        seen = []
        worker._observer = lambda signal: seen.append(getattr(signal, "tier", None))
        client = await nats.connect(mesh.url)
        await client.request(RPC, b'{"prompt": "a", "max_tokens": 1, "tier": "interactive"}', timeout=10)
        await client.close()
    assert "interactive" in seen


async def test_the_same_id_asked_again_is_answered_and_not_run(mesh: RunningMesh, asker: nats.NATS) -> None:
    body = b'{"id": "once", "prompt": "Hello", "max_tokens": 8}'
    first, second = [json.loads((await asker.request(RPC, body, timeout=10)).data) for _ in range(2)]
    assert first == second
    messages = await stream(asker, {"id": "once", "prompt": "Hello", "max_tokens": 8, "stream": True})
    assert json.loads(messages[-2].data) == first
    other = await asker.request(RPC, b'{"id": "once", "prompt": "Other", "max_tokens": 8, "metadata": {"a": 1}}')
    assert refusal(other)[0] == "400"


async def test_who_joins_a_running_stream_gets_it_from_the_start(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW)
        client = await nats.connect(mesh.url)
        body = {"id": "shared", "prompt": "Hello", "max_tokens": 60, "stream": True}
        first = asyncio.create_task(stream(client, body))
        await wait_until(lambda: mesh.history("shared"))
        await wait_until(lambda: _has_tokens(mesh, "shared"))
        both = [messages[:-1] for messages in (await stream(client, body), await first)]
        await client.close()
    texts = [text_of([json.loads(message.data) for message in messages]) for messages in both]
    assert texts[0] == texts[1]
    assert len(texts[0]) > 0


async def _has_tokens(mesh: RunningMesh, job: str) -> bool:
    return any(isinstance(event, Delta) for event in await mesh.history(job))


async def ended_as(mesh: RunningMesh, job: str) -> str | None:
    result = await mesh.result(job)
    return result.status if result is not None else None


async def gone_while_running(mesh: RunningMesh, body: dict[str, Any], is_wildcard: bool) -> None:
    """Ask, and close the connection once the job runs."""
    client = await nats.connect(mesh.url)
    probes: list[Msg] = []
    if is_wildcard:
        asking = asyncio.create_task(client.request(RPC, json.dumps(body).encode(), timeout=60))
    else:
        inbox = client.new_inbox()
        await client.subscribe(inbox)
        asking = asyncio.create_task(client.publish(RPC, json.dumps(body).encode(), reply=inbox))
    worker = mesh.workers[0]
    await wait_until(lambda: worker.statistics().running == 1)
    if is_wildcard:  # until the front door knows that the subject beside the inbox is heard
        beside = client._resp_sub_prefix[:-1].decode() + ".mesh-probe"
        await client.subscribe(beside, cb=_filing(probes))
        await wait_until(lambda: len(probes) >= 2)
    await client.close()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


def _filing(messages: list[Msg]) -> Callable[[Msg], Awaitable[None]]:
    async def heard(message: Msg) -> None:
        messages.append(message)

    return heard


@pytest.mark.parametrize("streams", [True, False], ids=["stream", "unary"])
async def test_a_requester_that_goes_away_cancels_its_job(tmp_path: Path, streams: bool) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW)
        body = {"id": "left", "prompt": "Hello", "max_tokens": 4000, "stream": streams}
        await gone_while_running(mesh, body, is_wildcard=not streams)

        async def is_cancelled() -> bool:
            return await ended_as(mesh, "left") == "cancelled"

        await wait_until(is_cancelled)
        await wait_until(lambda: mesh.workers[0].statistics().running == 0)


async def test_a_job_that_is_to_finish_does_so_without_its_requester(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW)
        body = {"id": "left", "prompt": "Hello", "max_tokens": 150, "stream": True, "on_disconnect": "finish"}
        await gone_while_running(mesh, body, is_wildcard=False)

        async def is_finished() -> bool:
            return await ended_as(mesh, "left") == "finished"

        await wait_until(is_finished)


async def test_who_joined_a_job_and_leaves_does_not_end_it_for_others(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW)
        body = {"id": "shared", "prompt": "Hello", "max_tokens": 200, "stream": True}
        stays = await nats.connect(mesh.url)
        first = asyncio.create_task(stream(stays, body))
        await wait_until(lambda: _has_tokens(mesh, "shared"))
        await gone_while_running(mesh, body, is_wildcard=False)
        events = [json.loads(message.data) for message in (await first)[:-1]]
        await stays.close()
    assert events[-1]["status"] == "finished"


async def test_requests_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW)
        client = await nats.connect(mesh.url)
        long = asyncio.create_task(client.request(RPC, b'{"prompt": "a", "max_tokens": 400}', timeout=30))
        await wait_until(lambda: mesh.workers[0].statistics().running == 1)
        many = [client.request(RPC, b'{"prompt": "b", "max_tokens": 1}', timeout=10) for _ in range(50)]
        results = [json.loads(answer.data) for answer in await asyncio.gather(*many)]
        assert {result["status"] for result in results} == {"finished"}
        assert not long.done()
        await long
        await client.close()


async def test_a_full_queue_is_told_with_the_tenants_depth(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1, queue_limit=3)) as mesh:
        await mesh.start_worker(SLOW)
        client = await nats.connect(mesh.url)
        async with mesh_api.connect(mesh.url) as ours:
            for number in range(3):
                await ours.submit("simulator", f"Story {number}", max_tokens=4000)
            answer = await client.request(RPC, b'{"prompt": "a"}', timeout=10)
        await client.close()
    code, reason = refusal(answer)
    assert code == "429"
    assert "tenant default has 3 jobs" in reason


async def test_a_flood_is_refused_and_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than the door holds: those it took on are answered, all others are refused at once."""
    limits = Limits(open_requests=50, of_one_tenant=40)
    monkeypatch.setattr("mesh.gateway.nats.service.Admission", lambda: Admission(limits))
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW)
        client = await nats.connect(mesh.url)
        body = b'{"prompt": "a", "max_tokens": 40}'
        floods = [
            client.request(f"mesh.rpc.{tenant}.simulator", body, timeout=30) for tenant in "ab" for _ in range(500)
        ]
        answers = await asyncio.gather(*floods)
        codes = [refusal(answer)[0] for answer in answers]
        calm = json.loads((await client.request(RPC, b'{"prompt": "a", "max_tokens": 1}', timeout=10)).data)
        await client.close()
    assert codes.count("429") >= 1
    assert codes.count("503") >= 1
    assert 40 <= codes.count("") < 200
    assert set(codes) == {"", "429", "503"}
    assert calm["status"] == "finished"


async def test_large_bodies_are_refused_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies with an id are held until they are answered; so many bytes of them, and no more."""
    monkeypatch.setattr("mesh.gateway.nats.service.Admission", lambda: Admission(Limits(pending_bytes=2 << 20)))
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW)
        client = await nats.connect(mesh.url, pending_size=64 << 20)
        words = "river " * 40_000
        bodies = [json.dumps({"id": f"big-{n}", "prompt": words, "max_tokens": 20}).encode() for n in range(40)]
        answers = await asyncio.gather(*(client.request(RPC, body, timeout=30) for body in bodies))
        codes = [refusal(answer)[0] for answer in answers]
        calm = await client.request(RPC, b'{"id": "calm", "prompt": "a", "max_tokens": 1}', timeout=10)
        await client.close()
    assert set(codes) == {"", "503"}
    assert 1 <= codes.count("") <= 16
    assert json.loads(calm.data)["status"] == "finished"


async def test_a_front_door_that_closes_says_that_the_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.gateway.nats.service.CLOSE_S", 0.1)
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1)) as mesh:
        worker = await mesh.start_worker(SLOW)
        client = await nats.connect(mesh.url)
        asking = asyncio.create_task(client.request(RPC, b'{"id": "on", "prompt": "a", "max_tokens": 200}', timeout=20))
        await wait_until(lambda: worker.statistics().running == 1)
        worker.drain()
        worker.drain()
        await asyncio.wait_for(mesh.tasks[-1], 10)
        answer = await asking
        assert refusal(answer)[0] == "503"
        assert answer.headers["Mesh-Job"] == "on"
        await mesh.start_worker()
        again = await client.request(RPC, b'{"id": "on", "prompt": "a", "max_tokens": 200}', timeout=20)
        await client.close()
    assert json.loads(again.data)["status"] == "finished"


async def test_a_stream_survives_the_death_of_its_server(tmp_path: Path) -> None:
    """The front door loses its connection in mid-stream, and fills the gap from the journal."""
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW)
        client = await nats.connect(mesh.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
        body = {"id": "cut", "prompt": "Hello", "max_tokens": 200, "stream": True, "on_disconnect": "finish"}
        reading = asyncio.create_task(stream(client, body, deadline_s=40))
        await wait_until(lambda: _has_tokens(mesh, "cut"))
        await mesh.server.stop(kill=True)
        await mesh.server.start()
        messages = await reading
        await client.close()
    seen = {}
    for message in messages[:-1]:
        event = json.loads(message.data)
        if event["type"] == "delta":
            seen[event["index"]] = event["text"]
    result = json.loads(messages[-2].data)
    assert result["status"] == "finished"
    assert list(seen) == sorted(seen)


# The micro service, as the stock CLI asks it. Source of the shapes: https://nats.io/schemas/micro/v1/.

_SEMVER = r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
_METADATA = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
_IDENTITY = {
    "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]+$", "minLength": 1},
    "id": {"type": "string", "minLength": 1},
    "version": {"type": "string", "pattern": _SEMVER, "minLength": 5},
    "metadata": _METADATA,
}
_ENDPOINT = {
    "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]+$", "minLength": 1},
    "subject": {"type": "string", "minLength": 1},
    "metadata": _METADATA,
}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


def schema(kind: str, required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", "name", "id", "version", *required],
        "properties": {"type": {"const": f"io.nats.micro.v1.{kind}_response"}, **_IDENTITY, **properties},
    }


SCHEMAS = {
    "PING": schema("ping", []),
    "INFO": schema(
        "info",
        ["description", "endpoints"],
        description={"type": "string", "minLength": 1},
        endpoints={
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["name", "subject"], "properties": _ENDPOINT},
        },
    ),
    "STATS": schema(
        "stats",
        ["started", "endpoints"],
        started={"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:\d\d)$"},
        endpoints={
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    "name",
                    "subject",
                    "num_requests",
                    "num_errors",
                    "last_error",
                    "processing_time",
                    "average_processing_time",
                ],
                "properties": {
                    **_ENDPOINT,
                    "num_requests": _COUNT,
                    "num_errors": _COUNT,
                    "last_error": {"type": "string"},
                    "processing_time": _COUNT,
                    "average_processing_time": _COUNT,
                    "data": {"type": "object"},
                },
            },
        },
    ),
}


@pytest.mark.parametrize("verb", SCHEMAS)
async def test_the_service_answers_as_the_schemas_of_nats_say(mesh: RunningMesh, asker: nats.NATS, verb: str) -> None:
    worker = mesh.workers[0].name
    for subject in (f"$SRV.{verb}", f"$SRV.{verb}.mesh", f"$SRV.{verb}.mesh.{worker}"):
        answer = json.loads((await asker.request(subject, b"", timeout=5)).data)
        jsonschema.validate(answer, SCHEMAS[verb])
        assert (answer["name"], answer["id"]) == ("mesh", worker)


async def test_the_statistics_count_what_was_asked_answered_and_refused(asker: nats.NATS) -> None:
    await asker.request(RPC, b'{"prompt": "a", "max_tokens": 1}', timeout=10)
    await asker.request(RPC, b'{"prompt": "a", "n": 7}', timeout=10)
    await asker.request("mesh.ctl.default.status.nobody", b"", timeout=10)
    stats = json.loads((await asker.request("$SRV.STATS.mesh", b"", timeout=5)).data)
    generate, control = stats["endpoints"]
    assert (generate["num_requests"], generate["num_errors"], control["num_requests"]) == (2, 1, 1)
    assert generate["last_error"].startswith("400:n: ")
    assert generate["processing_time"] > 0
    assert generate["data"] == {"open": 0, "tenants": 0, "answered": {"finished": 1}, "refused": {"400": 1}, "left": 0}


async def test_every_process_that_serves_shows_itself(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        names = {(await mesh.start_worker()).name for _ in range(3)}
        client = await nats.connect(mesh.url)
        inbox, found = client.new_inbox(), set()

        async def heard(message: Msg) -> None:
            found.add(json.loads(message.data)["id"])

        await client.subscribe(inbox, cb=heard)
        await client.publish("$SRV.PING", b"", reply=inbox)
        await wait_until(lambda: found == names)
        await client.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a request's body was decoded, and a request checked, in this process: door and worker are in it."""
    counts: Counter[str] = Counter()

    class Counting:
        def __init__(self, decoder: Any) -> None:
            self._decoder = decoder

        def decode(self, body: bytes) -> object:
            counts["decoded"] += 1
            return self._decoder.decode(body)

    for decoders in codec._DECODERS.values():
        for name in {"request", "rpc", "manner"} & vars(decoders).keys():
            monkeypatch.setattr(decoders, name, Counting(getattr(decoders, name)))
    check = validate._check_input

    def counted(request: Request) -> None:
        counts["checked"] += 1
        check(request)

    monkeypatch.setattr(validate, "_check_input", counted)
    return counts


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_decoded_and_checked_once_at_the_door_and_once_by_its_worker(
    mesh: RunningMesh, read: Counter[str], stream: bool
) -> None:
    async with mesh_api.connect(mesh.url) as client:
        body = {"prompt": "a", "max_tokens": 4, "stream": stream, "tier": "batch"}
        connected = await nats.connect(mesh.url)
        inbox = await connected.subscribe("_INBOX.once.1")
        await connected.publish("mesh.rpc.default.simulator", msgspec.json.encode(body), reply="_INBOX.once.1")
        result: dict[str, Any] = {}
        while result.get("status") != "finished":
            result = json.loads((await inbox.next_msg(timeout=20)).data)
        await connected.close()
        assert read == {"decoded": 2, "checked": 2}
        read.clear()
        await client.generate("simulator", "a", max_tokens=4, stream=stream)
        assert read == {"decoded": 2, "checked": 2}
