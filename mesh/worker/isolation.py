"""Who may use the engine at the same time: any number of jobs in company, or one alone.

A job that may be what kills workers runs alone (see policies/retry), until it gets further than before. While it
waits for the others to finish, and while it is alone, none begins beside it: what comes then is had elsewhere.
"""

import asyncio


class Isolation:
    """The door to one engine. Every place that was taken must be left."""

    def __init__(self) -> None:
        self._inside = 0  # in company
        self._is_taken = False  # by a job that is alone
        self._turn: asyncio.Future[None] | None = None  # of the one that waits to be

    @property
    def is_wanted(self) -> bool:
        """Whether a job is alone, or waits to be."""
        return self._is_taken or self._turn is not None

    def take(self, isolated: bool) -> bool:
        """Take a place if there is one now."""
        if self.is_wanted or (isolated and self._inside):
            return False
        if isolated:
            self._is_taken = True
        else:
            self._inside += 1
        return True

    def line_up(self) -> asyncio.Future[None]:
        """Want the place alone, once all others have left: done when it is taken. Only where it is not wanted yet.

        Whoever does not await it to its end must `give_up`.
        """
        assert not self.is_wanted
        self._turn = asyncio.get_running_loop().create_future()
        return self._turn

    def give_up(self, turn: asyncio.Future[None]) -> None:
        """Want it no longer, also if it was given just now."""
        if self._turn is turn:
            self._turn = None
        else:
            self.leave(isolated=True)

    def share(self) -> None:
        """Who was alone needs it no longer: it stays, in company."""
        self._is_taken = False
        self._inside += 1

    def leave(self, isolated: bool) -> None:
        """Give the place back."""
        if isolated:
            self._is_taken = False
        else:
            self._inside -= 1
        if self._turn is not None and not self._inside and not self._is_taken:
            self._is_taken = True
            turn, self._turn = self._turn, None
            if not turn.done():  # its waiter was cancelled, and is about to give up
                turn.set_result(None)
