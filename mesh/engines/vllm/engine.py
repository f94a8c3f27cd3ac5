"""An `Engine` on vLLM's AsyncLLM. AsyncLLM runs in this process, and its engine core in a child process.

The contract is in mesh.engines.base. `start()` imports vLLM in a thread.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mesh.engines.base import Chunk, Embedding, EngineGauges, EngineInfo, Work
from mesh.engines.vllm.api import VllmApi
from mesh.engines.vllm.attempt import VllmAttempt, attempt_of
from mesh.engines.vllm.errors import VllmErrors
from mesh.engines.vllm.params import blamed_field, check_limits, input_field, sampling_arguments, stop_ids_of
from mesh.engines.vllm.process import core_processes, end, kill_starting_cores, running_cores, silence
from mesh.engines.vllm.prompt import Prompts
from mesh.engines.vllm.resume import Decoder, resume_index
from mesh.engines.vllm.start import StartCancelled, VllmSettings, build, parse_engine_args
from mesh.errors import EngineDeadError, EngineFailedError, MeshError, UnsupportedError
from mesh.protocol.messages import Request

__all__ = ["VllmEngine", "VllmLoad", "VllmSettings", "parse_engine_args"]

_log = logging.getLogger("mesh.engines")

# An abort is one message to the core; a core that does not take it in this time is dead.
ABORT_TIMEOUT_S = 1.0
# Inputs of one embeddings request that run side by side; more would keep other jobs waiting.
EMBED_WINDOW = 32


@dataclass(frozen=True, slots=True)
class VllmLoad:
    """The engine's current load, and its token counters since the start."""

    running: int = 0  # calls in flight that have made output
    waiting: int = 0  # calls in flight without output so far
    prompt_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens found in the prefix cache
    output_tokens: int = 0


