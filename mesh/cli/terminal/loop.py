"""Runs a command's coroutine: uvloop where it is installed, logging to stderr, signals as cancellation."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from mesh.cli.terminal.failure import SignalledError
from mesh.telemetry import logs

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(
    main: Coroutine[Any, Any, T],
    *,
    log_level: str = "error",
    log_format: str = "text",
    worker: str = "",
    is_patient: bool = False,
) -> T:
    """The result of `main`. SIGINT and SIGTERM cancel it, so that it can clean up.

    Args:
        log_format: text, kv or json.
        worker: named in every structured line.
        is_patient: only the first signal counts; for a clean-up that is bounded by itself.

    Raises:
        SignalledError: a signal ended it.
    """
    logs.set_up(log_level, cast(logs.Format, log_format), worker)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_guarded(main, is_patient))


def on_signals(act: Callable[[int], None]) -> None:
    """Call `act` with the number of each SIGINT and SIGTERM from here on, in place of what `run` does."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, act, number)


async def _guarded(main: Coroutine[Any, Any, T], is_patient: bool) -> T:
    task = asyncio.create_task(main, name="mesh-command")
    heard: list[int] = []

    def cancel(number: int) -> None:
        heard.append(number)
        if len(heard) == 1 or not is_patient:
            task.cancel()

    on_signals(cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if heard:
            raise SignalledError(heard[0]) from None
        raise


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not everywhere there are wheels of it
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
