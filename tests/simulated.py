"""Collaborators for property tests: an event loop in simulated time, and a line on which calls and answers get lost."""

import asyncio
import contextlib
import selectors
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Literal, TypeVar

from hypothesis import strategies as st

from mesh.clock import Clock
from mesh.errors import BrokerTimeoutError, DisconnectedError, MeshError, QuotaExceededError

# lost: the call arrived, its answer did not. unheard: the call did not arrive. doubled: the call arrived twice.
Fate = Literal["answered", "late", "doubled", "lost", "unheard", "refused", "disconnected"]
FATES: st.SearchStrategy[list[Fate]] = st.lists(
    st.sampled_from(["answered", "late", "doubled", "lost", "unheard", "refused", "disconnected"]), max_size=12
)
LATE_S = 1.0
UNANSWERED_S = 2.0

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Does not wait: the time that it was to wait has passed when it returns."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "every task waits, and no timer will wake one"
            self.now_s += max(0.0, timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers cost no time. A task that nothing can wake is an AssertionError."""

    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now_s


def run_simulated(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end in simulated time, which begins at 0 s."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        runner.run(main)


def simulated_clock() -> Clock:
    """The clock of the simulated loop that runs now."""
    time = asyncio.get_running_loop().time
    return Clock(time, lambda: int(time() * 1e9), time)


async def pass_time(for_s: float) -> None:
    """Let so much simulated time pass: it costs none, and is no wait for luck."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    passed = asyncio.Event()
    loop.call_later(for_s, passed.set)
    await passed.wait()


class Line:
    """Carries calls to a store's state, the first of them with these fates; all others are answered at once."""

    def __init__(self, fates: Iterable[Fate]) -> None:
        self._fates = iter(fates)

    async def carry(self, effect: Callable[[], T]) -> T:
        """The result of `effect`, unless call or answer is lost."""
        fate: Fate = next(self._fates, "answered")
        match fate:
            case "answered":
                await asyncio.sleep(0)
                return effect()
            case "late":
                await pass_time(LATE_S)
                result = effect()
                await pass_time(LATE_S)
                return result
            case "doubled":
                result = effect()
                with contextlib.suppress(MeshError):
                    effect()
                await asyncio.sleep(0)
                return result
            case "lost":
                with contextlib.suppress(MeshError):
                    effect()
                await pass_time(UNANSWERED_S)
                raise BrokerTimeoutError("the answer was lost")
            case "unheard":
                await pass_time(UNANSWERED_S)
                raise BrokerTimeoutError("the call was lost")
            case "refused":
                await asyncio.sleep(0)
                raise QuotaExceededError("full")
            case "disconnected":
                raise DisconnectedError("no connection")
