"""nats/vectors.json against a running mesh, and against the table in nats/PROTOCOL.md.

Who writes a client or a worker in another language checks it with the same file; how it is read stands in PROTOCOL.md
under "Test vectors". The mesh is spoken to with stock nats-py here, and nothing of ours.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from mesh.engines.simulator.settings import SimulatorSettings
from mesh.worker.worker import WorkerOptions
from tests.running import MODEL, running_mesh, wait_until

FOLDER = Path(__file__).parents[2] / "nats"
FILE = json.loads((FOLDER / "vectors.json").read_text())
VECTORS = {vector["name"]: vector for vector in FILE["vectors"]}
KINDS: dict[object, type | tuple[type, ...]] = {"integer": int, "integer or null": (int, type(None)), "string": str}
DEADLINE_S = 20

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Stranger:
    """A connection to a mesh, the encoding that it speaks, and every event of every job, in order."""

    def __init__(self, client: nats.NATS, encoding: str) -> None:
        self.client = client
        self.encoding = encoding
        self._events: list[dict[str, Any]] = []

    async def listen(self) -> None:
        await self.client.subscribe("mesh.live.default.*", cb=self._heard)

    async def _heard(self, message: Msg) -> None:
        self._events.append(decoded(message.data))

    def events(self, job: str) -> list[dict[str, Any]]:
        return [event for event in self._events if event["id"] == job]

    def sent(self, vector: dict[str, Any]) -> tuple[bytes, dict[str, str] | None]:
        """The body of a vector, and its headers."""
        headers = dict(vector.get("headers", {}))
        if "raw" in vector:
            body = base64.b64decode(vector["raw"])
        elif self.encoding == "msgpack" and not vector["subject"].startswith("mesh.ctl."):
            given = vector.get("msgpack")
            body = base64.b64decode(given) if given else msgspec.msgpack.encode(body_of(vector))
            headers["Content-Type"] = "application/msgpack"
        else:
            body = json.dumps(body_of(vector), ensure_ascii=False).encode()
        return body, headers or None

    async def submit(self, vector: dict[str, Any]) -> dict[str, Any]:
        """The answer to its publish."""
        body, headers = self.sent(vector)
        answer = await self.client.request(vector["subject"], body, timeout=DEADLINE_S, headers=headers)
        return decoded(answer.data)

    async def ended(self, job: str) -> dict[str, Any]:
        """Its Result, once that was announced."""
        await wait_until(lambda: [e for e in self.events(job) if e["type"] == "result"], DEADLINE_S)
        return self.events(job)[-1]

    async def stored(self, job: str) -> dict[str, Any]:
        subject = f"$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.default.{job}"
        return decoded((await self.client.request(subject, b"", timeout=DEADLINE_S)).data)

    async def ask(self, step: dict[str, Any]) -> list[dict[str, Any]]:
        """Every reply to a request, up to the first that is empty or, where one is expected, the only one."""
        inbox = self.client.new_inbox()
        replies = await self.client.subscribe(inbox)
        body, headers = self.sent(step) if "body" in step or "raw" in step else (b"", None)
        await self.client.publish(step["subject"], body, reply=inbox, headers=headers)
        found: list[dict[str, Any]] = []
        while len(found) < (1 if "reply" in step else 1000):
            message = await replies.next_msg(timeout=DEADLINE_S)
            if not message.data:
                headers = dict(message.header or {})
                found += [headers] if "Nats-Service-Error-Code" in headers else []
                break
            found.append(decoded(message.data))
        await replies.unsubscribe()
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["json", "msgpack"])
async def stranger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stranger]:
    """One who speaks JSON, and one who speaks MessagePack, to a worker that takes one job at a time."""
    async with running_mesh(tmp_path_factory.mktemp("nats")) as mesh:
        settings = SimulatorSettings(model=MODEL, first_token_ms=1, between_tokens_ms=1)
        await mesh.start_worker(settings, WorkerOptions(model=MODEL, capacity=1, grace_s=5))
        client = await nats.connect(mesh.url)
        made = Stranger(client, request.param)
        await made.listen()
        yield made
        await client.close()


def body_of(vector: dict[str, Any]) -> object:
    """The body as it is sent: {"$repeat": [text, times]} stands for a long string."""
    if not isinstance(vector["body"], dict):
        return vector["body"]
    return {
        key: value["$repeat"][0] * value["$repeat"][1] if isinstance(value, dict) and "$repeat" in value else value
        for key, value in vector["body"].items()
    }


def decoded(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body) if body[:1] == b"{" else msgspec.msgpack.decode(body)
    return found


def joined(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events with neighbouring deltas made one: where an output is cut is not part of the protocol."""
    found: list[dict[str, Any]] = []
    for event in events:
        last: dict[str, Any] = found[-1] if found else {"type": ""}
        if event["type"] == last["type"] == "delta":
            assert event["index"] == last["index"] + len(last["token_ids"])
            text, token_ids = last["text"] + event["text"], last["token_ids"] + event["token_ids"]
            found[-1] = {**last, **event, "index": last["index"], "text": text, "token_ids": token_ids}
        else:
            found.append(event)
    return found


def whole(event: dict[str, Any], job: str) -> dict[str, Any]:
    """An expected event with what the file leaves out."""
    return {"id": job, **FILE["defaults"][event["type"]], **event}


def matches(expected: object, found: object) -> bool:
    """Whether they are equal, but for what is marked: {"$any": kind}, {"$has": part of a string}."""
    match expected:
        case {"$any": kind}:
            return isinstance(found, KINDS[kind])
        case {"$has": part}:
            return isinstance(found, str) and part in found
        case dict() if isinstance(found, dict):
            return set(expected) == set(found) and all(matches(expected[key], found[key]) for key in expected)
        case list() if isinstance(found, list):
            return len(expected) == len(found) and all(map(matches, expected, found))
    return type(expected) is type(found) and expected == found


