"""Watches a worker's engine in two side tasks: one checks that it answers, one that its jobs make progress."""

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
    """Runs `probe` and `watch` as side tasks; both return once the engine counts as dead."""

    def __init__(
        self,
        engine: Engine,
        policy: ProgressPolicy,
        runners: Callable[[], Iterable[Runner]],
        engine_died: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """`runners` returns the running jobs. Each task calls `engine_died` with the reason, once at most."""
        self._engine = engine
        self._policy = policy
        self._runners = runners
        self._engine_died = engine_died
        self._clock = clock
        self._asked_s: float | None = None  # since when the engine owes an answer; monotonic

    def owes_s(self) -> float:
        """Seconds since the last probe, if the engine has not answered it; 0: it has."""
        return self._clock.monotonic_s() - self._asked_s if self._asked_s is not None else 0.0

    def silent_s(self) -> float:
        """Seconds since any running job made progress; 0: none runs."""
        running = [since_s for each in self._runners() if (since_s := each.progressed_s) is not None]
        return self._clock.monotonic_s() - max(running) if running else 0.0

    async def probe(self) -> None:
        """Side task: probe the engine at a steady period."""
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
        """Side task: check that running jobs make tokens, independently of the engine's own health."""
        policy = self._policy
        looked_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(policy.look_s)
            now_s = self._clock.monotonic_s()
            was_away, looked_s = now_s - looked_s > 2 * policy.look_s + 1.0, now_s
            if was_away:  # this process was suspended or busy, and has not read the engine's output yet
                continue
            running = {runner: runner.progressed_s for runner in self._runners() if runner.progressed_s is not None}
            if policy.engine_hangs(running, now_s):
                self._engine_died(f"no token for any of {len(running)} jobs in {policy.stall_s:g} s")
                return
            for runner in policy.stalled(running, now_s):
                runner.interrupt("stalled")
