"""The conformance kit: the tests that every engine must pass.

Subclass `EngineConformance` in a test module, and give it two fixtures:

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        async def engine(self) -> AsyncGenerator[Engine, None]:
            engine = MyEngine(...)
            await engine.start()
            yield engine
            await engine.stop()

        @pytest.fixture
        def make_request(self) -> Callable[..., Request]:
            return lambda **fields: Request(**({"prompt": "Tell me a story."} | fields))

`make_request(**fields)` is a request with a prompt that the engine serves; it must let `fields` overrule all it
sets. An engine that many tests share may overrule `doomed_engine`, the one that is stopped in the last test.
The tests check what mesh.engines.base says, and nothing about quality. Each sentence there has its test here.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from mesh.engines.base import Chunk, Engine, Work
from mesh.errors import EngineDeadError, RequestError, TooLargeError
from mesh.protocol.messages import Request, StructuredOutputs
from mesh.protocol.validate import max_tokens

MakeRequest = Callable[..., Request]
Generator = AsyncGenerator[Chunk, None]

SEED = 7
_numbers = itertools.count()


@dataclass(frozen=True)
class Run:
    """The chunks of one call, from the first to the last."""

    chunks: list[Chunk]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def token_ids(self) -> list[int]:
        return [token_id for chunk in self.chunks for token_id in chunk.token_ids]

    @property
    def finish_reason(self) -> str | None:
        return self.chunks[-1].finish_reason

    def cuts(self) -> list[tuple[list[int], str]]:
        """Return token ids and text after each chunk but the last."""
        parts = [Run(self.chunks[:count]) for count in range(1, len(self.chunks))]
        return [(part.token_ids, part.text) for part in parts]


def work_for(request: Request, *, seed: int = SEED, token_ids: Sequence[int] = (), text: str = "") -> Work:
    """Work under a job name of its own."""
    return Work(f"conformance-{next(_numbers)}", request, seed, tuple(token_ids), text)


async def run(engine: Engine, work: Work) -> Run:
    """Iterate to the end, checking what every call owes."""
    async with aclosing(engine.generate(work)) as generator:
        chunks = [chunk async for chunk in generator]
    assert chunks, "no chunk at all"
    for chunk in chunks[:-1]:
        assert chunk.finish_reason is None, f"a finish_reason before the last chunk: {chunk}"
        assert len(chunk.token_ids) >= 1, f"a chunk without a token id that is not the last: {chunk}"
    last = chunks[-1]
    assert last.finish_reason, f"no finish_reason on the last chunk: {last}"
    assert last.prompt_tokens > 0, f"no prompt_tokens on the last chunk: {last}"
    assert 0 <= last.cached_tokens <= last.prompt_tokens, f"more tokens cached than there are: {last}"
    result = Run(chunks)
    total = len(work.token_ids) + len(result.token_ids)
    assert total <= max_tokens(work.request), f"{total} tokens, {max_tokens(work.request)} allowed"
    return result


def inner_part(text: str, chars: int) -> str:
    """Some characters from the middle of `text` that do not occur in it before."""
    middle = (len(text) - chars) // 2
    for at in range(middle, len(text) - chars):
        part = text[at : at + chars]
        if text.find(part) == at and "\ufffd" not in part:
            return part
    pytest.fail(f"no part of the output can serve as a stop string: {text!r}")


async def read_on(generator: Generator, begun: asyncio.Event) -> None:
    async for _ in generator:
        begun.set()


class EngineConformance:
    """Subclass this; see the module's docstring."""

    # The contract says "milliseconds". The bound is wider, as the machine may be busy; the best of three counts.
    refusal_s = 0.5
    # Until an abandoned job's slot is free: "within a second", says the contract.
    release_s = 1.0
    # Until something that must happen counts as not happening.
    patience_s = 30.0
    # False where a batch's size shifts the last bits of a sum, as in bfloat16: then texts are not compared.
    exact_under_load = True

    @pytest.fixture
    def doomed_engine(self, engine: Engine) -> Engine:
        """The engine that the last test stops for good."""
        return engine

    @pytest.fixture
    def ask(self, engine: Engine, make_request: MakeRequest) -> MakeRequest:
        """Requests for a fixed number of tokens, alike every time."""
        if not engine.info.generates:
            pytest.skip("this engine does not generate")
        usual = {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True}
        return lambda **fields: make_request(**(usual | fields))

    def long(self, engine: Engine, ask: MakeRequest) -> Request:
        """A request that is still running while a test looks at it."""
        return ask(max_tokens=(engine.info.max_model_len or 2048) // 2)

    def bad_requests(self, engine: Engine, ask: MakeRequest) -> list[Request]:
        """Requests that must be refused; overrule it to add what the engine is known not to serve."""
        bad = [Request(input="an embedding is not generated")]
        if limit := engine.info.max_model_len:
            bad += [
                ask(prompt=None, messages=None, prompt_token_ids=[1] * (limit + 1)),
                ask(prompt="word " * 5 * limit, messages=None, prompt_token_ids=None),
            ]
        return bad

    async def test_info_says_what_the_engine_is(self, engine: Engine) -> None:
        info = engine.info
        assert info.name
        assert info.version
        assert info.model
        assert info.capacity >= 1
        assert info.max_model_len >= 0
        assert info.generates or info.embeds
        assert engine.info == info

    @pytest.mark.parametrize("most", [1, 2, 13])
    async def test_max_tokens_ends_the_output(self, engine: Engine, ask: MakeRequest, most: int) -> None:
        result = await run(engine, work_for(ask(max_tokens=most)))
        assert len(result.token_ids) == most
        assert result.finish_reason == "length"

    @pytest.mark.parametrize("temperature", [0.0, 0.9])
    async def test_equal_work_gives_equal_output(self, engine: Engine, ask: MakeRequest, temperature: float) -> None:
        request = ask(temperature=temperature)
        first, second = [await run(engine, work_for(request)) for _ in range(2)]
        assert first.text
        assert (first.text, first.token_ids) == (second.text, second.token_ids)

    async def test_no_seed_counts_at_temperature_zero(self, engine: Engine, ask: MakeRequest) -> None:
        first, second = [await run(engine, work_for(ask(), seed=seed)) for seed in (1, 2)]
        assert (first.text, first.token_ids) == (second.text, second.token_ids)

    @pytest.mark.parametrize("chars", [2, 5, 12])  # within a token, and over several
    @pytest.mark.parametrize("included", [False, True])
    async def test_a_stop_string_ends_the_output(
        self, engine: Engine, ask: MakeRequest, included: bool, chars: int
    ) -> None:
        whole = await run(engine, work_for(ask()))
        stop = inner_part(whole.text, chars)
        request = ask(stop=["\x00 never", stop], include_stop_str_in_output=included)
        result = await run(engine, work_for(request))
        end = whole.text.index(stop) + (len(stop) if included else 0)
        assert result.text == whole.text[:end]
        assert result.token_ids == whole.token_ids[: len(result.token_ids)]
        assert result.finish_reason == "stop"

    async def test_a_stop_string_that_never_comes_hides_nothing(self, engine: Engine, ask: MakeRequest) -> None:
        whole = await run(engine, work_for(ask()))
        for stop in (whole.text[-9:] + "\x00", "\x00 never"):
            result = await run(engine, work_for(ask(stop=stop)))
            assert (result.text, result.token_ids) == (whole.text, whole.token_ids)

    async def test_a_stop_token_ends_the_output(self, engine: Engine, ask: MakeRequest) -> None:
        whole = await run(engine, work_for(ask()))
        stop = whole.token_ids[len(whole.token_ids) // 2]
        result = await run(engine, work_for(ask(stop_token_ids=[stop])))
        assert result.token_ids == whole.token_ids[: whole.token_ids.index(stop) + 1]
        assert whole.text.startswith(result.text)
        assert result.finish_reason == "stop"

    async def test_min_tokens_come_before_any_stop(self, engine: Engine, ask: MakeRequest) -> None:
        stop = (await run(engine, work_for(ask()))).text[:1]
        result = await run(engine, work_for(ask(stop=stop, min_tokens=8)))
        assert len(result.token_ids) >= 8

    async def test_a_constraint_is_honoured_or_refused(self, engine: Engine, ask: MakeRequest) -> None:
        whole = await run(engine, work_for(ask()))
        some = whole.token_ids[-1]
        words = sorted(set(whole.text.split()))
        cases: list[tuple[dict[str, Any], Callable[[Run], bool]]] = [
            ({"structured_outputs": StructuredOutputs(choice=["yes", "no"])}, lambda r: r.text in ("yes", "no")),
            ({"allowed_token_ids": [some]}, lambda r: set(r.token_ids) == {some}),
            ({"logit_bias": {str(some): 100.0}}, lambda r: set(r.token_ids) == {some}),
            # Any of them: vLLM bans a word within a text only if it has as many tokens there as at its beginning.
            ({"bad_words": words}, lambda r: r.text != whole.text),
        ]
        for fields, is_honoured in cases:
            try:
                # Where a structure is complete the output ends, unless the end is to be ignored.
                result = await run(engine, work_for(ask(ignore_eos=False, **fields)))
            except RequestError:
                continue
            assert is_honoured(result), f"{fields} was ignored: {result.text!r}"

    async def test_a_bad_request_is_refused_at_once_and_harms_nothing(self, engine: Engine, ask: MakeRequest) -> None:
        before = await run(engine, work_for(ask()))
        for request in self.bad_requests(engine, ask):
            taken_s = []
            for _ in range(3):
                begin_s = time.perf_counter()
                with pytest.raises(RequestError):
                    await anext(engine.generate(work_for(request)))
                taken_s.append(time.perf_counter() - begin_s)
            assert min(taken_s) < self.refusal_s, f"refused after {min(taken_s):.3f} s: {str(request)[:200]}"
        after = await run(engine, work_for(ask()))
        assert (before.text, before.token_ids) == (after.text, after.token_ids)

    async def test_a_prompt_longer_than_the_context_is_too_large(self, engine: Engine, ask: MakeRequest) -> None:
        if not engine.info.max_model_len:
            pytest.skip("this engine has no limit")
        ids = [1] * (engine.info.max_model_len + 1)
        with pytest.raises(TooLargeError):
            await anext(engine.generate(work_for(ask(prompt=None, messages=None, prompt_token_ids=ids))))

    async def test_jobs_up_to_capacity_do_not_disturb_each_other(self, engine: Engine, ask: MakeRequest) -> None:
        requests = [ask(prompt=f"{number}, once more", messages=None) for number in range(6)]
        alone = [await run(engine, work_for(request)) for request in requests]
        crowd = [requests[number % len(requests)] for number in range(engine.info.capacity)]
        together = await asyncio.gather(*(run(engine, work_for(request)) for request in crowd))
        for number, result in enumerate(together):
            expected = alone[number % len(requests)]
            assert len(result.token_ids) == len(expected.token_ids)
            if self.exact_under_load:
                assert (result.text, result.token_ids) == (expected.text, expected.token_ids)

    @pytest.mark.parametrize("way", ["closed", "cancelled", "cancelled before its first chunk"])
    async def test_an_abandoned_job_frees_its_slot(self, engine: Engine, ask: MakeRequest, way: str) -> None:
        request = self.long(engine, ask)
        usual_s = await self.abandon(engine, request, "closed")
        await self.abandon(engine, request, way)
        after_s = await self.abandon(engine, request, "closed")  # as many find a slot, all at the same time
        assert after_s < self.release_s + 3 * usual_s, f"begun after {after_s:.3f} s, {usual_s:.3f} s at first"
        await run(engine, work_for(ask()))

    async def abandon(self, engine: Engine, request: Request, way: str) -> float:
        """Run as many jobs as the engine takes, and end all of them before they are done.

        Returns the seconds until all had begun, where the way to end them lets them begin.
        """
        begin_s = time.perf_counter()
        generators = [engine.generate(work_for(request)) for _ in range(engine.info.capacity)]
        if way == "closed":
            async with asyncio.timeout(self.patience_s):
                first = await asyncio.gather(*(anext(generator) for generator in generators))
            begun_s = time.perf_counter() - begin_s
            assert all(chunk.finish_reason is None for chunk in first), "the request was not long enough"
            await asyncio.gather(*(generator.aclose() for generator in generators))
            return begun_s
        begun = [asyncio.Event() for _ in generators]
        tasks = [asyncio.create_task(read_on(*pair)) for pair in zip(generators, begun, strict=True)]
        if way == "cancelled":
            async with asyncio.timeout(self.patience_s):
                await asyncio.gather(*(event.wait() for event in begun))
        else:
            await asyncio.sleep(0)  # every task is in its first anext
        begun_s = time.perf_counter() - begin_s
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results[:3]
        return begun_s

    @pytest.mark.parametrize("kind", ["greedy", "seeded", "stop string", "included stop", "late stop"])
    async def test_a_continuation_is_exact_at_every_cut(self, engine: Engine, ask: MakeRequest, kind: str) -> None:
        fields: dict[str, Any] = {"temperature": 0.9, "seed": SEED} if kind == "seeded" else {}
        if "stop" in kind:
            stop = inner_part((await run(engine, work_for(ask()))).text, 12)
            # A late stop never completes: what is held back must be shown at the end all the same.
            fields = {"stop": stop + "\x00" if kind == "late stop" else stop}
            fields["include_stop_str_in_output"] = kind == "included stop"
        request = ask(**fields)
        whole = await run(engine, work_for(request))
        for token_ids, text in whole.cuts():
            await self.check_continuation(engine, request, whole, token_ids, text)

    async def check_continuation(
        self, engine: Engine, request: Request, whole: Run, token_ids: list[int], text: str
    ) -> None:
        """Where the engine says that it can go on, the joined output is that of the undisturbed run."""
        index = engine.resume_index(request, token_ids, text)
        assert 0 <= index <= len(token_ids)
        if index == 0:
            return
        rest = await run(engine, work_for(request, token_ids=token_ids[:index], text=text))
        at = f"continued at {index} of {len(token_ids)} tokens, after {text!r}"
        assert text + rest.text == whole.text, at
        assert token_ids[:index] + rest.token_ids == whole.token_ids, at
        assert rest.finish_reason == whole.finish_reason, at
        assert rest.chunks[-1].prompt_tokens == whole.chunks[-1].prompt_tokens, at

    async def test_nothing_shown_is_nothing_to_stand_on(self, engine: Engine, ask: MakeRequest) -> None:
        assert engine.resume_index(ask(), [], "") == 0

    @pytest.mark.parametrize("kind", ["max_tokens", "stop token", "stop string"])
    async def test_complete_work_yields_only_the_final_chunk(self, engine: Engine, ask: MakeRequest, kind: str) -> None:
        fields: dict[str, Any] = {}
        if kind != "max_tokens":
            whole = await run(engine, work_for(ask()))
            middle = whole.token_ids[len(whole.token_ids) // 2]
            is_token = kind == "stop token"
            fields = {"stop_token_ids": [middle]} if is_token else {"stop": inner_part(whole.text, 3)}
        request = ask(**fields)
        whole = await run(engine, work_for(request))
        if engine.resume_index(request, whole.token_ids, whole.text) < len(whole.token_ids):
            pytest.skip("the engine would not go on from here")
        rest = await run(engine, work_for(request, token_ids=whole.token_ids, text=whole.text))
        assert len(rest.chunks) == 1
        assert (rest.text, rest.token_ids) == ("", [])
        assert rest.finish_reason == whole.finish_reason

    async def test_it_embeds_or_refuses_to(self, engine: Engine) -> None:
        texts = ["one", "another", "one"]
        if not engine.info.embeds:
            with pytest.raises(RequestError):
                await engine.embed(work_for(Request(input=texts)))
            return
        many = await engine.embed(work_for(Request(input=texts)))
        one = await engine.embed(work_for(Request(input="one")))
        assert len(many.vectors) == len(texts)
        assert len({len(vector) for vector in many.vectors}) == 1
        assert many.vectors[0] == pytest.approx(many.vectors[2], abs=1e-5)
        assert many.vectors[0] == pytest.approx(one.vectors[0], abs=1e-2)
        assert many.vectors[0] != pytest.approx(many.vectors[1], abs=1e-5)
        assert 0 < one.prompt_tokens < many.prompt_tokens
        with pytest.raises(RequestError):
            await engine.embed(work_for(Request(prompt="not an input")))

    async def test_it_answers_probes_when_idle_and_when_busy(self, engine: Engine, ask: MakeRequest) -> None:
        await engine.probe(self.patience_s)
        async with aclosing(engine.generate(work_for(self.long(engine, ask)))) as generator:
            await anext(generator)
            await engine.probe(self.patience_s)

    async def test_stopping_ends_everything_and_may_be_repeated(
        self, doomed_engine: Engine, make_request: MakeRequest
    ) -> None:
        generator = None
        if doomed_engine.info.generates:
            most = (doomed_engine.info.max_model_len or 2048) // 2
            request = make_request(max_tokens=most, ignore_eos=True)
            generator = doomed_engine.generate(work_for(request))
            await anext(generator)
        async with asyncio.timeout(self.patience_s):
            await doomed_engine.stop()
            await doomed_engine.stop()
            if generator is not None:
                with pytest.raises(EngineDeadError):
                    await read_on(generator, asyncio.Event())
                with pytest.raises(EngineDeadError):
                    await anext(doomed_engine.generate(work_for(make_request())))
            with pytest.raises(EngineDeadError):
                await doomed_engine.probe(self.patience_s)
