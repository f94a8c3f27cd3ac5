"""The vLLM engine keeps the contract of mesh.engines.base, with a real vLLM on CPU."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from mesh.engines.base import Chunk, Work
from mesh.engines.vllm.engine import VllmEngine
from mesh.errors import InvalidRequestError, RequestError, TooLargeError, UnsupportedError
from mesh.protocol.messages import Message, Request, ResponseFormat, StructuredOutputs

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

STORY = "Tell me a story about a fox."
_jobs = iter(range(1_000_000))


@dataclass(frozen=True)
class Answer:
    """Everything one call yielded."""

    text: str
    token_ids: list[int]
    last: Chunk


async def run(
    engine: VllmEngine,
    request: Request,
    *,
    seed: int = 7,
    token_ids: Sequence[int] = (),
    text: str = "",
) -> Answer:
    """One call, with what the contract says of every chunk checked."""
    work = Work(f"test-{next(_jobs)}", request, seed, tuple(token_ids), text)
    chunks = [chunk async for chunk in engine.generate(work)]
    assert all(chunk.finish_reason is None and chunk.token_ids for chunk in chunks[:-1])
    assert chunks[-1].finish_reason
    ids = [token_id for chunk in chunks for token_id in chunk.token_ids]
    assert len(ids) + len(token_ids) <= (request.max_tokens or 256)
    return Answer("".join(chunk.text for chunk in chunks), ids, chunks[-1])


def ask(prompt: str = STORY, **fields: Any) -> Request:
    return Request(prompt=prompt, **({"temperature": 0, "max_tokens": 40} | fields))


def chat(content: str, **fields: Any) -> Request:
    messages = [Message(role="user", content=content)]
    return Request(messages=messages, **({"temperature": 0, "max_tokens": 60} | fields))


async def test_info_is_read_from_the_engine(vllm_engine: VllmEngine) -> None:
    info = vllm_engine.info
    assert (info.name, info.max_model_len) == ("vllm", 1024)
    assert info.generates
    assert info.chats
    assert not info.embeds
    assert 64 <= info.capacity <= 256
    assert info.version[0].isdigit()


async def test_greedy_output_is_the_same_every_time(vllm_engine: VllmEngine) -> None:
    first, second = await run(vllm_engine, ask()), await run(vllm_engine, ask(), seed=8)
    assert first.text == second.text != ""
    assert first.token_ids == second.token_ids
    assert first.last.finish_reason == "length"
    assert len(first.token_ids) == 40


async def test_one_seed_draws_one_answer_and_another_seed_another(vllm_engine: VllmEngine) -> None:
    hot = ask(temperature=1.5, max_tokens=30)
    answers = [await run(vllm_engine, hot, seed=seed) for seed in (3, 3, 4, -1, -1)]
    assert answers[0].token_ids == answers[1].token_ids != answers[2].token_ids
    assert answers[3].token_ids == answers[4].token_ids  # vLLM alone reads -1 as "no seed"


async def test_prompts_become_the_token_ids_that_vllm_makes(vllm_engine: VllmEngine) -> None:
    prompts, renderer = vllm_engine._prompts, vllm_engine._llm.renderer
    for text in ("hi", STORY, "naïve 日本 😀", "<|user|>x<|assistant|>", "word " * 900):
        (expected,) = renderer.render_cmpl([{"prompt": text}])
        assert await prompts.token_ids(Request(prompt=text)) == expected["prompt_token_ids"]


async def test_token_ids_and_text_are_the_same_question(vllm_engine: VllmEngine) -> None:
    ids = await vllm_engine._prompts.token_ids(ask())
    by_ids = await run(vllm_engine, Request(prompt_token_ids=ids, temperature=0, max_tokens=40))
    assert by_ids.text == (await run(vllm_engine, ask())).text
    assert by_ids.last.prompt_tokens == len(ids)


async def test_chat_goes_through_the_models_template(vllm_engine: VllmEngine) -> None:
    tokenizer = vllm_engine._prompts.tokenizer
    turns = [{"role": "user", "content": "Who are you?"}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    expected = tokenizer.encode(text, add_special_tokens=False)
    assert await vllm_engine._prompts.token_ids(chat("Who are you?")) == expected
    answer = await run(vllm_engine, chat("Who are you?"))
    assert answer.last.prompt_tokens == len(expected)
    assert answer.text


async def test_long_chats_and_prompts_leave_the_loop_free(vllm_engine: VllmEngine) -> None:
    """Half a megabyte takes a second or so to tokenise."""
    ticks = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.005)

    ticker = asyncio.create_task(tick())
    with pytest.raises(TooLargeError):
        await run(vllm_engine, chat("some words " * 50_000))
    ticker.cancel()
    assert len(ticks) >= 10, "the loop turned meanwhile"


async def test_a_stop_string_ends_the_answer_before_it(vllm_engine: VllmEngine) -> None:
    whole = (await run(vllm_engine, ask())).text
    stop = whole[25:30]
    stopped = await run(vllm_engine, ask(stop=stop))
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.last.finish_reason == "stop"
    shown = await run(vllm_engine, ask(stop=["never\n", stop], include_stop_str_in_output=True))
    assert shown.text == whole[: whole.index(stop)] + stop


async def test_stop_token_ids_min_tokens_and_ignore_eos_are_honoured(vllm_engine: VllmEngine) -> None:
    whole = await run(vllm_engine, ask())
    stop_id = whole.token_ids[10]
    n_tokens = whole.token_ids.index(stop_id) + 1
    stopped = await run(vllm_engine, ask(stop_token_ids=[stop_id]))
    assert stopped.token_ids == whole.token_ids[:n_tokens]
    assert stopped.last.finish_reason == "stop"
    short = await run(vllm_engine, chat("Spell lamp.", max_tokens=200))
    assert short.last.finish_reason == "stop"
    n_short = len(short.token_ids)
    assert n_short < 150
    longer = await run(vllm_engine, chat("Spell lamp.", max_tokens=200, min_tokens=n_short + 5))
    assert len(longer.token_ids) >= n_short + 5
    endless = await run(vllm_engine, chat("Spell lamp.", max_tokens=200, ignore_eos=True))
    assert len(endless.token_ids) == 200
    assert endless.last.finish_reason == "length"


async def test_biases_and_lists_reach_the_sampler(vllm_engine: VllmEngine) -> None:
    banned = (await run(vllm_engine, ask())).token_ids[0]
    biased = await run(vllm_engine, ask(logit_bias={str(banned): -100}))
    assert banned not in biased.token_ids
    allowed = await run(vllm_engine, ask(allowed_token_ids=[40, 41], ignore_eos=True))
    assert set(allowed.token_ids) <= {40, 41}
    word = (await run(vllm_engine, ask())).text.split()[2]
    assert word not in (await run(vllm_engine, ask(bad_words=[word]))).text.split()
    plain = (await run(vllm_engine, ask(max_tokens=100))).token_ids
    punished = (await run(vllm_engine, ask(max_tokens=100, repetition_penalty=1.8))).token_ids
    assert len(set(punished)) > len(set(plain))


async def test_structured_output_has_its_structure(vllm_engine: VllmEngine) -> None:
    choice = StructuredOutputs(choice=["red", "blue"])
    assert (await run(vllm_engine, chat("Which?", structured_outputs=choice))).text in ("red", "blue")
    regex = StructuredOutputs(regex="[0-9]{3}-[a-c]")
    text = (await run(vllm_engine, chat("Code?", structured_outputs=regex))).text
    assert len(text) == 5
    assert text[3] == "-"
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    wanted = ResponseFormat(type="json_schema", json_schema={"name": "x", "schema": schema})
    text = (await run(vllm_engine, chat("JSON?", response_format=wanted))).text
    assert '"n"' in text
    free = ResponseFormat(type="text")
    plain = await run(vllm_engine, chat("Who are you?", response_format=free))
    assert plain.text == (await run(vllm_engine, chat("Who are you?"))).text


async def test_the_context_ends_an_answer_with_length(vllm_engine: VllmEngine) -> None:
    prompt = [300] * 1014
    answer = await run(vllm_engine, Request(prompt_token_ids=prompt, max_tokens=1000, temperature=0, ignore_eos=True))
    assert len(answer.token_ids) == 10
    assert answer.last.finish_reason == "length"


async def test_the_prefix_cache_is_reported(vllm_engine: VllmEngine) -> None:
    prompt = list(range(100, 500))
    request = Request(prompt_token_ids=prompt, max_tokens=2, temperature=0)
    before = vllm_engine.load()
    await run(vllm_engine, request)
    answer = await run(vllm_engine, request)
    assert 0 < answer.last.cached_tokens <= len(prompt)
    after = vllm_engine.load()
    assert after.prompt_tokens - before.prompt_tokens == 2 * len(prompt)
    assert after.cached_tokens - before.cached_tokens >= answer.last.cached_tokens


async def test_64_at_once_answer_as_each_alone(vllm_engine: VllmEngine) -> None:
    requests = [ask(f"{STORY} Number {index}.", max_tokens=30) for index in range(64)]
    together = await asyncio.gather(*(run(vllm_engine, request) for request in requests))
    alone = [await run(vllm_engine, request) for request in requests[::8]]
    assert [answer.token_ids for answer in together[::8]] == [answer.token_ids for answer in alone]
    assert vllm_engine.load().running == vllm_engine.load().waiting == 0


async def wait_until(condition: Callable[[], bool], deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def wait_until_free(engine: VllmEngine, deadline_s: float) -> None:
    """No request is left in vLLM's front end or in ours."""
    await wait_until(lambda: not engine._llm.get_num_unfinished_requests() and not engine.load().running, deadline_s)


