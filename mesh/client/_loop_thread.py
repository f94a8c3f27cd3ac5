"""An event loop in a thread of its own, for callers that block. Used by client/blocking."""

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mesh.client._core import CLOSED
from mesh.errors import DisconnectedError

T = TypeVar("T")

ALIVE_S = 1.0  # between looks whether the thread still runs, for callers that wait
FORKED = "this process was forked after the client had connected; connect again in it"
OWN_THREAD = "called from the client's own thread, which would wait for itself; use the asynchronous client there"


class LoopThread:
    """Runs coroutines for other threads until `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()  # orders `run` and `stop`: `stop` ends all earlier work, and no later work begins
        self._is_stopping = False
        self._process = os.getpid()
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mesh-blocking", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which has a bound of its own; an interrupt of the waiting thread (Ctrl-C) cancels it.

        Raises:
            DisconnectedError: the client is closed, or belongs to the process that forked this one.
            RuntimeError: called from the loop's own thread.
        """
        future = self._begin(work)
        try:
            return self._outcome(future)
        except concurrent.futures.CancelledError:
            raise DisconnectedError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def begin_nowait(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin `work` and wait for nothing; where nothing runs any more, it is not begun.

        Callable from a finalizer: the garbage collector runs those in any thread, while it holds any lock.
        """
        if self._process == os.getpid():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and ended everything
                self._loop.call_soon_threadsafe(self._start, work)

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Run `last`, end what still runs, so that no thread waits for it for ever, and the loop. Idempotent.

        In a forked process it does nothing: the loop is the parent's.
        """
        if self._process != os.getpid():
            return
        try:
            if last is not None:
                with contextlib.suppress(DisconnectedError):  # another thread stops it
                    self.run(last())
        finally:
            self._end()

    def _end(self) -> None:
        with contextlib.suppress(DisconnectedError):  # another thread stops it
            self._outcome(self._begin(_end_all(), is_last=True))
        self._thread.join()
        with self._lock:
            self._loop.close()  # idempotent

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(_quietly(work()))
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    def _begin(self, work: Coroutine[Any, Any, T], is_last: bool = False) -> "concurrent.futures.Future[T]":
        refusal: Exception | None = None
        if self._process != os.getpid():  # before the lock, which another thread may have held at the fork
            refusal = DisconnectedError(FORKED)
        elif threading.current_thread() is self._thread:
            refusal = RuntimeError(OWN_THREAD)
        else:
            with self._lock:
                if not self._is_stopping:
                    self._is_stopping = is_last
                    return asyncio.run_coroutine_threadsafe(work, self._loop)
            refusal = DisconnectedError(CLOSED)
        work.close()
        raise refusal

    def _outcome(self, future: "concurrent.futures.Future[T]") -> T:
        while True:
            try:
                return future.result(ALIVE_S)
            except TimeoutError:
                if future.done():  # by now, or with a TimeoutError of its own
                    return future.result()
                if not self._thread.is_alive():
                    raise DisconnectedError(CLOSED) from None


async def _end_all() -> None:
    """Cancel every other task, and stop the loop even if nobody waits for that any more."""
    loop, others = asyncio.get_running_loop(), asyncio.all_tasks() - {asyncio.current_task()}
    try:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await loop.shutdown_asyncgens()
    finally:
        loop.call_soon(loop.stop)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(RuntimeError):  # the iteration is cancelled just now, and ends by itself
        await work
