"""vLLM's AsyncLLM with nothing around it, as a child process: what the mesh on vLLM is compared with.

python -m tests.bench.direct MODEL

Loaded and set up exactly as the mesh's own engine does it, and read as its documentation shows.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import uvloop

from mesh.engines.vllm.process import end, silence
from mesh.engines.vllm.start import VllmSettings, build
from tests.bench.child import answer, keep_stdout
from tests.bench.load import keep_open
from tests.bench.stream import Stream


async def main(model: str) -> None:
    llm, _ = await asyncio.to_thread(build, VllmSettings(model), threading.Event())
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    await llm.get_supported_tasks()  # its tasks start with the first call

    async def one(number: int, prompt: list[int], tokens: int) -> Stream:
        stream = Stream(str(number), time.monotonic())
        parameters = SamplingParams(
            max_tokens=tokens, temperature=0, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        async for output in llm.generate({"type": "token", "prompt_token_ids": prompt}, parameters, stream.job):
            stream.add(output.outputs[0].text, output.outputs[0].token_ids)
        stream.result_text, stream.done_s = stream.text, time.monotonic()
        return stream

    async def respond(question: Any) -> list[Stream]:
        calls: list[Callable[[], Awaitable[Stream]]] = [
            partial(one, number, prompt, question["tokens"]) for number, prompt in enumerate(question["prompts"])
        ]
        return await keep_open(question["at_once"], calls)

    try:
        await answer(respond)
    finally:
        silence(llm)
        await asyncio.to_thread(end, llm)


if __name__ == "__main__":
    keep_stdout()
    uvloop.run(main(sys.argv[1]))