async def test_a_cancelled_call_frees_its_slot(vllm_engine: VllmEngine) -> None:
    long = ask(max_tokens=900, ignore_eos=True)
    calls = [asyncio.create_task(run(vllm_engine, long)) for _ in range(64)]
    await wait_until(lambda: vllm_engine.load().running == 64, 20)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert all(call.cancelled() for call in calls)
    await wait_until_free(vllm_engine, 1)
    started = time.monotonic()
    await run(vllm_engine, ask(max_tokens=1))
    assert time.monotonic() - started < 1  # the core too has dropped them: 64 x 900 tokens take many seconds


async def test_a_call_cancelled_before_its_first_token_frees_its_slot(vllm_engine: VllmEngine) -> None:
    long = ask(max_tokens=900, ignore_eos=True)
    for n_turns in range(6):  # each leaves the call at another of its first awaits
        call = asyncio.create_task(run(vllm_engine, long))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    await wait_until_free(vllm_engine, 1)


async def test_a_closed_generator_frees_its_slot(vllm_engine: VllmEngine) -> None:
    stream = vllm_engine.generate(Work("closed", ask(max_tokens=900, ignore_eos=True), 1))
    await anext(stream)
    await stream.aclose()
    assert not vllm_engine._llm.get_num_unfinished_requests()
    assert not vllm_engine.load().running


