"""One engine for every measure: engines that differ in speed, chosen by the first word of the prompt.

The mesh's worker and the floor's worker run the same one, so what differs between them is not the engine.
"""

import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Sequence

from mesh.engines.base import Chunk, Embedding, Engine, EngineInfo, Work
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.engines.simulator.request import plan_of, prompt_ids
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.engines.simulator.text import Writer
from mesh.protocol.messages import Request

CAPACITY = 128  # twice as many as any measure has open: the engine's queue is not what is measured
PACED = "paced"
INSTANT = "instant"
INTERVAL_S = 0.010  # between two tokens of a paced stream


def _settings(burst_tokens: int = 1, between_tokens_ms: float = 0.0) -> SimulatorSettings:
    return SimulatorSettings(
        first_token_ms=0,
        per_prompt_token_ms=0,
        between_tokens_ms=between_tokens_ms,
        per_batch_ms=0,
        burst_tokens=burst_tokens,
        capacity=CAPACITY,
    )


# Simulators step a batch, as real engines do: one task makes the tokens of all jobs, and each job waits for its own.
SIMULATED = {
    "fast": _settings(),
    "burst": _settings(burst_tokens=16),
    PACED: _settings(between_tokens_ms=INTERVAL_S * 1000),
}


def prompt_of(profile: str, number: int) -> str:
    """A prompt for this profile; different numbers get different answers."""
    return f"{profile} prompt number {number}"


@functools.cache
def expected(prompt: str, n_tokens: int) -> tuple[str, list[int]]:
    """Text and ids of the answer at temperature 0. Kept, not to be changed."""
    settings = SIMULATED.get(prompt.partition(" ")[0], SIMULATED["fast"])  # what they write does not depend on speed
    request = Request(prompt=prompt, max_tokens=n_tokens, temperature=0)
    return Writer(plan_of(request, None, prompt_ids(request, settings), settings)).write(n_tokens)


@functools.cache
def chunks_of(prompt: str, n_tokens: int) -> list[Chunk]:
    """The answer in chunks of one token. Made once, so that making them is not what is measured; not to be changed."""
    chunks, shown = [], ""
    for count in range(1, n_tokens + 1):
        text, token_ids = expected(prompt, count)
        assert text.startswith(shown), "a longer answer begins with the shorter ones"
        chunks.append(Chunk(text[len(shown) :], token_ids[-1:], "length" if count == n_tokens else None))
        shown = text
    return chunks


async def _instant(work: Work) -> AsyncGenerator[Chunk, None]:
    """As fast as an engine can be: one token after the other, without ever giving the loop away."""
    for chunk in chunks_of(str(work.request.prompt), work.request.max_tokens or 1):
        yield chunk


class BenchEngine:
    """An `Engine`; what paced jobs are due is kept until `take_times`."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {name: SimulatorEngine(each) for name, each in SIMULATED.items()}
        self._times: dict[str, tuple[float, float]] = {}

    @property
    def info(self) -> EngineInfo:
        return self._engines[PACED].info

    async def start(self) -> None:
        for engine in self._engines.values():
            await engine.start()

    def generate(self, work: Work) -> AsyncGenerator[Chunk, None]:
        profile = (work.request.prompt or "").partition(" ")[0]
        if profile == INSTANT:
            return _instant(work)
        engine = self._engines[profile]
        return self._timed(engine, work) if profile == PACED else engine.generate(work)

    async def _timed(self, engine: Engine, work: Work) -> AsyncGenerator[Chunk, None]:
        """Note when the engine got the job, and when its first token was due.

        The engine's steps are a grid; the token that was fetched with the least delay shows where it lies.
        """
        entered_s, due_s, count = time.monotonic(), float("inf"), 0
        try:
            async with contextlib.aclosing(engine.generate(work)) as stream:
                async for chunk in stream:
                    count += len(chunk.token_ids)
                    due_s = min(due_s, time.monotonic() - (count - 1) * INTERVAL_S)
                    yield chunk
        finally:  # a reader that has the last chunk closes us there
            self._times[work.job.rpartition(".")[2]] = (entered_s, due_s)

    def take_times(self) -> dict[str, tuple[float, float]]:
        """By job: when the engine got it and when its first token was due, monotonic seconds; then forgotten."""
        times, self._times = self._times, {}
        return times

    async def embed(self, work: Work) -> Embedding:
        return await self._engines[PACED].embed(work)

    def resume_index(self, request: Request, token_ids: Sequence[int], text: str) -> int:
        return self._engines[PACED].resume_index(request, token_ids, text)

    async def probe(self, timeout_s: float) -> None:
        for engine in self._engines.values():
            await engine.probe(timeout_s)

    async def stop(self) -> None:
        for engine in self._engines.values():
            await engine.stop()
