"""Access to one engine: any number of jobs together, or one job alone.

A job that may kill workers runs alone (see policies/retry), until it gets further than before. No other job begins
while it waits for the others to finish, or while it runs alone; other deliveries are handed back meanwhile.
"""

import asyncio


class Isolation:
    """Places in one engine. Every taken place must be left."""

    def __init__(self) -> None:
        self._inside = 0  # jobs that run together
        self._is_taken = False  # by a job that runs alone
        self._turn: asyncio.Future[None] | None = None  # of the job that waits to run alone

    @property
    def is_wanted(self) -> bool:
        """Whether a job runs alone, or waits to."""
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
        """Wait to run alone: the future is done once all others have left. Call only while not `is_wanted`.

        A caller that does not await the future to its end must call `give_up`.
        """
        assert not self.is_wanted
        self._turn = asyncio.get_running_loop().create_future()
        return self._turn

    def give_up(self, turn: asyncio.Future[None]) -> None:
        """Wait no longer; leave the place if it was taken just now."""
        if self._turn is turn:
            self._turn = None
        else:
            self.leave(isolated=True)

    def share(self) -> None:
        """The job that runs alone now admits others beside it."""
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
