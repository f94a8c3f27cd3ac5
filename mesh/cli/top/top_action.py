"""`mesh top`: looks at the mesh every second, shows it, and does what a key asks for."""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mesh.broker.broker import Broker
from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import failure
from mesh.cli.terminal.fullscreen import Fullscreen, open_fullscreen
from mesh.cli.top.frame import Sight, frame, shown
from mesh.cli.top.keys import Deed, Drain, Pause, Quit, State, press, read_keys
from mesh.control.queues import pause
from mesh.control.status import snapshot as status
from mesh.control.status.depth import Snapshot
from mesh.control.workers import drain
from mesh.errors import ConfigError, MeshError

LOOK_S = 1.0
RATE_S = 3.5  # rates are over so long at most: workers tell every two seconds what they did
LIMIT_S = 10.0  # for one look


async def run(nats: Nats) -> None:
    """Show the mesh until the user leaves.

    Raises:
        ConfigError: there is no terminal.
        TopologyError, DisconnectedError: there is no mesh, or no NATS, to begin with.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("mesh top needs a terminal; `mesh status --json` tells programs the same", key="top")
    async with open_mesh(nats) as broker:
        first = await status.snapshot(broker)
        await _Top(broker, first).run()


@dataclass(frozen=True, slots=True)
class _Seen:
    snapshot: Snapshot
    at_s: float  # loop time


class _Top:
    """One run of it."""

    def __init__(self, broker: Broker, first: Snapshot) -> None:
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._history = [_Seen(first, self._loop.time())]
        self._trouble = ""
        self._state = State()
        self._screen: Fullscreen | None = None
        self._is_over = asyncio.Event()
        self._due = asyncio.Event()  # a look before its time
        self._typed = ""  # keys that were not acted on yet
        self._stirred = asyncio.Event()  # a key, or another size
        self._deeds: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until `q`."""
        async with open_fullscreen(self._heard, self._stirred.set) as self._screen:
            over = self._loop.create_task(self._is_over.wait(), name="mesh-top-over")
            sides = [self._loop.create_task(each(), name="mesh-top") for each in (self._look, self._tick, self._act)]
            try:
                done, _ = await asyncio.wait({over, *sides}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a side task ends by breaking, and that is our end too
                if self._deeds:  # what was said yes to is done, though the user leaves
                    await asyncio.wait(self._deeds, timeout=LIMIT_S)
            finally:
                for task in (over, *sides, *self._deeds):
                    task.cancel()
                await asyncio.gather(over, *sides, *self._deeds, return_exceptions=True)

    # What is seen.

    async def _look(self) -> None:
        while True:
            await self._wait()
            try:
                async with asyncio.timeout(LIMIT_S):
                    seen = await status.snapshot(self._broker)
            except TimeoutError:
                self._trouble = "NATS does not answer"
            except MeshError as error:
                self._trouble = str(error)
            else:
                self._trouble = ""
                self._remember(seen)
            self._draw()

    async def _wait(self) -> None:
        self._due.clear()
        try:
            async with asyncio.timeout(LOOK_S):
                await self._due.wait()
        except TimeoutError:
            return

    def _remember(self, seen: Snapshot) -> None:
        now_s = self._loop.time()
        self._history.append(_Seen(seen, now_s))
        while len(self._history) > 2 and self._history[1].at_s <= now_s - RATE_S:
            del self._history[0]

    async def _tick(self) -> None:
        """The clock goes on, also while NATS does not answer."""
        while True:
            self._draw()
            await asyncio.sleep(LOOK_S)

    # What is shown.

    def _sight(self) -> Sight:
        first, last = self._history[0], self._history[-1]
        rates = status.rates(first.snapshot, last.snapshot, self._broker.names) if first is not last else None
        return Sight(
            namespace=self._broker.names.ns,
            seen=last.snapshot,
            rates=rates,
            age_s=self._loop.time() - last.at_s,
            trouble=self._trouble,
            clock=time.strftime("%H:%M:%S"),
        )

    def _draw(self) -> None:
        if self._screen is not None:
            self._screen.draw(frame(self._state, self._sight(), *self._screen.size))

    # What is done.

    def _heard(self, text: str) -> None:
        self._typed += text
        self._stirred.set()

    async def _act(self) -> None:
        """On each key. In a task, since what breaks in a callback ends nothing and is seen by nobody."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            typed, self._typed = self._typed, ""
            self._press(read_keys(typed))
            self._draw()

    def _press(self, keys: Sequence[str]) -> None:
        for key in keys:
            if key == "redraw" and self._screen is not None:
                self._screen.forget()
            table, rows = shown(self._state, self._sight())
            self._state, action = press(self._state, key, table, rows)
            if isinstance(action, Quit):
                self._is_over.set()
                return
            if action is not None:
                self._begin(action)

    def _begin(self, deed: Deed) -> None:
        task = self._loop.create_task(self._do(deed), name="mesh-top-deed")
        self._deeds.add(task)
        task.add_done_callback(self._deeds.discard)

    async def _do(self, deed: Deed) -> None:
        try:
            note = await self._done(deed)
        except Exception as error:  # the outermost frame: whatever it is, the rest goes on
            note = failure.message(error)
        self._state = replace(self._state, note=note)
        self._due.set()
        self._draw()

    async def _done(self, deed: Deed) -> str:
        if isinstance(deed, Drain):
            (told,) = await drain.drain(self._broker, [deed.worker])
            if told.answer is None:
                return f"{deed.worker}: {told.why}"
            return f"{deed.worker} takes no more jobs; {told.answer.running} have {told.answer.grace_s:g} s to finish"
        target = pause.read_target(deed.target)
        if isinstance(deed, Pause):
            await pause.pause(self._broker, target, None)
            return f"{target} is paused; deadlines still count"
        await pause.resume(self._broker, target)
        return f"{target} is open"
