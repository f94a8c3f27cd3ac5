"""The simulator's batch: its jobs, the time of its next step, and the effect of a step. Pure.

Times are monotonic seconds. The engine sleeps until `next_due_s()` and then calls `step()`.
"""

from collections import deque
from collections.abc import Callable, Sequence

from mesh.engines.base import Chunk
from mesh.engines.simulator.cache import PrefixCache
from mesh.engines.simulator.request import SimulatedFault
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.engines.simulator.text import Writer
from mesh.errors import EngineDeadError

CATCH_UP_S = 0.1  # steps of this much time, missed while the event loop was busy, are done at once: timers are coarse


class BatchedJob:
    """One call in flight, with the output that its reader has not taken yet."""

    def __init__(
        self,
        name: str,
        writer: Writer | None,
        prompt: Sequence[int],
        fault: SimulatedFault,
        notify: Callable[[], None],
    ) -> None:
        self.name = name
        self.writer = writer  # None: an embedding, done at `ready_s`
        self.prompt = prompt
        self.fault = fault
        self.standing_tokens = 0 if writer is None else writer.count  # output tokens of an earlier attempt
        self.ready_s = 0.0  # when the prompt is computed
        self.cached_tokens = 0
        self.made_tokens = 0
        self.is_done = False
        self.is_parked = False  # the fault is due, so no more tokens come
        self.error: EngineDeadError | None = None
        self._notify = notify  # wakes the reader
        self._missed_steps = 0.0  # steps since the last token, for a job slowed by `slow`
        self._texts: list[str] = []
        self._ids: list[int] = []

    def admit(self, ready_s: float, cached_tokens: int) -> None:
        """Enter the batch, with the first token due at `ready_s`."""
        self.ready_s = ready_s
        self.cached_tokens = cached_tokens
        self._park_if_due()

    def advance(self, burst_tokens: int) -> int:
        """Take part in one step; return the number of new tokens."""
        if self.writer is None:
            self.is_done = True
            self._notify()
            return 0
        if self.fault.slow > 1 and self.made_tokens > 0:
            self._missed_steps += 1
            if self._missed_steps < self.fault.slow:
                return 0
            self._missed_steps -= self.fault.slow
        if self.fault.kind is not None:
            burst_tokens = min(burst_tokens, self.fault.after_tokens - self.made_tokens)
        text, ids = self.writer.write(burst_tokens)
        self._texts.append(text)
        self._ids += ids
        self.made_tokens += len(ids)
        self.is_done = self.writer.finish_reason is not None
        self._notify()
        self._park_if_due()
        return len(ids)

    def take(self) -> Chunk | None:
        """Return the output since the last call as one chunk; None: there is none."""
        if not self._texts:
            return None
        text = self._texts[0] if len(self._texts) == 1 else "".join(self._texts)
        ids = self._ids
        self._texts, self._ids = [], []
        if self.is_done and self.writer is not None:
            return Chunk(text, ids, self.writer.finish_reason, len(self.prompt), self.cached_tokens)
        return Chunk(text, ids)

    def fail(self, error: EngineDeadError) -> None:
        """Raise `error` in the reader after it has taken the remaining output."""
        self.error = error
        self._notify()

    def _park_if_due(self) -> None:
        if self.fault.kind is not None and self.made_tokens >= self.fault.after_tokens and not self.is_done:
            self.is_parked = True
            self._notify()


class Batch:
    """The running jobs, and the jobs that wait for a slot: first come, first served."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.cache = PrefixCache(settings.prefix_cache_tokens)
        self.running: dict[BatchedJob, None] = {}  # in order of admission
        self.waiting: deque[BatchedJob] = deque()
        self.steps = 0
        self.tokens = 0  # output tokens
        self.queried_tokens = 0  # prompt tokens looked up in the cache
        self.hit_tokens = 0  # of these, tokens found
        self._settings = settings
        self._due_s = 0.0  # the next step begins no earlier

    def enter(self, job: BatchedJob, now_s: float) -> None:
        """Admit the job, or queue it."""
        self.waiting.append(job)
        self._admit(now_s)

    def leave(self, job: BatchedJob, now_s: float) -> None:
        """Remove the job, and admit the next one that waits. Idempotent."""
        if job in self.running:
            del self.running[job]
            self._admit(now_s)
        elif job in self.waiting:
            self.waiting.remove(job)

    def clear(self) -> list[BatchedJob]:
        """Empty the batch; return the jobs that ran or waited."""
        jobs = [*self.running, *self.waiting]
        self.running.clear()
        self.waiting.clear()
        return jobs

    def next_due_s(self) -> float | None:
        """Return when the next step is due: the last one is over and a job is ready. None: no job will be ready."""
        ready_s = [job.ready_s for job in self.running if not job.is_parked]
        return max(self._due_s, min(ready_s)) if ready_s else None

    def step(self, due_s: float, now_s: float) -> None:
        """Give every ready job its next tokens; `now_s` may be later than `due_s`."""
        ready = [job for job in self.running if job.ready_s <= now_s and not job.is_parked]
        for job in ready:
            self.tokens += job.advance(self._settings.burst_tokens)
            if job.is_done:
                self.leave(job, now_s)
        self.steps += 1
        step_ms = self._settings.between_tokens_ms + self._settings.per_batch_ms * max(0, len(ready) - 1)
        self._due_s = max(due_s, now_s - CATCH_UP_S) + step_ms / 1000

    def _admit(self, now_s: float) -> None:
        """Fill the free slots. A job's prefill runs beside the others' steps; then the job joins them."""
        settings = self._settings
        while self.waiting and len(self.running) < settings.capacity:
            job = self.waiting.popleft()
            cached_tokens = self.cache.enter(job.prompt)
            self.queried_tokens += len(job.prompt)
            self.hit_tokens += cached_tokens
            fresh_tokens = len(job.prompt) - cached_tokens + job.standing_tokens
            prefill_ms = settings.first_token_ms + settings.per_prompt_token_ms * fresh_tokens
            job.admit(now_s + prefill_ms * job.fault.slow / 1000, cached_tokens)
            self.running[job] = None
