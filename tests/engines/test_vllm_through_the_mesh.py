"""Real vLLM behind a real queue: the whole way of a request, on the model the repository ships."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

import mesh as mesh_api
from mesh import errors
from mesh.client.client import Client
from mesh.engines.vllm.engine import VllmEngine
from mesh.protocol.messages import Message, ResponseFormat, StructuredOutputs
from mesh.worker.worker import WorkerOptions
from tests.running import RunningMesh, running_mesh, wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

MODEL = "demo"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mesh(vllm_engine: VllmEngine, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningMesh]:
    async with running_mesh(tmp_path_factory.mktemp("vllm") / "nats") as running:
        await running.start_worker(options=WorkerOptions(model=MODEL, grace_s=5), engine=vllm_engine)
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def client(mesh: RunningMesh) -> AsyncIterator[Client]:
    async with mesh_api.connect(mesh.url) as connected:
        yield connected


def ask(question: str) -> list[Message]:
    return [Message(role="user", content=question)]


async def test_a_chat_is_streamed_and_stored(mesh: RunningMesh, client: Client) -> None:
    job = await client.submit(MODEL, ask("What is 7 plus 5?"), max_tokens=40, temperature=0)
    deltas = [delta async for delta in job]
    result = await job
    assert result.status == "finished"
    assert result.finish_reason == "stop"
    assert "12" in result.text
    assert "".join(delta.text for delta in deltas) == result.text
    assert sum(len(delta.token_ids) for delta in deltas) == result.usage.completion_tokens
    assert result.usage.prompt_tokens > 0
    assert (await client.result(job.id)) == result


async def test_the_answer_through_the_mesh_is_the_engines_own(vllm_engine: VllmEngine, client: Client) -> None:
    from mesh.engines.base import Work
    from mesh.protocol.messages import Request

    request = Request(prompt="Once upon a time", max_tokens=40, temperature=0)
    direct = "".join([chunk.text async for chunk in vllm_engine.generate(Work(job="direct", request=request, seed=1))])
    assert (await client.generate(MODEL, request)).text == direct


async def test_sixty_four_streams_at_once(client: Client) -> None:
    async def one(n: int) -> None:
        job = await client.submit(MODEL, ask(f"Spell river {n}."), max_tokens=24, temperature=0, ignore_eos=True)
        text = "".join([delta.text async for delta in job])
        result = await job
        assert result.text == text
        assert result.usage.completion_tokens == 24

    await asyncio.wait_for(asyncio.gather(*(one(n) for n in range(64))), 60)


async def test_a_seeded_draw_is_the_same_twice_and_of_one_job_for_ever(client: Client) -> None:
    fields: dict[str, Any] = {"max_tokens": 30, "temperature": 0.9, "seed": 7}
    one = await client.generate(MODEL, "Once upon a time", **fields)
    two = await client.generate(MODEL, "Once upon a time", **fields)
    assert one.text == two.text


async def test_structured_output_is_what_was_asked_for(client: Client) -> None:
    question = ask("Give me a JSON record for Mila the brave fox.")
    schema = {
        "type": "object",
        "properties": {"animal": {"enum": ["fox", "owl"]}, "mood": {"enum": ["brave", "shy"]}},
        "required": ["animal", "mood"],
        "additionalProperties": False,
    }
    wanted = ResponseFormat(type="json_schema", json_schema={"name": "record", "schema": schema})
    record = await client.generate(MODEL, question, max_tokens=120, temperature=0, response_format=wanted)
    assert msgspec.json.decode(record.text).keys() == {"animal", "mood"}
    choice = StructuredOutputs(choice=["yes", "no"])
    answer = await client.generate(MODEL, question, max_tokens=20, temperature=0, structured_outputs=choice)
    assert answer.text in ("yes", "no")


async def test_stop_strings_end_the_text_before_them(client: Client) -> None:
    whole = await client.generate(MODEL, "Once upon a time", max_tokens=40, temperature=0)
    stop = whole.text.split()[6]
    cut = await client.generate(MODEL, "Once upon a time", max_tokens=40, temperature=0, stop=[stop])
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]


async def test_cancel_frees_the_engines_slot(mesh: RunningMesh, client: Client) -> None:
    job = await client.submit(MODEL, ask("Tell me a long story."), max_tokens=900, ignore_eos=True)
    async for _ in job:
        break
    assert await job.cancel() == "cancelled"
    await wait_until(lambda: mesh.workers[0].statistics().running == 0, 1.0)


REFUSED = {
    "an over-long prompt": ({"prompt": "word " * 3000}, errors.TooLargeError, "too_large"),
    "a token outside the vocabulary": ({"prompt_token_ids": [10**6]}, None, "invalid_request"),
    "embeddings of a model that makes none": ({"input": "x"}, None, "unsupported"),
    "a regex that is none": ({"prompt": "a", "structured_outputs": {"regex": "(("}}, None, "invalid_request"),
}


@pytest.mark.parametrize(("fields", "_", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_the_model_cannot_take_ends_failed_and_the_engine_goes_on(
    client: Client, fields: dict[str, Any], _: type[Exception] | None, code: str
) -> None:
    result = await client.generate(MODEL, **fields)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == code
    assert result.attempts == 1
    assert (await client.generate(MODEL, "Hello", max_tokens=2)).status == "finished"


async def test_the_workers_context_is_known_to_the_client(client: Client) -> None:
    with pytest.raises(errors.InvalidRequestError, match="context of 1024"):
        await client.submit(MODEL, "a", max_tokens=5000)
