"""Runs one attempt in the engine, and passes its output to the journal as it is made."""

import contextlib
import logging
import traceback
from collections.abc import AsyncGenerator, Callable

from mesh.engines.base import Chunk, Work
from mesh.errors import EngineFailedError, MeshError
from mesh.job_key import JobRef
from mesh.protocol.messages import Request, Usage
from mesh.protocol.validate import seed_of
from mesh.signals import EngineEnded, Operation
from mesh.worker.actions import WorkerContext
from mesh.worker.attempt import Attempt, Begin
from mesh.worker.publisher import Publisher

log = logging.getLogger("mesh.worker")

# The outcome of an engine call: finish reason and usage, vectors, or an error. None: it was interrupted.
Outcome = tuple[str, Usage] | list[list[float]] | MeshError | None


class EngineCall:
    """One call of the engine. `run` once; its attributes then hold the outcome, also after a cancellation."""

    def __init__(
        self,
        context: WorkerContext,
        ref: JobRef,
        request: Request,
        attempt: Attempt,
        publisher: Publisher,
    ) -> None:
        self._context = context
        self._ref = ref
        self._request = request
        self._attempt = attempt
        self._publisher = publisher
        self._began_s: float | None = None
        self._tokens_before = attempt.tokens
        self.on_grown: Callable[[], None] | None = None  # called once, when output of this attempt is in the journal
        # When the engine last made output for this job, or got it; monotonic. None: the engine does not have it.
        self.progressed_s: float | None = None
        self.outcome = ""  # the finish reason, or the error's code; "" if it was interrupted
        self.is_finished = False
        self.usage = Usage()
        self.seconds = 0.0  # in the engine
        self.first_token_s: float | None = None  # from the call

    @property
    def has_begun(self) -> bool:
        """Whether the engine was called."""
        return self._began_s is not None

    @property
    def tokens(self) -> int:
        """Output tokens of this attempt."""
        return max(0, self._attempt.tokens - self._tokens_before)

    @property
    def operation(self) -> Operation:
        """The kind of work that the request asks for."""
        if self._request.input is not None:
            return "embeddings"
        return "chat" if self._request.messages is not None else "text_completion"

    async def run(self, begin: Begin) -> Outcome:
        """Run the engine from `begin` on. Raises nothing but CancelledError."""
        self._began_s = self._context.clock.monotonic_s()
        self._tokens_before = len(begin.token_ids)
        work = Work(
            job=str(self._ref.key),
            request=self._request,
            seed=seed_of(self._request, self._ref.key),
            token_ids=begin.token_ids,
            text=begin.text,
        )
        try:
            outcome = await (self._embed(work) if self._request.input is not None else self._generate(work))
        except MeshError as error:
            outcome = error
        except Exception as error:  # an engine must raise MeshErrors; anything else is a fault of the engine
            kind, where = type(error).__name__, _where(error)  # not its text, which may quote the prompt
            log.error("the engine broke its contract: %s at %s", kind, where, extra={"event": "engine_contract"})
            outcome = EngineFailedError(f"{type(error).__name__}: {error}")
        finally:
            self.progressed_s = None
            self.seconds = self._context.clock.monotonic_s() - self._began_s
        if isinstance(outcome, MeshError):
            self.outcome = outcome.code
        else:
            self.is_finished = True
            self.outcome = outcome[0] if isinstance(outcome, tuple) else "embedded"
        return outcome

    def told(self, interrupt: str | None) -> EngineEnded:
        """The signal that reports this call. `interrupt`: the reason of an interruption, if there was one."""
        return EngineEnded(
            self._ref,
            attempt=self._attempt.number,
            operation=self.operation,
            engine=self._context.engine.info.name,
            outcome=self.outcome or interrupt or "cut_short",
            is_finished=self.is_finished,
            seconds=self.seconds,
            first_token_s=self.first_token_s,
            prompt_tokens=self.usage.prompt_tokens,
            cached_tokens=self.usage.cached_tokens,
            tokens=self.tokens,
        )

    async def _embed(self, work: Work) -> list[list[float]]:
        embedding = await self._context.engine.embed(work)
        self.usage = Usage(prompt_tokens=embedding.prompt_tokens)
        return embedding.vectors

    async def _generate(self, work: Work) -> tuple[str, Usage] | MeshError:
        """Pass the engine's output to the publisher until the finish reason comes."""
        publisher, attempt, tally = self._publisher, self._attempt, self._context.streaming.tally
        clock = self._context.clock
        self.progressed_s = began_s = self._context.clock.monotonic_s()
        stream: AsyncGenerator[Chunk, None] = self._context.engine.generate(work)
        async with contextlib.aclosing(stream):
            async for chunk in stream:
                before_s, self.progressed_s = self.progressed_s, self._context.clock.monotonic_s()
                if self.first_token_s is None:
                    self.first_token_s = self.progressed_s - began_s
                elif tally is not None:
                    tally.waited(self.progressed_s - before_s)
                if self.on_grown is not None and publisher.has_grown:
                    on_grown, self.on_grown = self.on_grown, None
                    on_grown()
                attempt.produced(chunk.text, chunk.token_ids, clock.server_unix_ms())
                if chunk.finish_reason is None:
                    publisher.add(chunk.text, chunk.token_ids)
                    continue
                usage = Usage(
                    prompt_tokens=chunk.prompt_tokens,
                    completion_tokens=attempt.tokens,
                    cached_tokens=chunk.cached_tokens,
                )
                self.usage = usage
                publisher.finish(chunk.finish_reason, usage, chunk.text, chunk.token_ids)
                return chunk.finish_reason, usage
        return EngineFailedError("the engine ended the job without a finish reason")


def _where(error: Exception) -> str:
    """The file and line that raised the error."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "a place unknown"
