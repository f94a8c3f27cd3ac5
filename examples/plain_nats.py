"""The protocol without our client: stock nats-py and json. Any language can do the same, see nats/PROTOCOL.md.

mesh up --engine simulator --name demo         # in one terminal
python examples/plain_nats.py demo             # in another
"""

import asyncio
import json
import sys
import uuid
from typing import Any

import nats
from nats.aio.msg import Msg


async def submit(client: nats.NATS, model: str, job: str, **request: Any) -> None:
    """Store a job. It runs once, even if it is submitted again with the same id."""
    subject, body = f"mesh.req.{model}.standard.default.any", json.dumps({"id": job, **request}).encode()
    ack = await client.jetstream().publish(subject, body, headers={"Nats-Msg-Id": f"default.{job}"})
    print(f"job {job} is stored as {ack.stream} {ack.seq}")


async def follow(client: nats.NATS, job: str, events: asyncio.Queue[Msg], missed: str) -> None:
    """Show each token once, in order, until the job ends. The replayed events on `missed` arrive in `events` too."""
    attempt = expected = 0  # the newest attempt, and the index of its next token
    event: dict[str, Any] = {}
    while event.get("type") != "result":
        try:
            event = json.loads((await asyncio.wait_for(events.get(), 5)).data or "{}")  # empty: the end of a replay
        except TimeoutError:
            event = {"index": expected + 1}  # silence may be a gap
        if event.get("index", 0) > expected:  # a gap: the journal has it all
            body = json.dumps({"index": expected}).encode()
            await client.publish(f"mesh.ctl.default.replay.{job}", body, reply=missed)
        elif event.get("attempt", 0) > attempt:  # a worker took over: it goes on, or begins again (index 0)
            attempt, expected = event["attempt"], event["index"]
        if event.get("type") == "delta" and (event["attempt"], event["index"]) == (attempt, expected):  # no repeat
            print(event["text"], end="", flush=True)
            expected += len(event["token_ids"]) or 1  # only the last delta may have none


async def main(model: str) -> None:
    client = await nats.connect("nats://127.0.0.1:4222")
    results = await client.jetstream().key_value("mesh_results")
    job, missed = uuid.uuid4().hex, client.new_inbox()
    events: asyncio.Queue[Msg] = asyncio.Queue()
    await client.subscribe(f"mesh.live.default.{job}", cb=events.put)  # before the publish: nothing is missed
    await client.subscribe(missed, cb=events.put)
    await submit(client, model, job, prompt="Once upon a time", max_tokens=40)
    await follow(client, job, events, missed)
    result = json.loads((await results.get(f"default.{job}")).value)
    print(f"\n{result['status']}, {result['usage']['completion_tokens']} tokens")

    job = uuid.uuid4().hex
    await submit(client, model, job, prompt="Once upon a time", max_tokens=4000)
    answer = await client.request(f"mesh.ctl.default.cancel.{job}", b"", timeout=10)
    print(answer.data.decode())

    # All of it in one line, through the front door.
    answer = await client.request(f"mesh.rpc.default.{model}", b'{"prompt": "Hello", "max_tokens": 8}', timeout=60)
    print(f"front door: {json.loads(answer.data)['text']}")
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "simulator"))
