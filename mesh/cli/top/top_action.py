"""`mesh top`: looks at the mesh every second, shows it, and does what a key asks for."""

import sys

from mesh.cli.connecting import open_client, open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import loop
from mesh.cli.terminal.failure import SignalledError
from mesh.cli.top.deeds import Deeds
from mesh.cli.top.feed import Feed
from mesh.control.status import snapshot as status
from mesh.errors import ConfigError
from mesh.job_key import JobKey
from mesh.telemetry.extras import needing


async def run(nats: Nats) -> None:
    """Show the mesh until the user leaves.

    Raises:
        ConfigError: there is no terminal, or the extra `top` is not installed.
        TopologyError, DisconnectedError: there is no mesh, or no NATS, to begin with.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("mesh top needs a terminal; `mesh status --json` tells programs the same", key="top")
    with needing("top", "top", "mesh top"):
        from mesh.cli.top.app import TopApp

    async def cancel_job(key: JobKey) -> str:
        async with open_client(nats, key.tenant) as client:
            return await client.job(key.id).cancel()

    async with open_mesh(nats) as broker:
        feed, deeds = Feed(broker, await status.snapshot(broker)), Deeds(broker, cancel_job)
        app = TopApp(feed, deeds)
        loop.on_signals(lambda number: app.leave(SignalledError(number)))
        feed.over.add_done_callback(lambda over: None if over.cancelled() else app.leave(over.exception()))
        async with feed.running():
            error = await app.run_async(mouse=False)  # the terminal's own way to mark and copy stays
            await deeds.finish()
    if error is not None:
        raise error
    if app.return_code:
        raise RuntimeError("the screen broke; the lines above say where")
