"""The engine of the scale benchmark: simulators side by side, each of which steps for a few jobs only.

One simulator gives all of its jobs their tokens in one instant; the streams of a real mesh do not all move in step. The
first word of a prompt, see tests.bench.engine, says which pace is asked for: `FIRST:BETWEEN`, the milliseconds before
the first token and between two.
"""

from collections.abc import AsyncGenerator, Sequence

from mesh.engines.base import Chunk, Embedding, Engine, EngineInfo, Work
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.protocol.messages import Request

GROUP = 25  # jobs in step
FAST = "0:0"  # no delays


def _settings(pace: str, capacity: int) -> SimulatorSettings:
    first, _, between = pace.partition(":")
    return SimulatorSettings(
        first_token_ms=float(first),
        per_prompt_token_ms=0,
        between_tokens_ms=float(between),
        per_batch_ms=0,
        capacity=capacity,
    )


class ScaleEngine:
    """An `Engine` that runs `capacity` jobs at once, at any of `paces`."""

    def __init__(self, capacity: int, paces: Sequence[str]) -> None:
        self._capacity = capacity
        groups = -(-capacity // GROUP)
        self._groups: dict[str, list[Engine]] = {
            pace: [SimulatorEngine(_settings(pace, capacity)) for _ in range(1 if pace == FAST else groups)]
            for pace in paces
        }
        self._taken = dict.fromkeys(paces, 0)  # jobs so far
        self._any = self._groups[paces[0]][0]

    @property
    def info(self) -> EngineInfo:
        return self._any.info

    async def start(self) -> None:
        for engine in self._all():
            await engine.start()

    def generate(self, work: Work) -> AsyncGenerator[Chunk, None]:
        """GROUP jobs after each other go to one simulator, so those that come over a while step over a while."""
        pace = (work.request.prompt or "").partition(" ")[0]
        groups, taken = self._groups[pace], self._taken[pace]
        self._taken[pace] = taken + 1
        return groups[taken // GROUP % len(groups)].generate(work)

    async def embed(self, work: Work) -> Embedding:
        return await self._any.embed(work)

    def resume_index(self, request: Request, token_ids: Sequence[int], text: str) -> int:
        return self._any.resume_index(request, token_ids, text)

    async def probe(self, timeout_s: float) -> None:
        await self._any.probe(timeout_s)

    async def stop(self) -> None:
        for engine in self._all():
            await engine.stop()

    def _all(self) -> list[Engine]:
        return [engine for engines in self._groups.values() for engine in engines]