def check(expected: object, found: object) -> None:
    assert matches(expected, found), f"expected {json.dumps(expected)}\nfound    {json.dumps(found)}"


def check_refusal(expected: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """One empty message with these headers, and maybe others."""
    assert len(found) == 1
    check(expected, {name: value for name, value in found[0].items() if name in expected})


@pytest.mark.parametrize("name", VECTORS)
async def test_the_mesh_does_what_the_vector_says(stranger: Stranger, name: str) -> None:
    vector = VECTORS[name]
    if "ack" not in vector:  # asked at the front door
        for step in (vector, *vector.get("afterwards", [])):
            await check_step(stranger, step, vector.get("job", ""))
        return
    if vector.get("busy"):
        busy = {"subject": vector["subject"], "body": {"id": f"busy-{name}", "prompt": "a", "max_tokens": 8000}}
        busy["msgpack"] = base64.b64encode(msgspec.msgpack.encode(busy["body"])).decode()
        await stranger.submit(busy)
        await wait_until(lambda: stranger.events(f"busy-{name}"), DEADLINE_S)
    ack = await stranger.submit(vector)
    check(vector["ack"], ack)
    if "error" in ack:
        return
    job = vector.get("job") or f"s{ack['seq']}"
    for step in vector.get("meanwhile", []):
        await check_step(stranger, step, job)
    result = await asyncio.wait_for(stranger.ended(job), DEADLINE_S)
    check(whole({"type": "result", **vector["result"]}, job), result)
    check([whole(event, job) for event in vector["events"]], joined(stranger.events(job)[:-1]))
    assert await stranger.stored(job) == result
    for step in vector.get("afterwards", []):
        await check_step(stranger, step, job)
    if vector.get("busy"):
        await stranger.ask({"subject": f"mesh.ctl.default.cancel.busy-{name}", "reply": {}})


async def check_step(stranger: Stranger, step: dict[str, Any], job: str) -> None:
    """One request about a job, and what comes back."""
    found = await stranger.ask(step)
    if "reply" in step:
        reply = step["reply"]
        check([whole(reply, job) if reply.get("type") == "result" else reply], found)
    elif "refusal" in step:
        check_refusal(step["refusal"], found)
    else:
        check([whole(event, job) for event in step["replies"]], joined(found))


def table() -> str:
    """The vectors as they stand in PROTOCOL.md."""
    lines = ["| vector | request | events | Result |", "| --- | --- | --- | --- |"]
    for vector in FILE["vectors"]:
        cells = [f"`{vector['name']}`", asked(vector), heard(vector), ended(vector)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def asked(vector: dict[str, Any]) -> str:
    """Where a request goes, if not to the usual place, and what it holds, but for its id."""
    usual = f"mesh.req.{MODEL}.standard.default.any"
    headers = vector.get("headers", {})
    kind, version = headers.get("Content-Type"), headers.get("Mesh-Protocol")
    where = "" if vector["subject"] == usual else f"to `{vector['subject']}`: "
    where += f"as `{kind}`: " if kind else ""
    where += f"as protocol `{version}`: " if version else ""
    if "raw" in vector:
        body = base64.b64decode(vector["raw"])
        shown = body.decode() if body.isascii() else f"{body.hex(' ')}"
        return where + (f"`{shown}`" if body else "nothing")
    fields = {key: value for key, value in vector["body"].items() if key != "id" or value != vector.get("job")}
    return where + f"`{json.dumps(fields, ensure_ascii=False)}`"


def heard(vector: dict[str, Any]) -> str:
    """Attempt, index and tokens of each event before the Result, and the steps meanwhile."""
    words = [
        f"{event['type']} {event.get('attempt', 1)}/{event.get('index', 0)}"
        + (f", {len(event['token_ids'])} tokens" if event["type"] == "delta" else "")
        for event in vector.get("events", vector.get("replies", []))
        if event["type"] != "result"
    ]
    steps = [f"`{step['subject'].split('.')[3]}` meanwhile" for step in vector.get("meanwhile", [])]
    return "; ".join(steps + words) or "none"


def ended(vector: dict[str, Any]) -> str:
    """Status, then the reason or the error, then the output; or what was refused."""
    if "refusal" in vector:
        refusal = vector["refusal"]
        return f"refused, {refusal['Nats-Service-Error-Code']}: {part_of(refusal['Nats-Service-Error'])}"
    result = vector.get("result") or vector.get("reply") or vector["replies"][-1]
    status, error = result.get("status", "finished"), result.get("error")
    if error:
        return f"{status}, `{error['code']}`: {part_of(error['message'])}"
    if "embeddings" in result:
        return f"{status}, {len(result['embeddings'])} vectors of {len(result['embeddings'][0])}"
    text = result["text"] if len(result["text"]) <= 40 else result["text"][:39] + "…"
    return f"{status}, `{result['finish_reason']}`: {json.dumps(text, ensure_ascii=False)}"


def part_of(marked: dict[str, Any]) -> str:
    """What a message must hold."""
    return str(marked["$has"]).removesuffix(": ")


async def test_the_table_in_the_protocol_says_the_same() -> None:
    page = (FOLDER / "PROTOCOL.md").read_text()
    assert table() in page, f"PROTOCOL.md should hold this table:\n{table()}"


async def test_each_messagepack_body_is_the_json_body() -> None:
    for vector in FILE["vectors"]:
        if "msgpack" in vector:
            assert msgspec.msgpack.decode(base64.b64decode(vector["msgpack"])) == vector["body"], vector["name"]
