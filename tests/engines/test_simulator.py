"""The simulator keeps the contract, and is what the load and chaos tests take it for."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest

from mesh.engines.simulator.batch import CATCH_UP_S, Batch, BatchedJob
from mesh.engines.simulator.cache import PrefixCache
from mesh.engines.simulator.engine import EXIT_CODE, SimulatorEngine, SimulatorSettings
from mesh.engines.simulator.request import SimulatedFault
from mesh.engines.simulator.text import Plan, Writer, output_key, piece
from mesh.errors import (
    ConfigError,
    EngineDeadError,
    EngineFailedError,
    InvalidRequestError,
    TooLargeError,
    UnsupportedError,
)
from mesh.protocol.messages import Message, Request, ResponseFormat, StructuredOutputs
from tests.engines.conformance import EngineConformance, run, work_for

FAST: dict[str, Any] = {
    "first_token_ms": 0.0,
    "per_prompt_token_ms": 0.0,
    "between_tokens_ms": 0.0,
    "per_batch_ms": 0.0,
}
NO_FAULT = SimulatedFault()
PATIENCE_S = 20.0  # until what must happen counts as not happening


@asynccontextmanager
async def serving(**fields: Any) -> AsyncGenerator[SimulatorEngine, None]:
    """A started engine without delays, but for those in `fields`."""
    engine = SimulatorEngine(SimulatorSettings(**(FAST | fields)))
    await engine.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield engine
    finally:
        await engine.stop()


def ask(**fields: Any) -> Request:
    usual: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 20}
    return Request(**(usual | fields))


async def read_into(seen: list[int], engine: SimulatorEngine, request: Request) -> None:
    """Keeps the token ids that came before an error, too."""
    async for chunk in engine.generate(work_for(request)):
        seen += chunk.token_ids


def faulty(**simulate: Any) -> Request:
    return ask(metadata={"simulate": simulate})


class TestSimulator(EngineConformance):
    """One token a chunk, so that every cut is tried."""

    burst_tokens = 1

    @pytest.fixture
    async def engine(self) -> AsyncGenerator[SimulatorEngine, None]:
        # The context is long, so that a job that was abandoned and not ended is seen to run on.
        async with serving(
            between_tokens_ms=0.2,
            capacity=12,
            max_model_len=131_072 * self.burst_tokens,
            burst_tokens=self.burst_tokens,
        ) as engine:
            yield engine

    @pytest.fixture
    def make_request(self) -> Callable[..., Request]:
        return ask


class TestSimulatorInBursts(TestSimulator):
    """Five tokens a chunk: stops and cuts fall inside of chunks."""

    burst_tokens = 5


async def test_every_cut_of_its_own_output_can_be_continued() -> None:
    async with serving() as engine:
        for stop in (None, "nothing like it"):
            request = ask(temperature=0.5, seed=3, max_tokens=64, stop=stop)
            whole = await run(engine, work_for(request, seed=3))
            for token_ids, text in whole.cuts():
                assert engine.resume_index(request, token_ids, text) == len(token_ids)


async def test_tokens_it_would_not_have_written_cannot_be_continued() -> None:
    async with serving() as engine:
        whole = await run(engine, work_for(ask(temperature=0.0)))
        ids, text = whole.token_ids, whole.text
        assert engine.resume_index(ask(temperature=0.0), ids, text) == len(ids)
        assert engine.resume_index(ask(temperature=0.0, prompt="Another"), ids, text) == 0
        assert engine.resume_index(ask(temperature=0.5, seed=1), ids, text) == 0
        assert engine.resume_index(ask(), ids, text) == len(ids)  # the seed is the mesh's secret
        assert engine.resume_index(ask(), ids, text + "!") == 0
        assert engine.resume_index(ask(), [*ids[:-1], 2**31 - 1], text) == 0
        assert engine.resume_index(ask(prompt="x" * 100_000), ids, text) == 0
        with pytest.raises(ValueError, match="cannot have shown"):
            await run(engine, work_for(ask(), token_ids=ids[:3], text="something else"))


async def test_a_picture_is_shown_by_its_second_half_and_survives_a_cut() -> None:
    async with serving() as engine:
        request = ask(max_tokens=400, temperature=0.0)
        whole = await run(engine, work_for(request))
        first_half = next(at for at, token_id in enumerate(whole.token_ids) if piece(token_id) == "")
        ids, shown = whole.cuts()[first_half]
        assert whole.cuts()[first_half - 1][1] == shown
        rest = await run(engine, work_for(request, token_ids=ids, text=shown))
        assert rest.text.strip()[0] in "🌊🌿🌙🐟🍎🔔"
        assert shown + rest.text == whole.text


async def test_equal_prompts_are_equal_however_they_are_written() -> None:
    async with serving() as engine:
        chat = ask(prompt=None, messages=[Message(role="user", content="hi")])
        assert (await run(engine, work_for(chat))).text == (await run(engine, work_for(chat))).text
        assert (await run(engine, work_for(chat))).text != (await run(engine, work_for(ask()))).text
        ids = ask(prompt=None, prompt_token_ids=[5, 6, 7])
        assert (await run(engine, work_for(ids))).chunks[-1].prompt_tokens == 3


async def test_the_output_ends_with_the_context() -> None:
    async with serving(max_model_len=16) as engine:
        result = await run(engine, work_for(ask(max_tokens=None)))
        assert len(result.token_ids) + result.chunks[-1].prompt_tokens == 16
        assert result.finish_reason == "length"
        with pytest.raises(InvalidRequestError, match=r"max_tokens: is 17; .* 16"):
            await run(engine, work_for(ask(max_tokens=17)))
        with pytest.raises(TooLargeError, match=r"prompt: 16 tokens; .* 15"):
            await run(engine, work_for(ask(prompt="x" * 61, max_tokens=1)))
        with pytest.raises(TooLargeError, match="input: 17 tokens"):
            await engine.embed(work_for(Request(input="x" * 65)))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"structured_outputs": StructuredOutputs(regex="a")}, "structured_outputs"),
        ({"response_format": ResponseFormat(type="json_object")}, "response_format"),
        ({"logit_bias": {"1": 1.0}}, "logit_bias"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids"),
        ({"bad_words": ["no"]}, "bad_words"),
    ],
)
async def test_what_it_cannot_do_it_names(fields: dict[str, Any], field: str) -> None:
    async with serving() as engine:
        with pytest.raises(UnsupportedError) as caught:
            await run(engine, work_for(ask(**fields)))
        assert caught.value.field == field


async def test_vectors_have_the_length_one() -> None:
    async with serving(embedding_dim=9) as engine:
        embedding = await engine.embed(work_for(Request(input=["a", "b"])))
        for vector in embedding.vectors:
            assert len(vector) == 9
            assert sum(number * number for number in vector) == pytest.approx(1)


# Faults on demand.


@pytest.mark.parametrize(
    ("simulate", "tokens"),
    [({"fail": True}, 0), ({"fail_after": 0}, 0), ({"fail_after": 3}, 3), ({"fail": True, "slow": 2}, 0)],
)
@pytest.mark.parametrize("burst", [1, 8])
async def test_a_failure_strikes_after_its_tokens_and_others_go_on(
    simulate: dict[str, Any], tokens: int, burst: int
) -> None:
    async with serving(burst_tokens=burst) as engine:
        whole = await run(engine, work_for(ask()))
        async with aclosing(engine.generate(work_for(ask(max_tokens=400)))) as other:
            await anext(other)
            seen: list[int] = []
            with pytest.raises(EngineFailedError, match=f"after {tokens} tokens"):
                await read_into(seen, engine, faulty(**simulate))
            assert seen == whole.token_ids[:tokens]
            await anext(other)
        await engine.probe(PATIENCE_S)
        assert engine.load().running == 0


async def test_a_fault_strikes_as_often_as_it_is_told_to() -> None:
    async with serving() as engine:
        work = work_for(faulty(fail_after=2, times=2))
        for _ in range(2):
            with pytest.raises(EngineFailedError):
                await run(engine, work)
        assert (await run(engine, work)).finish_reason == "length"


async def test_a_fault_may_spare_attempts_that_go_on() -> None:
    async with serving() as engine:
        whole = await run(engine, work_for(ask()))
        ids, text = whole.cuts()[1]
        with pytest.raises(EngineFailedError):
            await run(engine, work_for(faulty(fail_after=2, fresh_only=True)))
        with pytest.raises(EngineFailedError):
            await run(engine, work_for(faulty(fail_after=2), token_ids=ids, text=text))
        rest = await run(engine, work_for(faulty(fail_after=2, fresh_only=True), token_ids=ids, text=text))
        assert text + rest.text == whole.text


async def test_a_hanging_job_yields_no_more_while_others_go_on() -> None:
    async with serving(capacity=2) as engine:
        generator = engine.generate(work_for(faulty(hang_after=3)))
        seen = 0
        while seen < 3:
            seen += len((await anext(generator)).token_ids)
        stuck = asyncio.ensure_future(anext(generator))
        for _ in range(3):
            assert (await run(engine, work_for(ask()))).finish_reason == "length"
        assert not stuck.done()
        await engine.probe(PATIENCE_S)
        assert engine.load().running == 1
        stuck.cancel()
        await asyncio.wait([stuck])
        assert engine.load().running == 0


async def test_a_hanging_engine_gives_no_sign_of_life_and_can_be_stopped() -> None:
    async with serving() as engine:
        seen: list[int] = []
        stuck = [asyncio.create_task(read_into(seen, engine, faulty(hang_engine_after=0)))]
        await asyncio.sleep(0)  # the engine hangs from the job's first step
        stuck += [asyncio.create_task(read_into(seen, engine, ask())) for _ in range(2)]
        with pytest.raises(EngineDeadError, match="did not answer"):
            await engine.probe(0.05)
        assert not any(task.done() for task in stuck)
        assert not seen
        await engine.stop()
        for result in await asyncio.gather(*stuck, return_exceptions=True):
            assert isinstance(result, EngineDeadError)


async def test_a_dying_engine_takes_every_call_with_it() -> None:
    async with serving(capacity=3) as engine:
        others = [asyncio.create_task(run(engine, work_for(faulty(hang_after=1)))) for _ in range(2)]
        dying = asyncio.create_task(run(engine, work_for(faulty(die_after=2))))
        waiting = asyncio.create_task(engine.embed(work_for(Request(input="a"))))
        results = await asyncio.gather(*others, waiting, dying, return_exceptions=True)
        assert [type(result) for result in results] == [EngineDeadError] * 4
        assert "simulated death after 2 tokens" in str(results[3])
        with pytest.raises(EngineDeadError):
            await run(engine, work_for(ask()))
        with pytest.raises(EngineDeadError):
            await engine.embed(work_for(Request(input="a")))
        with pytest.raises(EngineDeadError):
            await engine.probe(PATIENCE_S)


def test_a_poison_request_ends_the_process_once_its_tokens_are_out() -> None:
    program = """