class VllmEngine:
    """Serves one model with vLLM. Needs `mesh install vllm`."""

    # Set by `start`.
    _llm: Any = None  # AsyncLLM
    _api: VllmApi
    _errors: VllmErrors
    _prompts: Prompts
    _decoder: Decoder | None = None
    _eos_ids: frozenset[int] = frozenset()

    def __init__(self, settings: VllmSettings) -> None:
        self._settings = settings
        self._info = EngineInfo(name="vllm", version="", model=settings.model, capacity=0, max_model_len=0)
        self._is_started = False
        self._others: frozenset[int] = frozenset()  # pids of the cores of other engines in this process
        self._cancelled = threading.Event()
        self._loading: asyncio.Future[tuple[Any, VllmErrors]] | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._dead = "the engine was not started"  # why it does not serve; "": it serves
        self._calls: dict[str, bool] = {}  # vLLM's request id → whether it has made output
        self._load = VllmLoad()

    def __repr__(self) -> str:
        info, state = self._info, self._dead or "serves"
        return f"<VllmEngine {info.model} {len(self._calls)}/{info.capacity}, {state}>"

    @property
    def info(self) -> EngineInfo:
        return self._info

    def load(self) -> VllmLoad:
        """Return the load as counted in this process."""
        running = sum(self._calls.values())
        return replace(self._load, running=running, waiting=len(self._calls) - running)

    def gauges(self) -> EngineGauges:
        """Return the core's own load figures if the settings ask for them, else the load counted in this process."""
        kept, load = self._settings.gauges, self.load()
        if kept is None or self._dead:
            return EngineGauges(load.running, load.waiting)
        return kept.read()

    async def start(self) -> None:
        """Load vLLM and the model in a thread, then generate one token."""
        if self._is_started:
            raise RuntimeError("an engine starts once; make a new one")
        self._is_started = True
        self._others = running_cores()
        self._loading = asyncio.ensure_future(asyncio.to_thread(build, self._settings, self._cancelled))
        try:
            # After a cancellation the thread continues; `stop` waits for it and ends its engine.
            self._llm, self._errors = await asyncio.shield(self._loading)
        except StartCancelled:
            raise EngineDeadError("the engine was stopped while it started") from None
        try:
            self._api = VllmApi(self._llm)
            self._prompts = Prompts(self._llm, self._errors)
            self._decoder = Decoder.of(self._prompts.tokenizer)
            self._eos_ids = self._api.eos_ids(self._prompts.tokenizer)
            self._info = await self._api.describe(self._settings.model, self._prompts)
            await self._warm_up()
        except self._errors.all as error:
            raise EngineDeadError(f"vLLM broke while it started: {error!r}") from error

    async def generate(self, work: Work) -> AsyncGenerator[Chunk, None]:
        """Run one attempt, as mesh.engines.base specifies."""
        n_prompt, attempt = await self._prepare(work)
        if attempt.finish is not None:
            yield Chunk(attempt.text, (), attempt.finish, n_prompt)
            return
        calls, job, tail = self._calls, work.job, attempt.tail
        n_output, is_over, stream = 0, False, None
        calls[job] = False
        try:
            stream = self._api.generate(attempt, job)
            async for output in stream:
                completion = output.outputs[0]
                text, ids, finish = completion.text, completion.token_ids, completion.finish_reason
                if finish in ("abort", "error"):
                    raise self._broken_off(finish)
                if tail is not None:
                    text, ids, finish = tail.feed(ids, finish)
                n_output += len(ids)
                if finish is None:
                    calls[job] = True
                    if ids:
                        yield Chunk(text, ids)
                    continue
                is_over = output.finished
                cached = min(output.num_cached_tokens or 0, n_prompt)
                self._count(n_prompt, cached, n_output)
                yield Chunk(text, ids, finish, n_prompt, cached)
                return
            raise self._broken_off("no finish reason")
        except self._errors.all as error:
            raise self._mapped(error, work.request, has_output=n_output > 0) from error
        finally:
            del calls[job]
            if not is_over and stream is not None:
                await self._abandon(stream, job)

    async def embed(self, work: Work) -> Embedding:
        """Return one vector for each string of the input, in order."""
        self._check_serves(work.request)
        inputs = await self._prompts.inputs(work.request)
        vectors: list[list[float]] = []
        try:
            for first in range(0, len(inputs), EMBED_WINDOW):
                async with asyncio.TaskGroup() as group:
                    window = list(enumerate(inputs[first : first + EMBED_WINDOW], first))
                    tasks = [
                        group.create_task(self._embed_one(f"{work.job}-{index}", ids, work.request))
                        for index, ids in window
                    ]
                vectors += [task.result() for task in tasks]
        except ExceptionGroup as failures:  # the first failure cancelled the other calls
            raise failures.exceptions[0] from None
        n_tokens = sum(map(len, inputs))
        self._count(n_tokens, 0, 0)
        return Embedding(vectors, n_tokens)

    def resume_index(self, request: Request, token_ids: Sequence[int], text: str) -> int:
        """Return how many of `token_ids` an exact continuation can keep."""
        return resume_index(request, token_ids, text, self._decoder, stop_ids_of(request, self._eos_ids))

    async def probe(self, timeout_s: float) -> None:
        """Check that the core answers. vLLM's own health check only reads flags, and a hung core leaves them good."""
        self._check_alive()
        try:
            await asyncio.wait_for(self._api.ping(), timeout_s)
        except TimeoutError:
            await self._condemn(f"vLLM's engine core did not answer within {timeout_s:g} s")
            raise EngineDeadError(self._dead) from None
        except Exception as error:  # a core that a signal shuts down raises a bare Exception
            await self._condemn(f"vLLM's engine core is dead: {error!r}")
            raise EngineDeadError(self._dead) from error

    async def stop(self) -> None:
        """End the core and every call. May be called at any time, and more than once."""
        self._cancelled.set()
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._shut_down())
        await asyncio.shield(self._stopping)

    async def _prepare(self, work: Work) -> tuple[int, VllmAttempt]:
        """Return the prompt's length and the attempt. Raises every refusal that does not need vLLM."""
        request = work.request
        self._check_serves(request)
        prompts = self._prompts
        arguments = sampling_arguments(request, work.seed, n_before=len(work.token_ids))
        check_limits(request, vocab_size=prompts.vocab_size, max_model_len=prompts.max_model_len)
        prompt_ids = await prompts.token_ids(request)
        attempt = attempt_of(
            work,
            prompt_ids,
            arguments,
            max_model_len=prompts.max_model_len,
            eos_ids=self._eos_ids,
            decoder=self._decoder,
        )
        self._check_alive()  # again: tokenizing can take long, and a dead vLLM would never answer
        return len(prompt_ids), attempt

    async def _embed_one(self, request_id: str, token_ids: list[int], request: Request) -> list[float]:
        self._check_alive()
        self._calls[request_id] = False
        try:
            vector = await self._api.embed(token_ids, request_id)
            if vector is None:
                raise self._broken_off("no vector")
        except self._errors.all as error:
            raise self._mapped(error, request, has_output=False) from error
        finally:
            del self._calls[request_id]
        return vector

    def _check_alive(self) -> None:
        if self._dead:
            raise EngineDeadError(self._dead)

    def _check_serves(self, request: Request) -> None:
        self._check_alive()
        field = input_field(request)
        if field == "input" and not self._info.embeds:
            raise UnsupportedError("the model makes text, not vectors", field=field)
        if field != "input" and not self._info.generates:
            raise UnsupportedError("the model makes vectors, not text; send `input`", field=field)

    def _mapped(self, error: Exception, request: Request, *, has_output: bool) -> MeshError:
        mapped = self._errors.mapped(error, field=blamed_field(request), has_output=has_output)
        if isinstance(mapped, EngineDeadError):
            self._dead = self._dead or str(mapped)
        return mapped

    def _broken_off(self, how: str) -> MeshError:
        """Return the error for a job that vLLM ended by itself: its core got a signal, or the engine is dead."""
        return EngineDeadError(self._dead) if self._dead else EngineFailedError(f"vLLM aborted the request: {how}")

    def _count(self, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> None:
        before = self._load
        self._load = VllmLoad(
            prompt_tokens=before.prompt_tokens + prompt_tokens,
            cached_tokens=before.cached_tokens + cached_tokens,
            output_tokens=before.output_tokens + output_tokens,
        )

    async def _abandon(self, stream: AsyncGenerator[Any, None], job: str) -> None:
        """Free the slot of a call that ended early. Closing aborts the request, unless vLLM was still adding it."""
        await stream.aclose()
        if not self._dead:
            await self._abort([job])

    async def _abort(self, request_ids: list[str]) -> None:
        with contextlib.suppress(TimeoutError, *self._errors.all):
            await asyncio.wait_for(self._api.abort(request_ids), ABORT_TIMEOUT_S)

    async def _warm_up(self) -> None:
        """Generate one token, so that a failure of the first step fails the start."""
        self._dead = ""
        if self._info.generates:
            request = Request(prompt_token_ids=[0], max_tokens=1, temperature=0)
            async for _ in self.generate(Work("mesh-warm-up", request, seed=0)):
                pass
        else:
            await self._embed_one("mesh-warm-up", [0], Request(input="-"))
        self._load = VllmLoad()

    async def _condemn(self, reason: str) -> None:
        """Mark the core as dead, end its calls, and kill its processes."""
        _log.error("%s", reason, extra={"event": "engine_dead"})
        self._dead = self._dead or reason
        await self._abort(list(self._calls))
        for process in core_processes(self._llm):
            process.kill()  # a suspended or hung core does not react to another signal

    async def _shut_down(self) -> None:
        self._dead = self._dead or "the engine was stopped"
        llm = self._llm
        if llm is None and self._loading is not None:
            kill_starting_cores(self._others)
            await asyncio.wait([self._loading])
            if not self._loading.cancelled() and self._loading.exception() is None:
                llm, self._errors = self._loading.result()
        if hasattr(self, "_prompts"):
            await self._abort(list(self._calls))
            self._prompts.close()
            del self._api
        self._llm = self._loading = None
        if llm is not None:
            silence(llm)
            await asyncio.to_thread(end, llm)
