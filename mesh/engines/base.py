"""The `Engine` protocol: the contract between the worker and an engine that serves one model.

The worker calls, in this order and on one event loop:

1. `start()` once, before the worker connects to NATS, so that a forked engine process inherits no socket.
   It may take minutes; it must not block the loop. When it returns, `info` is final and the engine serves.
2. `generate(work)` and `embed(work)`, up to `info.capacity` of them at the same time, never more.
   Each call serves one attempt at one job.
3. `probe()` every few seconds, concurrently with everything else.
4. `stop()` once, also after a failed `start()`, also twice. Afterwards no process, thread or file of the
   engine is left.

How a call ends, and what it leaves behind:

* `generate` yields at least one `Chunk`; the last one, and only it, has a `finish_reason`.
* Every chunk but the last has n_new >= 1 token ids. `text` is exactly the text that these ids add. The texts of all
  chunks, joined, are the output. No character of it is ever taken back.
* At most `max_tokens(work.request)` ids in all, those in `work.token_ids` included.
* A request that the engine cannot serve raises a `RequestError` before the first chunk, within milliseconds, and
  leaves the engine unchanged. The engine refuses a field that it does not support; it ignores none.
* `EngineFailedError`: this attempt failed, others continue. `EngineDeadError`: every call in flight raises it, and
  so does every later one; only a new engine object serves again.
* Cancelling the task that iterates, or closing the generator, frees the slot within a second and leaves
  nothing behind. An engine that ends a job early for a reason of its own raises an error; it never ends it silently.

Source of the shape: the `generate` of vLLM's AsyncLLM, narrowed to what a queue needs.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec

from mesh.protocol.messages import Request


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine's model and limits. Read from the engine, not guessed."""

    name: str  # "vllm", "simulator", …
    version: str
    model: str  # the loaded model: a path, a hub id
    capacity: int  # jobs that make progress at the same time; the worker pulls no more
    max_model_len: int  # tokens, prompt and output together; 0: no limit
    generates: bool = True  # serves prompt, messages, prompt_token_ids
    chats: bool = True  # has a chat template for messages
    embeds: bool = False  # serves input


class Work(msgspec.Struct, frozen=True):
    """One attempt at one job, as the engine sees it."""

    job: str  # unique among the calls in flight
    request: Request  # validated: types, ranges, exactly one input
    seed: int  # int64; the same for every attempt at this job
    # Output that earlier attempts published. Both are empty unless `resume_index` allowed a continuation.
    token_ids: tuple[int, ...] = ()
    text: str = ""


class Chunk(msgspec.Struct, frozen=True):
    """New output of one job."""

    text: str
    token_ids: Sequence[int]
    finish_reason: str | None = None  # "stop", "length", or the engine's own word; set on the last chunk only
    prompt_tokens: int = 0  # of the request alone, set on the last chunk
    cached_tokens: int = 0  # prompt tokens found in the prefix cache; set on the last chunk


@dataclass(frozen=True, slots=True)
class Embedding:
    """One vector per input string, in order, all of one length."""

    vectors: list[list[float]]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class EngineGauges:
    """An engine's own load figures. None: the engine does not report this figure."""

    running: int  # requests in its batch
    waiting: int  # requests it accepted and has not begun
    kv_cache_ratio: float | None = None  # share of its KV cache in use, 0 to 1
    prefix_queried_tokens: int | None = None  # prompt tokens looked up in the prefix cache since the start
    prefix_hit_tokens: int | None = None  # of these, tokens found
    preemptions: int | None = None  # requests preempted since the start


@runtime_checkable
class Gauged(Protocol):
    """An engine that reports its load. Optional: `Engine` does not require it. The metrics read it."""

    def gauges(self) -> EngineGauges:
        """Return the current load, without waiting. Called at any time after `start()`, also on a dead engine."""
        ...


class Engine(Protocol):
    """Serves one model. The module's docstring says when the worker calls each method."""

    @property
    def info(self) -> EngineInfo:
        """The engine's model and limits. Final once `start()` has returned."""
        ...

    async def start(self) -> None:
        """Load the model and begin to serve.

        Raises:
            ConfigError: the model or a setting cannot be used; the message says what to change.
            EngineDeadError: the engine broke during the start.
        """
        ...

    def generate(self, work: Work) -> AsyncGenerator[Chunk, None]:
        """Run one attempt; the module's docstring says how it ends."""
        ...

    async def embed(self, work: Work) -> Embedding:
        """Return the vectors of `work.request.input`, under the same rules as `generate`."""
        ...

    def resume_index(self, request: Request, token_ids: Sequence[int], text: str) -> int:
        """Return how many of `token_ids` an exact continuation can keep: 0 <= index <= len(token_ids).

        Pure and cheap. The worker calls it before the `generate` that gets `work.token_ids = token_ids[:index]`.

        Args:
            text: the text that these tokens have shown.

        Returns:
            The index; 0 means that the attempt must start again.
        """
        ...

    async def probe(self, timeout_s: float) -> None:
        """Check that the engine's own loop answers; reading a flag is not enough.

        Raises:
            EngineDeadError: the engine is dead, or did not answer within `timeout_s`.
        """
        ...

    async def stop(self) -> None:
        """Stop the engine and free its resources. Calls in flight raise EngineDeadError or are cancelled."""
        ...