import asyncio
from mesh.engines.base import Work
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.protocol.messages import Request

async def main():
    engine = SimulatorEngine()
    await engine.start()
    request = Request(prompt="poison", metadata={"simulate": {"exit_after": 2}})
    async for chunk in engine.generate(Work("poison", request, 1)):
        print(len(chunk.token_ids), flush=True)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == EXIT_CODE, done.stderr
    assert sum(map(int, done.stdout.split())) == 2


@pytest.mark.parametrize(
    ("simulate", "reason"),
    [
        ("fail", "must be an object"),
        ({"explode": 1}, "unknown key 'explode'; known: refuse, fail"),
        ({"fail": 1}, "fail must be true or false"),
        ({"fail_after": -1}, "fail_after must be a whole number"),
        ({"fail_after": 1.5}, "fail_after must be a whole number"),
        ({"die_after": True}, "die_after must be a whole number"),
        ({"slow": 0.5}, "slow must be a number from 1"),
        ({"slow": "very"}, "slow must be a number"),
        ({"refuse": 3}, "refuse must be a string"),
        ({"fail_after": 1, "die_after": 1}, "fail_after and die_after"),
        ({"refuse": "not today"}, "not today"),
    ],
)
async def test_a_fault_that_cannot_be_had_is_refused(simulate: Any, reason: str) -> None:
    async with serving() as engine:
        with pytest.raises(InvalidRequestError, match=f"metadata.simulate: .*{reason}"):
            await run(engine, work_for(ask(metadata={"simulate": simulate})))
        assert (await run(engine, work_for(ask(metadata={"mine": "simulate"})))).text


