"""What the audit costs a job. Called by `python -m tests.bench audit`.

Two meshes that differ in nothing else, each with its own server and worker process, loaded in turn.
"""

import sys

from mesh.broker.topology import MeshSettings
from tests.bench.report import Report
from tests.bench.sides import MeshAsker, Side, running_mesh
from tests.bench.simulated import Round, Sizes

WITH, WITHOUT = "audit", "no audit"


async def measure(rounds: int, sizes: Sizes | None = None) -> Report:
    """Both sides in turn; who goes first alternates."""
    sizes = sizes or Sizes()
    async with (
        running_mesh("mesh") as (client, worker, broker_pid),
        running_mesh("mesh", settings=MeshSettings(audit=False)) as (bare_client, bare_worker, bare_broker_pid),
    ):
        sides = [
            Side(WITH, MeshAsker(client), worker, broker_pid),
            Side(WITHOUT, MeshAsker(bare_client), bare_worker, bare_broker_pid),
        ]
        report = Report("audit", [WITH, WITHOUT])
        for side in sides:
            await Round(Report("warm-up", []), sizes).unary_many(side)
        for number in range(rounds):
            for run in (Round.unary_alone, Round.unary_many, _streams):
                for side in sides if number % 2 == 0 else sides[::-1]:
                    await run(Round(report, sizes), side)
            print(f"round {number + 1} of {rounds} is done", file=sys.stderr, flush=True)
    return report


async def _streams(now: Round, side: Side) -> None:
    await now.streams(side, "fast", f"{now.sizes.at_once} streams burst 1")
