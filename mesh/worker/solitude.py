"""Who may use the engine at the same time: any number of jobs in company, or one alone.

A job that may be what kills workers runs alone (see policies/retry). While it waits for the others to finish, no
job begins beside it, and the worker pulls none (`is_wanted`).
"""

import asyncio
from collections import deque


class Solitude:
    """The door to one engine. Every place that was taken must be left."""

    def __init__(self) -> None:
        self._inside = 0  # in company
        self._is_taken = False  # by a job that is alone
        self._want_alone: deque[asyncio.Future[None]] = deque()
        self._want_company: deque[asyncio.Future[None]] = deque()

    @property
    def is_wanted(self) -> bool:
        """Whether a job is alone, or waits to be."""
        return self._is_taken or bool(self._want_alone)

    def take(self, alone: bool) -> bool:
        """Take a place if there is one now."""
        if self.is_wanted or (alone and self._inside):
            return False
        if alone:
            self._is_taken = True
        else:
            self._inside += 1
        return True

    async def wait(self, alone: bool) -> bool:
        """Stand in line for a place, for as long as it takes; True, once it is taken. Cancel to give up."""
        line = self._want_alone if alone else self._want_company
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if turn in line:
                    line.remove(turn)
                self._admit()
            else:  # it was our turn just now
                self.leave(alone)
            raise
        return True

    def leave(self, alone: bool) -> None:
        """Give the place back."""
        if alone:
            self._is_taken = False
        else:
            self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        """Give free places to those in line: to one alone, before any in company."""
        for line in (self._want_alone, self._want_company):
            while line and line[0].done():  # cancelled, and about to leave the line
                line.popleft()
        if self._is_taken:
            return
        if self._want_alone:
            if not self._inside:
                self._is_taken = True
                self._want_alone.popleft().set_result(None)
            return
        while self._want_company:
            turn = self._want_company.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)
