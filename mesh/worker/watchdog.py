"""Watches the engine from outside: does it answer, and does it get anywhere? A worker's side tasks."""

import asyncio
from collections.abc import Callable, Iterable

from mesh.clock import Clock
from mesh.engines.base import Engine
from mesh.errors import EngineDeadError
from mesh.policies.progress import ProgressPolicy
from mesh.worker.runner import Runner

PROBE_EVERY_S = 5.0
PROBE_TIMEOUT_S = 60.0  # longer than a compile or a long prefill step that stalls a healthy engine


class Watchdog:
    """`probe` and `watch` as side tasks; both return once the engine is taken for dead."""

    def __init__(
        self,
        engine: Engine,
        policy: ProgressPolicy,
        runners: Callable[[], Iterable[Runner]],
        engine_died: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """`runners` tells who runs now; `engine_died` is told why, once at most by each task."""
        self._engine = engine
        self._policy = policy
        self._runners = runners
        self._engine_died = engine_died
        self._clock = clock
        self._asked_s: float | None = None  # since when the engine owes an answer; monotonic

    def owes_s(self) -> float:
        """For how long the engine has not answered the last probe; 0: it has."""
        return self._clock.monotonic_s() - self._asked_s if self._asked_s is not None else 0.0

    def silent_s(self) -> float:
        """For how long no running job has got anywhere; 0: none runs."""
        running = [since_s for each in self._runners() if (since_s := each.progressed_s) is not None]
        return self._clock.monotonic_s() - max(running) if running else 0.0

    async def probe(self) -> None:
        """Ask the engine for a sign of life."""
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            self._asked_s = self._clock.monotonic_s()
            try:
                await self._engine.probe(PROBE_TIMEOUT_S)
                self._asked_s = None
            except EngineDeadError as error:
                self._engine_died(str(error))
                return

    async def watch(self) -> None:
        """See that tokens come, whatever the engine says of itself."""
        policy = self._policy
        looked_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(policy.look_s)
            now_s = self._clock.monotonic_s()
            was_away, looked_s = now_s - looked_s > 2 * policy.look_s + 1.0, now_s
            if was_away:  # this process was suspended or busy: what the engine made meanwhile is not read yet
                continue
            running = {runner: runner.progressed_s for runner in self._runners() if runner.progressed_s is not None}
            if policy.engine_hangs(running, now_s):
                self._engine_died(f"no token for any of {len(running)} jobs in {policy.stall_s:g} s")
                return
            for runner in policy.stalled(running, now_s):
                runner.interrupt("stalled")
