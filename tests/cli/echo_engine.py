"""An engine of somebody else, for the tests: it answers with a given word, and its faults quote the prompt."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from mesh.engines.base import Chunk, Embedding, EngineInfo, Work
from mesh.errors import EngineFailedError, UnsupportedError
from mesh.protocol.messages import Request


class EchoEngine:
    def __init__(self, answer: str) -> None:
        self._answer = answer

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(name="echo", version="1", model="echo", capacity=4, max_model_len=0)

    async def start(self) -> None: ...

    async def generate(self, work: Work) -> AsyncGenerator[Chunk, None]:
        prompt = work.request.prompt or ""
        if "break" in prompt:
            raise ValueError(f"what is {prompt!r}?")
        if "fail" in prompt:
            raise EngineFailedError(f"no answer to {prompt!r}")
        if "refuse" in prompt:
            raise UnsupportedError(f"not {prompt!r}", field="prompt")
        for number in range(200 if "long" in prompt else 4):
            yield Chunk(f"{self._answer} ", [number])
            await asyncio.sleep(0.05)
        yield Chunk(self._answer, [7], "stop", 3)

    async def embed(self, work: Work) -> Embedding:
        raise UnsupportedError("no vectors", field="input")

    def resume_index(self, request: Request, token_ids: Sequence[int], text: str) -> int:
        return 0

    async def probe(self, timeout_s: float) -> None: ...

    async def stop(self) -> None: ...


def make(model: str | None, max_model_len: int | None, engine_args: Mapping[str, object]) -> EchoEngine:
    return EchoEngine(str(engine_args["answer"]))
