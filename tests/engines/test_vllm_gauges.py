"""A real vLLM on CPU reports its load."""

import asyncio
import itertools

import pytest

from mesh.engines.base import Gauged, Work
from mesh.engines.vllm.engine import VllmEngine
from mesh.protocol.messages import Request
from tests.running import present, wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

_jobs = itertools.count()


async def run(engine: VllmEngine, prompt: str, max_tokens: int) -> None:
    request = Request(prompt=prompt, max_tokens=max_tokens, temperature=0, ignore_eos=True)
    async for _ in engine.generate(Work(f"gauged-{next(_jobs)}", request, seed=1)):
        pass


async def test_the_scheduler_tells_of_what_runs_and_of_its_cache(vllm_engine: VllmEngine) -> None:
    assert isinstance(vllm_engine, Gauged)
    running = [asyncio.create_task(run(vllm_engine, f"Story {n} of the fox and its friends", 400)) for n in range(4)]
    try:
        await wait_until(lambda: vllm_engine.gauges().running > 1, 60)
        assert 0 < (vllm_engine.gauges().kv_cache_ratio or 0) <= 1
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_prompt_that_was_there_before_hits_the_prefix_cache(vllm_engine: VllmEngine) -> None:
    prompt = (
        "Once upon a time there was a fox who lived in the forest, and it was cold. " * 10
    )  # longer than a block of the cache
    await run(vllm_engine, prompt, 1)
    before = vllm_engine.gauges()
    await run(vllm_engine, prompt, 1)
    after = vllm_engine.gauges()
    assert present(after.prefix_queried_tokens) > present(before.prefix_queried_tokens)
    assert present(after.prefix_hit_tokens) > present(before.prefix_hit_tokens)


async def test_the_rest_of_its_statistics_stays_off(vllm_engine: VllmEngine) -> None:
    assert vllm_engine._llm.log_stats is False
    assert len(vllm_engine._llm.logger_manager.stat_loggers) == 1
