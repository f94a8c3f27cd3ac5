"""An answer cut off after any token and continued is, token by token, the answer nobody cut."""

import asyncio
from typing import Any, NamedTuple

import pytest

from mesh.engines.base import Work
from mesh.engines.vllm.engine import VllmEngine
from mesh.protocol.messages import Message, Request, StructuredOutputs
from mesh.protocol.validate import max_tokens

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

STORY = "Tell me a story about a fox."
MULTI_BYTE = "😀日"
_jobs = iter(range(1_000_000))

Steps = list[tuple[str, list[int]]]


async def steps_of(engine: VllmEngine, request: Request, token_ids: list[int], text: str) -> tuple[Steps, str, int]:
    """Chunks, the finish reason, the prompt's tokens."""
    work = Work(f"resume-{next(_jobs)}", request, 7, tuple(token_ids), text)
    steps: Steps = []
    async for chunk in engine.generate(work):
        steps.append((chunk.text, list(chunk.token_ids)))
        last = chunk
    return steps, last.finish_reason or "", last.prompt_tokens


class Cuts(NamedTuple):
    kept: int
    """Cuts at which earlier tokens were kept."""
    tried: int
    """One after each chunk but the last; a reader that was slow finds several tokens in a chunk."""
    n_tokens: int


async def check_every_cut(engine: VllmEngine, request: Request) -> Cuts:
    """Cut after each chunk and continue."""
    whole, finish, n_prompt = await steps_of(engine, request, [], "")
    whole_text = "".join(text for text, _ in whole)
    whole_ids = [token_id for _, ids in whole for token_id in ids]

    async def check_cut(n_steps: int) -> bool:
        shown = "".join(text for text, _ in whole[:n_steps])
        token_ids = [token_id for _, ids in whole[:n_steps] for token_id in ids]
        index = engine.resume_index(request, token_ids, shown)
        assert 0 <= index <= len(token_ids)
        if index == 0:
            return False
        rest, rest_finish, rest_prompt = await steps_of(engine, request, token_ids[:index], shown)
        assert shown + "".join(text for text, _ in rest) == whole_text
        assert token_ids[:index] + [token_id for _, ids in rest for token_id in ids] == whole_ids
        assert (rest_finish, rest_prompt) == (finish, n_prompt)
        return True

    # The last chunk carries the finish reason: a worker that finds it in the journal needs no engine.
    kept = await asyncio.gather(*(check_cut(n_steps) for n_steps in range(1, len(whole))))
    return Cuts(sum(kept), len(kept), len(whole_ids))


def ask(**fields: Any) -> Request:
    known: dict[str, Any] = {"prompt": STORY, "temperature": 0, "max_tokens": 40}
    return Request(**known | fields)


async def test_a_greedy_answer_goes_on_from_every_cut(vllm_engine: VllmEngine) -> None:
    cuts = await check_every_cut(vllm_engine, ask())
    assert cuts.kept == cuts.tried > 5
    assert cuts.n_tokens == 40


async def test_a_chat_that_ends_by_itself_goes_on_from_every_cut(vllm_engine: VllmEngine) -> None:
    messages = [Message(role="user", content="Spell lamp.")]
    request = ask(prompt=None, messages=messages, max_tokens=200)
    cuts = await check_every_cut(vllm_engine, request)
    assert cuts.kept >= 1
    assert cuts.n_tokens < 200
    request = ask(prompt=None, messages=messages, max_tokens=200, min_tokens=cuts.n_tokens + 10)
    longer = await check_every_cut(vllm_engine, request)
    assert longer.kept >= 1
    assert longer.n_tokens >= cuts.n_tokens + 10


@pytest.mark.parametrize(
    "fields",
    [
        {"repetition_penalty": 1.3},
        {"min_tokens": 20},
        {"logit_bias": {"300": 2.0}},
        {"skip_special_tokens": False, "ignore_eos": True},
        {"ignore_eos": True, "max_tokens": 60, "prompt": "Spell lamp."},
    ],
)
async def test_what_greedy_allows_is_kept_in_the_continuation(vllm_engine: VllmEngine, fields: dict[str, Any]) -> None:
    cuts = await check_every_cut(vllm_engine, ask(**fields))
    assert cuts.kept >= 0.75 * cuts.tried > 5


@pytest.mark.parametrize("prompt", ["日本 é", STORY, "😀"])
@pytest.mark.parametrize("penalty", [1.0, 1.2, 1.9])
async def test_characters_of_several_tokens_are_never_torn(
    vllm_engine: VllmEngine, prompt: str, penalty: float
) -> None:
    """The model may say nothing but bytes of multi-byte characters, most of them in no valid order."""
    vocabulary = vllm_engine._prompts.tokenizer.get_vocab()
    allowed = sorted({vocabulary[_byte_token(byte)] for byte in MULTI_BYTE.encode()})
    request = ask(allowed_token_ids=allowed, repetition_penalty=penalty, ignore_eos=True, max_tokens=60, prompt=prompt)
    await check_every_cut(vllm_engine, request)


async def test_whole_characters_of_several_tokens_go_on(vllm_engine: VllmEngine) -> None:
    """The model is made to repeat a given string by a bias on its next token; the cuts fall inside of it."""
    text = "naïve café 😀 日本語 €5"
    tokenizer = vllm_engine._prompts.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    prompt = tokenizer.encode("say ", add_special_tokens=False)
    decoder = vllm_engine._decoder
    assert decoder is not None
    step = decoder.stepper(prompt, skips_special=True)
    shown, kept = "", []
    request = Request(prompt_token_ids=prompt, temperature=0, max_tokens=1000)
    for n_tokens, token_id in enumerate(ids, 1):
        shown += step(token_id)
        index = vllm_engine.resume_index(request, ids[:n_tokens], shown)
        kept.append(index)
        assert n_tokens - index <= 4
        rest = decoder.stepper(prompt + ids[:index], skips_special=True)
        assert shown + "".join(rest(later) for later in ids[index:]) == text
    assert kept[-1] == len(ids)


