"""Commands to a running worker, on subjects private to the mesh: cancel one of its jobs, or drain.

Source: nats/PROTOCOL.md, `mesh.sys.>`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import msgspec

from mesh.broker.broker import Broker
from mesh.errors import MeshError
from mesh.protocol import codec
from mesh.worker.runner import Runner

Runners = Mapping[asyncio.Task[None], Runner]


class DrainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's answer to a drain command."""

    worker: str
    running: int  # jobs that now have `grace_s` to finish
    grace_s: float
    was_draining: bool = False


class Commands:
    """Receives commands until `close`."""

    def __init__(
        self,
        broker: Broker,
        runners: Runners,
        on_drain: Callable[[], DrainAnswer],
        worker: str,
    ) -> None:
        """`on_drain` starts a drain; further calls change nothing and answer as the first."""
        self._connection = broker.connection
        self._names = broker.names
        self._runners = runners
        self._on_drain = on_drain
        self._subscriptions = (
            broker.connection.subscribe(broker.names.system("cancel", "*", "*"), self._cancel),
            broker.connection.subscribe(broker.names.drain(worker), self._drain),
        )

    def close(self) -> None:
        """Receive no more commands."""
        for each in self._subscriptions:
            each.close()

    def _cancel(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        """`<ns>.sys.cancel.<tenant>.<job>`: only the worker that runs the job answers, once it has its Result."""
        tenant, job = subject.decode("utf-8", "replace").split(".")[-2:]
        if not self._names.may_answer(reply.decode("utf-8", "replace")):
            return
        for task, runner in self._runners.items():
            if runner.key == (tenant, job):
                runner.interrupt("cancelled")  # changes nothing where the engine is done
                task.add_done_callback(lambda _, r=runner: self._cancelled(r, reply))  # type: ignore[misc]

    def _cancelled(self, runner: Runner, reply: bytes) -> None:
        if reply and runner.result is not None:
            self._answer(reply.decode(), runner.result.status.encode())

    def _drain(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        """`<ns>.sys.drain.<worker>`: drains as SIGTERM does. The command may be repeated."""
        answer = self._on_drain()
        to = reply.decode("utf-8", "replace")
        if self._names.may_answer(to):
            self._answer(to, codec.encode(answer))

    def _answer(self, to: str, body: bytes) -> None:
        with contextlib.suppress(MeshError):  # without a connection, the sender gets no answer and may ask again
            self._connection.publish(to, body)
