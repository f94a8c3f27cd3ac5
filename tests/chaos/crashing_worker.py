"""A worker that kills or stops itself at one named step of one job. Run as a child by the tests.

python crashing_worker.py URL [STEP:WHEN:NTH:HOW]     e.g. store:after:1:kill
"""

import asyncio
import os
import signal
import sys

from mesh.broker.options import ConnectOptions
from mesh.control.host import host_worker
from mesh.engines.simulator import SimulatorEngine
from mesh.engines.simulator_settings import SimulatorSettings
from mesh.signals import Signal, Step
from mesh.worker.worker import Worker, WorkerOptions


class CrashAt:
    """An observer that ends or suspends the process at the nth time a step is reached."""

    def __init__(self, plan: str) -> None:
        self.step, self.when, nth, self.how = plan.split(":")
        self.left = int(nth)

    def __call__(self, signal_: Signal) -> None:
        if isinstance(signal_, Step) and (signal_.name, signal_.when) == (self.step, self.when):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL if self.how == "kill" else signal.SIGSTOP)


async def main(url: str, plan: str | None) -> None:
    def ready(worker: Worker) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
        print("ready", flush=True)

    arguments = {"observer": CrashAt(plan)} if plan else {}
    await host_worker(
        SimulatorEngine(SimulatorSettings(model="simulator", first_token_ms=5, between_tokens_ms=5)),
        ConnectOptions(servers=(url,)),
        WorkerOptions(model="simulator", grace_s=5),
        on_ready=ready,
        **arguments,
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
