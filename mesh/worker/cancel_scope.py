"""Work that can be cut short without ending the task that does it. Used by worker/runner.

As `asyncio.timeout` does it, with anybody in place of the clock: the task is cancelled, and takes that back when it
leaves the scope. Source: asyncio/timeouts.py.
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
        """End the work that runs now, in the next turn of the loop; without any, nothing happens."""
        if self._task is not None and self._due is None and not self._has_struck:
            # Never from within the task: what it does after its last await could not be cut short any more, and the
            # cancellation would meet what comes next.
            self._due = self._loop.call_soon(self._strike)

    async def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do it; None: it was cut short, or ended itself with a CancelledError.

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
            return None  # by us, or by something that the work waited for
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
