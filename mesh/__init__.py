"""Language models behind a queue that loses nothing.

    async with mesh.connect("nats://127.0.0.1:4222") as client:
        job = await client.submit("demo", "Tell me a story.")
        async for delta in job:
            print(delta.text, end="", flush=True)
        result = await job
"""

__version__ = "0.1.0"
