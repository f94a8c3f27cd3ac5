"""The simulated engine: an `Engine` without an accelerator or a model.

`mesh up --engine simulator`, the load tests and the chaos tests use it. `text` decides the output, `request` reads the
request and its faults, and `batch` decides which job gets tokens when. This module has the task, the timer and the
calls.

As in a real engine, one loop serves the whole batch. A step gives every running job its next tokens. It takes
`between_tokens_ms`, plus `per_batch_ms` for each further job. It does not wait for slow readers: their chunks grow
instead. The loop sleeps while no job runs. Jobs over `capacity` wait in order.
"""

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from mesh.clock import SYSTEM
from mesh.engines.base import Chunk, Embedding, EngineGauges, EngineInfo, Work
from mesh.engines.simulator.batch import Batch, BatchedJob
from mesh.engines.simulator.request import SimulatedFault, count_tokens, fault_of, inputs_of, plan_of, prompt_ids
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.engines.simulator.text import TokenSource, Writer, vector
from mesh.errors import EngineDeadError, EngineFailedError, RequestError
from mesh.protocol.messages import Request

__all__ = ["SimulatorEngine", "SimulatorLoad", "SimulatorSettings"]

VERSION = "1"  # equal requests get equal text while this is unchanged
EXIT_CODE = 17  # of a process that `exit_after` ended; neither Python nor a signal uses it

_REMEMBERED_JOBS = 4096  # jobs whose faults are counted, for `times`

logger = logging.getLogger("mesh.engines")


@dataclass(frozen=True, slots=True)
class SimulatorLoad:
    """The engine's current load, and its counters since the start."""

    running: int  # jobs in the batch
    waiting: int  # jobs over capacity
    cached_tokens: int  # prompt tokens in the cache
    steps: int
    tokens: int  # output tokens