@pytest.mark.parametrize("keeps_stop", [False, True])
async def test_a_stop_string_across_the_cut_is_found(vllm_engine: VllmEngine, keeps_stop: bool) -> None:
    whole = "".join(text for text, _ in (await steps_of(vllm_engine, ask(), [], ""))[0])
    for stop in (whole[60:62], whole[40:55], whole[3:40]):
        request = ask(stop=["never said", stop], include_stop_str_in_output=keeps_stop)
        assert (await check_every_cut(vllm_engine, request)).kept >= 1
    request = ask(stop=["never said at all, so that text is held back to the end"])
    cuts = await check_every_cut(vllm_engine, request)
    assert cuts.kept == cuts.tried > 5


async def test_stop_strings_wait_for_min_tokens_in_a_continuation_too(vllm_engine: VllmEngine) -> None:
    whole = "".join(text for text, _ in (await steps_of(vllm_engine, ask(), [], ""))[0])
    assert (await check_every_cut(vllm_engine, ask(stop=[whole[4:6], " "], min_tokens=12))).n_tokens >= 12


async def test_a_slow_reader_of_a_continuation_misses_no_stop_string(vllm_engine: VllmEngine) -> None:
    whole = "".join(text for text, _ in (await steps_of(vllm_engine, ask(), [], ""))[0])
    request = ask(stop=[whole[50:56]])
    steps, _, _ = await steps_of(vllm_engine, request, [], "")
    ids = [token_id for _, step_ids in steps for token_id in step_ids]
    cut = len(steps[0][1]) + len(steps[1][1])  # a step may hold several tokens on a busy machine
    shown, text = steps[0][0] + steps[1][0], ""
    rest: list[int] = []
    async for chunk in vllm_engine.generate(Work("slow-resume", request, 7, tuple(ids[:cut]), shown)):
        text += chunk.text
        rest += chunk.token_ids
        await asyncio.sleep(0.05)  # vLLM merges what was made meanwhile, also beyond the stop string
    assert shown + text == "".join(text for text, _ in steps)
    assert ids[:cut] + rest == ids


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.5},
        {"temperature": None},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -0.5},
        {"bad_words": ["fox"]},
        {"structured_outputs": StructuredOutputs(json_object=True)},
    ],
)
async def test_what_would_not_be_exact_starts_again(vllm_engine: VllmEngine, fields: dict[str, Any]) -> None:
    steps, _, _ = await steps_of(vllm_engine, ask(), [], "")
    ids = [token_id for _, step_ids in steps[:10] for token_id in step_ids]
    shown = "".join(text for text, _ in steps[:10])
    assert vllm_engine.resume_index(ask(), ids, shown) == len(ids)
    assert vllm_engine.resume_index(ask(**fields), ids, shown) == 0
    assert vllm_engine.resume_index(ask(), ids, shown + "!") == 0  # not what these tokens show


async def test_an_answer_that_was_whole_already_needs_no_engine(vllm_engine: VllmEngine) -> None:
    request = ask()
    steps, finish, n_prompt = await steps_of(vllm_engine, request, [], "")
    ids = [token_id for _, step_ids in steps for token_id in step_ids]
    text = "".join(text for text, _ in steps)
    before = vllm_engine.load().output_tokens
    for given, reason in (
        (request, finish),
        (ask(max_tokens=100, stop_token_ids=ids[-1:]), "stop"),
    ):
        index = vllm_engine.resume_index(given, ids, text if reason == "length" else _without_last(steps))
        assert index == len(ids) <= max_tokens(given)
        rest = await steps_of(vllm_engine, given, ids, text)
        assert rest == ([("", [])], reason, n_prompt)
    assert vllm_engine.load().output_tokens == before


async def test_held_back_text_is_paid_out_when_the_answer_was_whole(vllm_engine: VllmEngine) -> None:
    request = ask(stop=["a stop string that never comes"])
    steps, _, _ = await steps_of(vllm_engine, request, [], "")
    ids = [token_id for _, step_ids in steps for token_id in step_ids]
    text = "".join(text for text, _ in steps)
    shown = text[: -len("a stop string that never comes") + 1]
    rest, finish, _ = await steps_of(vllm_engine, request, ids, shown)
    assert rest == [(text[len(shown) :], [])]
    assert finish == "length"


async def test_a_continuation_at_the_end_of_the_context_ends_with_length(vllm_engine: VllmEngine) -> None:
    request = Request(prompt_token_ids=[300] * 1014, max_tokens=1000, temperature=0, ignore_eos=True)
    assert (await check_every_cut(vllm_engine, request)).kept >= 1
    steps, _, _ = await steps_of(vllm_engine, request, [], "")
    ids = [token_id for _, step_ids in steps for token_id in step_ids]
    text = "".join(text for text, _ in steps)
    assert len(ids) == 10
    assert await steps_of(vllm_engine, request, ids, text) == ([("", [])], "length", 1014)


def _without_last(steps: Steps) -> str:
    return "".join(text for text, _ in steps[:-1])


def _byte_token(byte: int) -> str:
    """The token of one byte: printable bytes stand for themselves, the others follow from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + sum(1 for earlier in range(byte) if earlier not in printable))
