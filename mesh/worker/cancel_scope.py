"""Cancels part of a task's work without ending the task.

It works as `asyncio.timeout`, with a call of `cancel` in place of the clock. The task is cancelled, and uncancelled
when it leaves the scope. Source: asyncio/timeouts.py.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class CancelScope:
    """`run` as often as needed, once at a time; `cancel` at any time, also from within the work."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None  # works now
        self._due: asyncio.Handle | None = None
        self._has_struck = False

    def cancel(self) -> None:
        """Cancel the current work in the next turn of the loop; do nothing if none runs."""
        if self._task is not None and self._due is None and not self._has_struck:
            # Never from within the task: after its last await, the work can no longer be cancelled. The cancellation
            # would then reach the task's next work.
            self._due = self._loop.call_soon(self._strike)

    async def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Await `work`; None: it was cancelled, or raised a CancelledError itself.

        Raises:
            CancelledError: the task itself was cancelled.
        """
        self._task = task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            return await work
        except asyncio.CancelledError:
            if task.cancelling() > before + self._has_struck:
                raise
            return None  # cancelled by this scope, or by something that the work awaited
        finally:
            self._task = None
            if self._due is not None:
                self._due.cancel()
                self._due = None
            if self._has_struck:
                self._has_struck = False
                task.uncancel()

    def _strike(self) -> None:
        self._due = None
        if self._task is not None:
            self._has_struck = True
            self._task.cancel()
