"""The protocol without our client: stock nats-py and json. Any language can do the same, see nats/PROTOCOL.md."""

import asyncio
import json
import sys
import uuid

import nats


async def main(model: str) -> None:
    client = await nats.connect("nats://127.0.0.1:4222")
    job = uuid.uuid4().hex
    events = await client.subscribe(f"mesh.out.default.{job}")
    request = {"id": job, "prompt": "Once upon a time", "max_tokens": 40}
    ack = await client.request(
        f"mesh.req.{model}.standard.default.any",
        json.dumps(request).encode(),
        headers={"Nats-Msg-Id": f"default.{job}"},
        timeout=5,
    )
    print("stored:", ack.data.decode())
    async for message in events.messages:
        event = json.loads(message.data)
        if event["type"] == "delta":
            print(event["text"], end="", flush=True)
        elif event["type"] == "result":
            print(f"\n{event['status']}, {event['usage']['completion_tokens']} tokens")
            break
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "simulator"))
