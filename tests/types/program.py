"""A user's program that uses the whole API as it is meant. Takes the address of a mesh that serves `demo`."""

import asyncio
import sys
from typing import Literal, assert_type

import mesh


def show(result: mesh.Result) -> None:
    assert_type(result.text, str)
    assert_type(result.embeddings, list[list[float]] | None)
    assert_type(result.status, Literal["finished", "failed", "cancelled", "expired"])
    assert_type(result.raise_for_status(), mesh.Result)
    seconds = result.timing.total_ms / 1000
    print(result.text.strip(), result.usage.completion_tokens, f"{seconds:.1f}", result.finish_reason)
    if result.error is not None:
        print(result.error.code.upper(), result.error.retryable)


async def asynchronous(url: str) -> None:
    options = mesh.ConnectOptions(servers=(url,), name="typed")
    async with mesh.connect(options=options, encoding="msgpack") as client:
        job = await client.submit("demo", "Hello", tier="interactive", max_tokens=8, temperature=0, stop=["\n\n"])
        async for delta in job:
            assert_type(delta, mesh.Delta | mesh.Restarted)
            print(delta.text, list(delta.token_ids), delta.index)
        show(await job)
        show(await job.result(timeout=5))
        status = await job.status()
        assert_type(status, mesh.JobStatus)
        print(status.status.upper(), status.attempt + status.index, status.worker or "nobody", job.sequence > 0)
        assert_type(await job.cancel(), str)

        turns: list[mesh.MessageDict] = [{"role": "system", "content": "Be brief."}]
        turns.append({"role": "user", "content": "Hello"})
        show(await client.generate("demo", turns, timeout=20, metadata={"team": "search"}, seed=5))
        show(await client.generate("demo", [mesh.Message(role="user", content="Hello")], max_tokens=2))
        show(await client.generate("demo", [{"role": "user", "content": "Hello"}], max_tokens=2))
        show(await client.generate("demo", mesh.Request(prompt="Hello", max_tokens=2, stop="x")))
        show(await client.generate("demo", prompt_token_ids=[1, 2, 3], response_format={"type": "text"}))

        fields: mesh.RequestFields = {"max_tokens": 4, "temperature": 0.5, "id": "typed-1", "logit_bias": None}
        tier: mesh.Tier = "batch"
        await client.submit("demo", "Hello", tier=tier, **fields)
        async for delta in client.job("typed-1", index=0, timeout=20.0).deltas(timeout=5):
            print(delta.text)

    opened = await mesh.connect([url], tenant="default", namespace="mesh", timeout=5)
    try:
        vectors = await opened.embed("demo", ["a", "b"], session="s", result_ttl_ms=60_000)
        assert_type(vectors, list[list[float]])
        print(len(vectors[0]), [worker.model for worker in await opened.workers()])
        await opened.result("never-was")
    except mesh.errors.ResultNotFoundError as error:
        print(error.code, error.retryable)
    finally:
        await opened.aclose()


def blocking(url: str) -> None:
    with mesh.blocking.connect(url) as client:
        assert_type(client, mesh.blocking.BlockingClient)
        job = client.submit("demo", [{"role": "user", "content": "Hello"}], max_tokens=8)
        assert_type(job, mesh.blocking.BlockingJob)
        for delta in job:
            print(delta.text, delta.index)
        show(job.result(timeout=20))
        print(job.status().status.upper(), job.id, job.tenant, job.model)
    opened = mesh.blocking.connect(url)
    show(opened.generate("demo", "Hello", tier="batch", timeout=20, ignore_eos=True, max_tokens=2))
    for delta in opened.job(job.id).deltas(timeout=5):
        print(delta.text)
    print(len(opened.embed("demo", "a")), opened.result(job.id).status)
    opened.close()


if __name__ == "__main__":
    asyncio.run(asynchronous(sys.argv[1]))
    blocking(sys.argv[1])