# Time, as ratios of what one machine does in one test.


async def timed(engine: SimulatorEngine, *requests: Request) -> float:
    begin_s = time.perf_counter()
    await asyncio.gather(*(run(engine, work_for(request)) for request in requests))
    return time.perf_counter() - begin_s


async def test_a_batch_takes_little_longer_than_one_job() -> None:
    async with serving(between_tokens_ms=4, capacity=16) as engine:
        one = await timed(engine, ask(max_tokens=30))
        steps = engine.load().steps
        sixteen = await timed(engine, *[ask(max_tokens=30)] * 16)
        assert sixteen < 8 * one
        assert engine.load().steps - steps < 8 * steps
        assert engine.load().tokens == 17 * 30


async def test_jobs_over_capacity_wait_their_turn() -> None:
    async with serving(between_tokens_ms=0.5, capacity=2) as engine:
        order: list[str] = []

        async def note(name: str) -> None:
            await run(engine, work_for(ask()))
            order.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "abcdef":
                group.create_task(note(name))
            await asyncio.sleep(0)
            assert (engine.load().running, engine.load().waiting) == (2, 4)
        assert [set(order[:2]), set(order[2:4]), set(order[4:])] == [{"a", "b"}, {"c", "d"}, {"e", "f"}]


async def test_a_slow_reader_gets_larger_chunks_and_delays_nobody() -> None:
    async with serving() as engine, AsyncExitStack() as stack:
        slow = await stack.enter_async_context(aclosing(engine.generate(work_for(ask(max_tokens=50)))))
        first = await anext(slow)
        await run(engine, work_for(ask(max_tokens=100)))
        merged = await anext(slow)
        assert len(first.token_ids) + len(merged.token_ids) == 50
        assert merged.finish_reason == "length"
        assert engine.load().running == 0


