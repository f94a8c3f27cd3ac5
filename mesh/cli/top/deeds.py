"""Does what was said yes to in `mesh top`: pause, resume, drain, cancel. Finished also when the user leaves at once."""

import asyncio
from collections.abc import Awaitable, Callable

from mesh.broker.broker import Broker
from mesh.cli.terminal import failure
from mesh.cli.top.keys import Cancel, Deed, Drain, Pause
from mesh.control.queues import pause
from mesh.control.workers import drain
from mesh.job_key import JobKey

LIMIT_S = 10.0  # for what is under way when the user leaves

CancelJob = Callable[[JobKey], Awaitable[str]]  # the status the job has then


class Deeds:
    """Those under way."""

    def __init__(self, broker: Broker, cancel_job: CancelJob) -> None:
        self._broker = broker
        self._cancel_job = cancel_job
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Deeds, {len(self._tasks)} under way>"

    def begin(self, deed: Deed, on_done: Callable[[str], None]) -> None:
        """Do it; `on_done` gets a line that says how it went."""
        task = asyncio.get_running_loop().create_task(self._do(deed, on_done), name="mesh-top-deed")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for those under way, LIMIT_S at most."""
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=LIMIT_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _do(self, deed: Deed, on_done: Callable[[str], None]) -> None:
        try:
            note = await self._done(deed)
        except Exception as error:  # the outermost frame: the rest of the picture goes on
            note = failure.message(error)
        on_done(note)

    async def _done(self, deed: Deed) -> str:
        if isinstance(deed, Drain):
            (told,) = await drain.drain(self._broker, [deed.worker])
            if told.answer is None:
                return f"{deed.worker}: {told.why}"
            return f"{deed.worker} takes no more jobs; {told.answer.running} have {told.answer.grace_s:g} s to finish"
        if isinstance(deed, Cancel):
            status = await self._cancel_job(deed.job)
            if status == "unknown":
                return f"job {deed.job.id} is not known any more"
            return (
                f"job {deed.job.id} is cancelled"
                if status == "cancelled"
                else f"job {deed.job.id} had {status} already"
            )
        target = pause.read_target(deed.target)
        if isinstance(deed, Pause):
            await pause.pause(self._broker, target, None)
            return f"{target} is paused; deadlines still count"
        await pause.resume(self._broker, target)
        return f"{target} is open"
