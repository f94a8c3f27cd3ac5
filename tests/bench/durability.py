"""What it costs that a power cut takes nothing. Called by `python -m tests.bench durability`.

Two meshes that differ in their durability profile alone: `strict` syncs every write to the disk before it is
acknowledged, and keeps events in memory; `standard` leaves syncing to nats-server's own two minutes.
"""

import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import mesh
from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import connect
from mesh.broker.transport.options import ConnectOptions
from mesh.protocol.subjects import Names
from mesh.verify.soak.servers import Servers
from tests.bench.child import child
from tests.bench.report import Report
from tests.bench.sides import MeshAsker, Side
from tests.bench.simulated import Round, Sizes
from tests.bench.worker import MODEL

STRICT, STANDARD = "strict", "standard"
# A sync takes the disk some milliseconds: fewer requests tell as much.
SIZES = replace(Sizes(), alone=100, many=600, streams=128, stream_tokens=64)


async def measure(rounds: int, replicas: int = 1, sizes: Sizes = SIZES) -> Report:
    """Both in turn; who goes first alternates. `replicas`: 1, or 3 for a cluster of three servers on this machine."""
    async with _side(STRICT, replicas) as strict, _side(STANDARD, replicas) as standard:
        report = Report(f"R{replicas}", [STRICT, STANDARD])
        sides = [strict, standard]
        for side in sides:
            await Round(Report("warm-up", []), sizes).unary_many(side)
        for number in range(rounds):
            for run in (Round.unary_alone, Round.streamed_alone, Round.unary_many, _streams):
                for side in sides if number % 2 == 0 else sides[::-1]:
                    await run(Round(report, sizes), side)
            print(f"round {number + 1} of {rounds} is done", file=sys.stderr, flush=True)
    # Of the one server that a side names; with three, the others' are missing.
    report.rows = {name: values for name, values in report.rows.items() if "CPU" not in name}
    return report


async def _streams(now: Round, side: Side) -> None:
    await now.streams(side, "fast", f"{now.sizes.at_once} streams")


@contextlib.asynccontextmanager
async def _side(profile: str, replicas: int) -> AsyncIterator[Side]:
    """A mesh of its own with this profile: servers, client and worker process."""
    with tempfile.TemporaryDirectory(prefix="mesh-durability-") as folder:
        servers = Servers(Path(folder), replicas)
        if profile == STRICT:
            for server in servers.all:
                store = server.store / "jetstream"
                server.extra += f'\njetstream {{ store_dir: "{store}", sync_interval: always }}'  # the last one counts
        settings = MeshSettings(replicas=replicas, events_storage="memory" if profile == STRICT else "file")
        try:
            await servers.start()
            options = ConnectOptions(servers=servers.urls, name="bench-init", connect_timeout_s=20.0)
            async with connect(options) as connection:
                await servers.declare(Broker(connection, Names()), settings, MODEL)
            process = servers.all[0].process
            assert process is not None
            async with (
                child("tests.bench.worker", "mesh", servers.all[0].url) as worker,
                mesh.connect(servers.urls) as client,
            ):
                yield Side(profile, MeshAsker(client), worker, process.pid)
        finally:
            await servers.stop()
