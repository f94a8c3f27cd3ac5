"""A process of the benchmark: started, asked over its stdin, and ended with it.

The parent writes one JSON value a line and reads one back; the child's own prints go to stderr.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from tests.bench.stream import BenchError

READY_S = 180.0  # a model is loaded meanwhile
ANSWER_S = 300.0
END_S = 20.0
LINE_BYTES = 64 << 20  # the longest answer


class Child:
    """The parent's handle."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, question: object) -> Any:
        """One question, one answer.

        Raises:
            BenchError: the child has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(question) + b"\n")
        return await self.read(ANSWER_S)

    async def read(self, timeout_s: float) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout_s):
            line = await self._process.stdout.readline()
        if not line:
            raise BenchError(f"a child process of the benchmark ended with {await self._process.wait()}")
        return msgspec.json.decode(line)

    async def end(self) -> None:
        """Close its stdin, which it takes as the end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Child]:
    """`python -m module arguments` for as long as the context lasts, once it said that it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    handle = Child(process)
    try:
        await handle.read(READY_S)
        yield handle
    finally:
        await handle.end()


async def answer(respond: Callable[[Any], Awaitable[object]]) -> None:
    """In the child: say that it is ready, then answer each question until the parent closes our stdin."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    _reply("ready")
    try:
        while line := await reader.readline():
            _reply(await respond(msgspec.json.decode(line)))
    finally:
        transport.close()


_replies = 1


def keep_stdout() -> None:
    """In the child, first of all: let nothing but answers reach the parent."""
    global _replies
    _replies = os.dup(1)
    os.dup2(2, 1)


def _reply(value: object) -> None:
    rest = memoryview(msgspec.json.encode(value) + b"\n")
    while rest:
        rest = rest[os.write(_replies, rest) :]