async def test_a_slow_reader_gets_every_token_and_every_character(vllm_engine: VllmEngine) -> None:
    quick = await run(vllm_engine, ask())
    text, n_chunks = "", 0
    ids: list[int] = []
    async for chunk in vllm_engine.generate(Work("slow", ask(), 7)):
        text, n_chunks = text + chunk.text, n_chunks + 1
        ids += chunk.token_ids
        await asyncio.sleep(0.03)
    assert (text, ids) == (quick.text, quick.token_ids)
    assert n_chunks < len(ids)


REFUSED: list[tuple[Request, type[RequestError], str]] = [
    (ask("x " * 1023), TooLargeError, "prompt"),
    (ask("x" * 100_000), TooLargeError, "prompt"),
    (chat("x " * 1100), TooLargeError, "messages"),
    (Request(prompt_token_ids=[5] * 1024), TooLargeError, "prompt_token_ids"),
    (Request(prompt_token_ids=[5, 10_000_000]), InvalidRequestError, "prompt_token_ids"),
    (Request(prompt_token_ids=[5, True]), InvalidRequestError, "prompt_token_ids"),
    (Request(prompt_token_ids=[5, -1]), InvalidRequestError, "prompt_token_ids"),
    (Request(input="vector, please"), UnsupportedError, "input"),
    (ask(max_tokens=1025), InvalidRequestError, "max_tokens"),
    (ask(stop_token_ids=[1_000_000]), InvalidRequestError, "stop_token_ids"),
    (ask(allowed_token_ids=[1_000_000]), InvalidRequestError, "allowed_token_ids"),
    (ask(logit_bias={"1000000": 1.0}), InvalidRequestError, "logit_bias"),
    (ask(temperature=float("nan")), InvalidRequestError, "temperature"),
    (ask(bad_words=[f"word{index}" for index in range(4000)]), InvalidRequestError, "bad_words"),
    (ask(structured_outputs=StructuredOutputs(json={"type": "nonsense"})), InvalidRequestError, "structured_outputs"),
    (ask(structured_outputs=StructuredOutputs(json="{")), InvalidRequestError, "structured_outputs"),
    (ask(structured_outputs=StructuredOutputs(regex="(")), InvalidRequestError, "structured_outputs"),
    (ask(structured_outputs=StructuredOutputs(grammar="nonsense ::")), InvalidRequestError, "structured_outputs"),
    # No decoder accepts these, but a caller in this process could build them.
    (ask(max_tokens=2.5), InvalidRequestError, "max_tokens"),
    (ask(temperature=True), InvalidRequestError, "temperature"),
    (ask(top_k=1.5), InvalidRequestError, "top_k"),
    (ask(min_tokens="3"), InvalidRequestError, "min_tokens"),
    (ask(logit_bias={5: "x"}), InvalidRequestError, "logit_bias"),
    (ask(stop_token_ids=[1.5]), InvalidRequestError, "stop_token_ids"),
    (ask(stop=[7]), InvalidRequestError, "stop"),
    (ask(ignore_eos="no"), InvalidRequestError, "ignore_eos"),
    (ask(structured_outputs={"regex": 1}), InvalidRequestError, "structured_outputs"),
]