async def test_a_slow_job_takes_more_steps_than_its_neighbour() -> None:
    async with serving(capacity=2) as engine:
        await run(engine, work_for(faulty(slow=5)))
        assert engine.load().steps == 1 + 5 * 19


async def test_a_known_prefix_is_counted_and_saves_time() -> None:
    async with serving(per_prompt_token_ms=1, prefix_cache_tokens=1024) as engine:
        request = ask(prompt="word" * 200, max_tokens=1)
        first_s = await timed(engine, request)
        again = await run(engine, work_for(request))
        assert again.chunks[-1].cached_tokens == 192  # whole blocks of 16, and never all of the prompt
        assert await timed(engine, request) < first_s / 2
        longer = await run(engine, work_for(ask(prompt="word" * 200 + "more" * 40, max_tokens=1)))
        assert longer.chunks[-1].cached_tokens == 192
        assert engine.load().cached_tokens <= 1024


async def test_nothing_wakes_up_while_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = Batch.next_due_s

    def counted(batch: Batch) -> float | None:
        nonlocal looks
        looks += 1
        return look(batch)

    monkeypatch.setattr(Batch, "next_due_s", counted)
    async with serving() as engine:
        await run(engine, work_for(ask()))
        hung = asyncio.create_task(run(engine, work_for(faulty(hang_after=0))))
        for _ in range(5):
            await asyncio.sleep(0)
        before = looks
        for _ in range(50):
            await asyncio.sleep(0)
        assert looks == before
        hung.cancel()


# The batch alone, under a clock of the test's own.


def job_of(tokens: int, prompt_tokens: int = 32, fault: SimulatedFault = NO_FAULT) -> BatchedJob:
    prompt = range(prompt_tokens)
    plan = Plan(key=output_key(prompt, 1), vocabulary_tokens=32_000, most_tokens=tokens)
    return BatchedJob("job", Writer(plan), prompt, fault, lambda: None)


def run_batch(batch: Batch, *, late_s: float = 0.0) -> list[float]:
    """Step until nothing is due; the times of the steps, each taken `late_s` after it was due."""
    times_s = []
    while (due_s := batch.next_due_s()) is not None:
        times_s.append(due_s + late_s)
        batch.step(due_s, due_s + late_s)
    return times_s


def test_a_step_takes_its_time_and_more_for_every_other_job() -> None:
    settings = SimulatorSettings(
        first_token_ms=20, per_prompt_token_ms=1, between_tokens_ms=5, per_batch_ms=2, prefix_cache_tokens=0
    )
    batch = Batch(settings)
    batch.enter(job_of(3), 100.0)
    assert run_batch(batch) == pytest.approx([100.052, 100.057, 100.062])
    batch.enter(job_of(2, fault=SimulatedFault(slow=2)), 200.0)
    assert run_batch(batch) == pytest.approx([200.104, 200.109, 200.114])
    for _ in range(4):
        batch.enter(job_of(3), 300.0)
    assert run_batch(batch) == pytest.approx([300.052, 300.063, 300.074])


def test_a_prompt_is_computed_beside_the_steps_of_others() -> None:
    batch = Batch(SimulatorSettings(first_token_ms=20, per_prompt_token_ms=0, between_tokens_ms=8, per_batch_ms=0))
    batch.enter(job_of(5), 0.0)
    batch.step(0.020, 0.020)
    late = job_of(1)
    batch.enter(late, 0.021)
    assert run_batch(batch) == pytest.approx([0.028, 0.036, 0.044, 0.052])
    assert late.take() is not None


