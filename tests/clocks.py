"""A clock that a test sets by hand."""

from mesh.clock import Clock


class Hands:
    """The time of `clock`: it passes only when `advance` is called."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.now_s = now_s
        self.slept_s = 0.0  # in which the machine slept, and monotonic time stood still
        self.clock = Clock(
            lambda: self.now_s, lambda: int((self.now_s + self.slept_s) * 1e9), lambda: self.now_s + self.slept_s
        )

    def advance(self, by_s: float) -> None:
        self.now_s += by_s

    def sleep_machine(self, for_s: float) -> None:
        """The machine sleeps: monotonic time does not count it."""
        self.slept_s += for_s
