"""Submits one request and shows its tokens as they arrive.

mesh up --engine simulator          # in one terminal
python examples/stream.py           # in another
"""

import asyncio

import mesh


async def main() -> None:
    async with mesh.connect("nats://127.0.0.1:4222") as client:
        model = (await client.workers())[0].model
        job = await client.submit(model, "Tell me a story about a fox.", max_tokens=60)
        async for delta in job:
            print(delta.text, end="", flush=True)
        result = await job
        print(f"\n{result.status}: {result.usage.completion_tokens} tokens in {result.timing.total_ms} ms")


if __name__ == "__main__":
    asyncio.run(main())