@pytest.mark.parametrize(("request_", "kind", "field"), REFUSED)
async def test_what_cannot_be_served_is_refused_at_once(
    vllm_engine: VllmEngine, request_: Request, kind: type[RequestError], field: str
) -> None:
    started = time.monotonic()
    with pytest.raises(RequestError) as caught:
        await run(vllm_engine, request_)
    elapsed_s = time.monotonic() - started
    assert type(caught.value) is kind, caught.value
    assert caught.value.field == field
    assert elapsed_s < 2.5, "no wait for a step of the engine that never comes"
    await vllm_engine.probe(5)
    assert (await run(vllm_engine, ask(max_tokens=2))).token_ids


async def test_a_seed_of_a_wrong_type_is_refused(vllm_engine: VllmEngine) -> None:
    for seed in ("abc", 2**70, 1.5, True):
        with pytest.raises(InvalidRequestError, match="seed"):
            await run(vllm_engine, ask(temperature=1), seed=seed)  # type: ignore[arg-type]
    await vllm_engine.probe(5)


async def test_probe_answers_under_load(vllm_engine: VllmEngine) -> None:
    calls = [asyncio.create_task(run(vllm_engine, ask(max_tokens=100))) for _ in range(64)]
    for _ in range(5):
        await vllm_engine.probe(5)
    await asyncio.gather(*calls)
