"""What every worker process hosts beside its worker, and what runs alone where no worker does.

Any number of processes may host them: they share the work by queue groups, by a seat, or by a fence, and two that do
the same do no harm.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from mesh.broker.connection import Connection, connect
from mesh.broker.options import ConnectOptions
from mesh.control.guard import Guard
from mesh.control.steering import Steering
from mesh.control.strays import Strays
from mesh.control.sweeper import Sweeper
from mesh.protocol.subjects import Names


@contextlib.asynccontextmanager
async def services(connection: Connection, names: Names, who: str) -> AsyncIterator[None]:
    """Answer cancel, status and replay; end strays and what is past its deadline; watch over workers.

    `who` hosts them: the name of a worker, which then watches some others, or of another process, which watches all.
    """
    hosted = [kind(connection, names, who) for kind in (Steering, Strays, Sweeper, Guard)]
    try:
        yield
    finally:
        await asyncio.gather(*(each.close() for each in hosted), return_exceptions=True)


async def keep_watch(options: ConnectOptions, names: Names, who: str) -> None:
    """Host the services on a connection of their own until cancelled.

    Raises:
        DisconnectedError: there was no NATS to begin with.
    """
    async with connect(options) as connection, services(connection, names, who):
        await asyncio.Event().wait()
