"""What an engine promises the worker: the one seam behind which models live.

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
* Every chunk but the last has n_new >= 1 token ids. `text` is exactly what the token ids newly show: the texts
  of all chunks, joined, are the output, and no character of it is ever taken back.
* At most `max_tokens(work.request)` ids in all, those in `work.token_ids` included.
* A request the engine cannot serve raises a `RequestError` before the first chunk, within milliseconds, and
  leaves the engine as it was. What it does not understand it refuses; it ignores no field.
* `EngineFailedError`: this attempt failed, others go on. `EngineDeadError`: every call in flight raises it, and
  so does every later one; only a new engine object serves again.
* Cancelling the task that iterates, or closing the generator, frees the slot within a second and leaves
  nothing behind. An engine that stops a job on its own account raises; it never ends a job in silence.

Source of the shape: the `generate` of vLLM's AsyncLLM, narrowed to what a queue needs.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec

from mesh.protocol.messages import Request


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the engine is, as far as the mesh must know. Read from the engine, not guessed."""

    name: str  # "vllm", "simulator", …
    version: str
    model: str  # what was loaded: a path, a hub id
    capacity: int  # jobs at once that make progress; the worker pulls no more
    max_model_len: int  # tokens, prompt and output together; 0: no limit
    generates: bool = True  # serves prompt, messages, prompt_token_ids
    chats: bool = True  # has a chat template for messages
    embeds: bool = False  # serves input


class Work(msgspec.Struct, frozen=True):
    """One attempt at one job, as the engine sees it."""

    job: str  # unique among the calls in flight
    request: Request  # validated: types, ranges, exactly one input
    seed: int  # int64; the same for every attempt at this job
    # What earlier attempts already showed. Both empty unless `resume_index` allowed the engine to go on.
    token_ids: tuple[int, ...] = ()
    text: str = ""


class Chunk(msgspec.Struct, frozen=True):
    """New output of one job."""

    text: str
    token_ids: Sequence[int]
    finish_reason: str | None = None  # "stop", "length", or the engine's own word; set on the last chunk only
    prompt_tokens: int = 0  # of the request alone, set on the last chunk
    cached_tokens: int = 0  # of these, found in the prefix cache; set on the last chunk


@dataclass(frozen=True, slots=True)
class Embedding:
    """One vector per input string, in order, all of one length."""

    vectors: list[list[float]]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class EngineGauges:
    """How busy an engine is, as it counts itself. None: it does not say."""

    running: int  # requests in its batch
    waiting: int  # requests it took and has not begun
    kv_cache_ratio: float | None = None  # of its cache in use, 0 to 1
    prefix_queried_tokens: int | None = None  # of prompts, looked for in the cache since it started
    prefix_hit_tokens: int | None = None  # of these, found
    preemptions: int | None = None  # requests put back to wait since it started


@runtime_checkable
class Gauged(Protocol):
    """An engine that says how busy it is. What only some engines have, and whoever watches asks for."""

    def gauges(self) -> EngineGauges:
        """How busy it is now. At any time after `start()`, also when it is dead; it waits for nothing."""
        ...


class Engine(Protocol):
    """Who answers. See the module's docstring for who calls what, when."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is. Final once `start()` has returned."""
        ...

    async def start(self) -> None:
        """Load the model and begin to serve.

        Raises:
            ConfigError: the model or a setting cannot be used; the message says what to change.
            EngineDeadError: it broke while starting.
        """
        ...

    def generate(self, work: Work) -> AsyncGenerator[Chunk, None]:
        """Run one attempt; see the module's docstring for how it ends."""
        ...

    async def embed(self, work: Work) -> Embedding:
        """The vectors of `work.request.input`, under the same rules as `generate`."""
        ...

    def resume_index(self, request: Request, token_ids: Sequence[int], text: str) -> int:
        """How many of `token_ids` a continuation can stand on and be exact: 0 <= index <= len(token_ids).

        `text` is what these tokens have shown. 0 means the attempt must start again. Pure, cheap, and called
        before the `generate` that gets `work.token_ids = token_ids[:index]`.
        """
        ...

    async def probe(self, timeout_s: float) -> None:
        """Ask the engine's innards for a sign of life, not a flag.

        Raises:
            EngineDeadError: dead, or no answer within `timeout_s`.
        """
        ...

    async def stop(self) -> None:
        """End everything. Calls in flight raise EngineDeadError or are cancelled."""
        ...