def test_steps_missed_by_a_busy_loop_are_made_good_but_not_for_ever() -> None:
    batch = Batch(SimulatorSettings(first_token_ms=0, per_prompt_token_ms=0, between_tokens_ms=10, per_batch_ms=0))
    batch.enter(job_of(1000), 0.0)
    batch.step(0.0, 0.035)
    assert batch.next_due_s() == pytest.approx(0.010)
    batch.step(0.010, 60.0)
    assert batch.next_due_s() == pytest.approx(60.0 - CATCH_UP_S + 0.010)


def test_a_job_that_leaves_makes_room_and_a_second_leave_does_nothing() -> None:
    batch = Batch(SimulatorSettings(capacity=1))
    jobs = [job_of(5) for _ in range(3)]
    for job in jobs:
        batch.enter(job, 0.0)
    batch.leave(jobs[1], 0.0)
    batch.leave(jobs[1], 0.0)
    assert (list(batch.running), list(batch.waiting)) == ([jobs[0]], [jobs[2]])
    batch.leave(jobs[0], 0.0)
    assert (list(batch.running), list(batch.waiting)) == ([jobs[2]], [])


def test_the_prefix_cache_forgets_what_was_used_longest_ago() -> None:
    cache = PrefixCache(64)
    first, second = [1] * 33, [2] * 33
    assert [cache.enter(prompt) for prompt in (first, second, first, second)] == [0, 0, 32, 32]
    assert cache.enter([*first[:32], 9]) == 32  # used: now the second is the oldest
    assert cache.enter([3] * 32) == 0
    assert (cache.tokens, cache.enter(first)) == (64, 32)
    assert cache.enter(second) == 0
    assert PrefixCache(0).enter(first) == 0
    whole_blocks = PrefixCache(64)
    assert [whole_blocks.enter([1] * 32) for _ in range(2)] == [0, 16]  # the last token is always computed


# Life.


async def test_it_starts_once_and_serves_only_between_start_and_stop() -> None:
    engine = SimulatorEngine()
    with pytest.raises(RuntimeError, match="not started"):
        await run(engine, work_for(ask()))
    await engine.start()
    with pytest.raises(RuntimeError, match="started once"):
        await engine.start()
    await engine.stop()
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(RuntimeError, match="started once"):
        await engine.start()


async def test_a_start_that_is_stopped_fails() -> None:
    engine = SimulatorEngine(SimulatorSettings(start_ms=20))
    start = asyncio.create_task(engine.start())
    await asyncio.sleep(0)
    await engine.stop()
    with pytest.raises(EngineDeadError):
        await start
    assert len(asyncio.all_tasks()) == 1


async def test_a_bug_in_the_steps_is_a_death_and_no_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as engine:
        monkeypatch.setattr("mesh.engines.simulator.batch.Batch.step", lambda *_: 1 / 0)
        with pytest.raises(EngineDeadError, match="ZeroDivisionError"):
            await run(engine, work_for(ask()))
        with pytest.raises(EngineDeadError):
            await engine.probe(PATIENCE_S)
    assert "the simulator broke" in caplog.text


# Settings.


def test_settings_come_from_engine_arguments() -> None:
    settings = SimulatorSettings.from_engine_args({"model": "tiny", "first_token_ms": 3, "capacity": 2})
    assert (settings.model, settings.first_token_ms, settings.capacity) == ("tiny", 3, 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"capacty": 3}, "capacty=3.*did you mean capacity?"),
        ({"zzz": 1}, "zzz=1.*known: model, "),
        ({"capacity": "many"}, "capacity='many': give a whole number"),
        ({"capacity": 2.5}, "capacity=2.5: give a whole number"),
        ({"capacity": True}, "capacity=True: give a whole number"),
        ({"capacity": 0}, "capacity=0: .* at least 1"),
        ({"first_token_ms": -1}, "first_token_ms=-1: .* at least 0"),
        ({"first_token_ms": float("nan")}, "first_token_ms=nan"),
        ({"model": 3}, "model=3: give a string"),
        ({"vocabulary_tokens": 3}, "vocabulary_tokens=3: .* from"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SimulatorSettings.from_engine_args(args)
    assert caught.value.key == next(iter(args))


def test_importing_it_loads_nothing_heavy() -> None:
    program = "import sys, mesh.engines.simulator.engine; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    tops = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert not tops & {"torch", "vllm", "numpy", "transformers", "nats", "click", "starlette"}