class SimulatorEngine:
    """An `Engine` (see mesh.engines.base) that writes random sentences.

    Its settings give the speed, and requests can ask for faults. It owns one task between `start()` and `stop()`.
    """

    def __init__(self, settings: SimulatorSettings | None = None) -> None:
        self._settings = settings or SimulatorSettings()
        self._batch = Batch(self._settings)
        self._tick = asyncio.Event()  # wakes the step loop: the batch, a probe or a fault changed
        self._probes: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._is_started = False
        self._is_hung = False
        self._death: str | None = None
        self._struck: OrderedDict[str, int] = OrderedDict()  # job → times that its fault occurred here

    def __repr__(self) -> str:
        state = self._death or ("hung" if self._is_hung else "serving" if self._task else "not started")
        running, waiting = len(self._batch.running), len(self._batch.waiting)
        return f"<SimulatorEngine {state}: {running} running, {waiting} waiting>"

    @property
    def info(self) -> EngineInfo:
        """The engine's model and limits; final from the beginning."""
        return EngineInfo(
            name="simulator",
            version=VERSION,
            model=self._settings.model,
            capacity=self._settings.capacity,
            max_model_len=self._settings.max_model_len,
            embeds=True,
        )

    def load(self) -> SimulatorLoad:
        """Return the current load."""
        batch = self._batch
        return SimulatorLoad(
            running=len(batch.running),
            waiting=len(batch.waiting),
            cached_tokens=batch.cache.tokens,
            steps=batch.steps,
            tokens=batch.tokens,
        )

    def gauges(self) -> EngineGauges:
        """Return the current load; the prefix cache stands for the KV cache."""
        batch, most_tokens = self._batch, self._settings.prefix_cache_tokens
        return EngineGauges(
            running=len(batch.running),
            waiting=len(batch.waiting),
            kv_cache_ratio=min(1.0, batch.cache.tokens / most_tokens) if most_tokens else 0.0,
            prefix_queried_tokens=batch.queried_tokens,
            prefix_hit_tokens=batch.hit_tokens,
            preemptions=0,
        )

    async def start(self) -> None:
        """Begin to serve after `start_ms`.

        Raises:
            EngineDeadError: `stop()` was called during the start.
            RuntimeError: `start()` was called before; make a new engine.
        """
        if self._is_started:
            raise RuntimeError("an engine is started once; make a new one")
        self._is_started = True
        await asyncio.sleep(self._settings.start_ms / 1000)
        self._check_alive()
        self._task = asyncio.create_task(self._run(), name="simulator-steps")

    async def generate(self, work: Work) -> AsyncGenerator[Chunk, None]:
        """Run one attempt, as mesh.engines.base specifies.

        Raises:
            ValueError: `work.token_ids` cannot have shown `work.text`.
        """
        self._check_serving()
        fault = self._fault_of(work)
        prompt = prompt_ids(work.request, self._settings)
        writer = Writer(plan_of(work.request, work.seed, prompt, self._settings), work.token_ids, work.text)
        changed = asyncio.Event()
        job = BatchedJob(work.job, writer, prompt, fault, changed.set)
        self._enter(job)
        try:
            while True:
                chunk = job.take()
                if chunk is None:
                    await self._wait(job, changed)
                    continue
                yield chunk
                if chunk.finish_reason is not None:
                    return
        finally:
            self._leave(job)

    async def embed(self, work: Work) -> Embedding:
        """Return vectors of length one, equal for equal strings. Takes a slot and time as `generate` does."""
        self._check_serving()
        fault = self._fault_of(work)
        texts = inputs_of(work.request, self._settings)
        changed = asyncio.Event()
        job = BatchedJob(work.job, None, (), fault, changed.set)
        job.standing_tokens = prompt_tokens = sum(map(count_tokens, texts))
        self._enter(job)
        try:
            while not job.is_done:
                await self._wait(job, changed)
        finally:
            self._leave(job)
        return Embedding([vector(text, self._settings.embedding_dim) for text in texts], prompt_tokens)

    def resume_index(self, request: Request, token_ids: Sequence[int], text: str) -> int:
        """Return the length of `token_ids`, up to a stop among them; 0 if this engine would not have written them.

        Without a seed in the request, the job's seed is not known here, so only the text is compared.
        """
        settings = self._settings
        if not token_ids or not 0 <= min(token_ids) <= max(token_ids) < settings.vocabulary_tokens:
            return 0
        try:
            prompt = prompt_ids(request, settings)
            plan = plan_of(request, request.seed or 0, prompt, settings)
            writer = Writer(plan, token_ids, text)
        except (RequestError, ValueError):
            return 0
        if request.temperature == 0 or request.seed is not None:
            own = TokenSource(plan.key, plan.vocabulary_tokens).tokens(0, writer.count)
            if own != list(token_ids[: writer.count]):
                return 0
        return writer.count

    async def probe(self, timeout_s: float) -> None:
        """Check that the step loop answers.

        Raises:
            EngineDeadError: the engine is dead, or did not answer within `timeout_s`.
        """
        self._check_serving()
        answer = asyncio.get_running_loop().create_future()
        self._probes.append(answer)
        self._tick.set()
        try:
            async with asyncio.timeout(timeout_s):
                await answer
        except TimeoutError:
            raise EngineDeadError(f"the simulator did not answer a probe within {timeout_s} s") from None
        finally:
            self._probes.remove(answer)

    async def stop(self) -> None:
        """Stop the step loop; calls in flight raise EngineDeadError. Idempotent."""
        self._die("stopped")
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _check_alive(self) -> None:
        if self._death is not None:
            raise EngineDeadError(f"the simulator is dead: {self._death}")

    def _check_serving(self) -> None:
        self._check_alive()
        if self._task is None:
            raise RuntimeError("the engine was not started")

    def _fault_of(self, work: Work) -> SimulatedFault:
        fault = fault_of(work.request)
        is_spent = fault.times is not None and self._struck.get(work.job, 0) >= fault.times
        if is_spent or (fault.fresh_only and work.token_ids):
            return SimulatedFault(slow=fault.slow)
        return fault

    def _enter(self, job: BatchedJob) -> None:
        self._batch.enter(job, SYSTEM.monotonic_s())
        self._tick.set()

    def _leave(self, job: BatchedJob) -> None:
        self._batch.leave(job, SYSTEM.monotonic_s())
        self._tick.set()  # another job may have got the slot

    async def _wait(self, job: BatchedJob, changed: asyncio.Event) -> None:
        """Wait for more output, after the reader has taken all of it."""
        if job.error is not None:
            raise job.error
        if job.is_parked:
            self._strike(job)
            changed.clear()
        await changed.wait()
        changed.clear()

    def _strike(self, job: BatchedJob) -> None:
        """Apply the job's fault. Returns where the job hangs."""
        self._struck[job.name] = self._struck.pop(job.name, 0) + 1
        if len(self._struck) > _REMEMBERED_JOBS:
            self._struck.popitem(last=False)
        match job.fault.kind:
            case "fail":
                raise EngineFailedError(f"simulated failure after {job.made_tokens} tokens")
            case "die":
                self._die(f"simulated death after {job.made_tokens} tokens")
                self._check_alive()
            case "exit":
                os._exit(EXIT_CODE)
            case "hang_engine":
                self._is_hung = True

    def _die(self, reason: str) -> None:
        if self._death is not None:
            return
        self._death = reason
        error = EngineDeadError(f"the simulator is dead: {reason}")
        for answer in self._probes:
            if not answer.done():
                answer.set_exception(error)
        for job in self._batch.clear():
            job.fail(error)

    async def _run(self) -> None:
        try:
            await self._run_steps()
        except Exception as error:
            # A bug of the simulator: the callers that wait must get the error, and the worker replaces the engine.
            logger.exception("the simulator broke; its jobs end", extra={"event": "engine_broke"})
            self._die(f"{type(error).__name__}: {error}")

    async def _run_steps(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._tick.clear()
            due_s = None
            if not self._is_hung:
                self._answer_probes()
                due_s = self._batch.next_due_s()
            now_s = SYSTEM.monotonic_s()
            if due_s is not None and due_s <= now_s:
                self._batch.step(due_s, now_s)
                await asyncio.sleep(0)  # lets the readers run
                continue
            timer = None if due_s is None else loop.call_later(due_s - now_s, self._tick.set)
            try:
                await self._tick.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def _answer_probes(self) -> None:
        for answer in self._probes:
            if not answer.done():
                answer.set_result(None)
