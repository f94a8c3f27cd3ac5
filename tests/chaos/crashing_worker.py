"""A worker that kills or stops itself at one named step of one job. Run as a child by the tests; called w-PID.

python crashing_worker.py URL [STEP:WHEN:NTH:HOW]     e.g. store:after:1:kill
python crashing_worker.py URL blind:MS                one that never knows that it lost a job, with MS between tokens
"""

import asyncio
import os
import signal
import sys

from mesh.broker.stores.delivery import Delivery
from mesh.broker.transport.options import ConnectOptions
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.hosting import host
from mesh.signals import Observer, Signal, Step, When, ignore
from mesh.worker import death_check
from mesh.worker import runner as runners
from mesh.worker.actions import Actions
from mesh.worker.worker import Worker, WorkerOptions

# What a doomed job waits for in vain, where its workers are dead and its closer too: the next in line need not be slow.
OBJECTION_S = 0.3
ENDING_S = 0.5


def hurry() -> None:
    """Wait no longer than that in this process."""
    death_check.OBJECTION_S = OBJECTION_S  # type: ignore[attr-defined]  # its own name for a constant of timing
    runners.ENDING_S = ENDING_S  # type: ignore[attr-defined]  # the same


class CrashAt:
    """Ends or suspends the process the nth time a step is reached, or breaks the job there with an exception."""

    def __init__(self, plan: str) -> None:
        self.step, self.when, nth, self.how = plan.split(":")
        self.left = int(nth)

    def __call__(self, signal_: Signal) -> None:
        if isinstance(signal_, Step) and (signal_.name, signal_.when) == (self.step, self.when):
            self.left -= 1
            if self.left == 0:
                print("reached", flush=True)
                if self.how == "raise":
                    raise ZeroDivisionError("planted")
                os.kill(os.getpid(), signal.SIGKILL if self.how == "kill" else signal.SIGSTOP)


def watch(signal_: Signal) -> None:
    """Watches, and is not `ignore`."""


def let_steps_raise(crash: CrashAt) -> None:
    """An observer cannot disturb a worker; a fault of its own at the same place can."""
    step = Actions.step

    def stepping(actions: Actions, name: str, when: When) -> None:
        step(actions, name, when)
        crash(Step(actions._ref.id, name, when))

    Actions.step = stepping  # type: ignore[method-assign, assignment]  # a fault is planted


class BlindWorker(Worker):
    """What a worker would be without the clock of its own: only the server's fences are left to stop it."""

    def _start_job(self, delivery: Delivery) -> None:
        self._by_job.clear()  # nor does it know that it runs the job already
        super()._start_job(delivery)
        for runner in self._runners.values():
            runner.lease.ack_wait_s = 1e9

    def _extend(self, *arguments: object) -> None:
        pass


async def main(url: str, plan: str | None) -> None:
    pace_ms = 5.0
    if plan is not None and plan.startswith("blind:"):
        host.Worker = BlindWorker  # type: ignore[attr-defined]  # a fault is planted
        pace_ms, plan = float(plan.removeprefix("blind:")), None
    hurry()

    def ready(worker: Worker) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
        print("ready", flush=True)

    crash = CrashAt(plan) if plan else None
    if crash is not None and crash.how == "raise":
        let_steps_raise(crash)
    observer: Observer = ignore
    if crash is not None:  # with an observer each step is told, and so each can raise
        observer = watch if crash.how == "raise" else crash
    await host.host_worker(
        lambda: SimulatorEngine(SimulatorSettings(model="simulator", first_token_ms=5, between_tokens_ms=pace_ms)),
        ConnectOptions(servers=(url,)),
        WorkerOptions(model="simulator", grace_s=5, name=f"w-{os.getpid()}"),
        on_ready=ready,
        observer=observer,
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
