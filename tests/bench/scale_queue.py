"""What a deep queue costs those who pass it, who fill it, and who work it off. A part of tests.bench.scale."""

import asyncio
import time
from dataclasses import dataclass

from mesh.broker.broker import Broker
from mesh.broker.topology.pause import Lanes
from mesh.protocol.subjects import Names
from tests.bench.cpu import Meter
from tests.bench.report import Report
from tests.bench.scale_mesh import LARGE, PARKED, SMALL, TURNS, Costs, ScaleMesh, Squad, rss_bytes, scale_mesh
from tests.bench.stream import BenchError

CALM_S = 60.0  # for the sweeper to have read a deep queue
LOOK_S = 0.02
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class QueueSizes:
    """How much is done in one round."""

    deep: int = 100_000  # jobs that stand in the queue
    edge: int = 10_000  # of these, the first and the last are looked at
    shallow: int = 1_000
    drained: int = 10_000  # jobs worked off from each depth
    unary: int = 3_000  # requests in each block beside them
    at_once: int = 64
    swept_s: float = 3.0  # until who sweeps reads what was submitted, once: a part of what it costs
    watch_s: float = 10.0  # for which it is seen what handles cost that only wait


async def measure_queue(report: Report, sizes: QueueSizes) -> None:
    """Two meshes alike; the queue of one gets deep."""
    squads = (Squad(), Squad(model=PARKED))
    async with scale_mesh(*squads) as deep, scale_mesh(*squads) as shallow:
        meshes = {LARGE: deep, SMALL: shallow}
        for mesh in meshes.values():
            await _pause(mesh, HOUR_MS)
            await mesh.ask("unary", total=sizes.unary, at_once=sizes.at_once)  # caches, pools and the file system warm
        await _fill(report, sizes, deep)
        await _beside(report, sizes, meshes, f"unary, {sizes.deep:,} handles wait")
        await deep.ask("let_go")
        await deep.wait_calm(CALM_S)
        await _beside(report, sizes, meshes, f"unary, {sizes.deep:,} queued")
        await _drain(report, sizes, meshes)


async def _fill(report: Report, sizes: QueueSizes, mesh: ScaleMesh) -> None:
    """Submit them all; the first against the last, and what they take up."""
    costs = Costs(report, f"submit, last / first {sizes.edge:,} of {sizes.deep:,}", "submit")
    before = rss_bytes(mesh.client.pid), rss_bytes(mesh.broker_pid), (await mesh.queue())["bytes"]
    for side, total in ((SMALL, sizes.edge), ("", sizes.deep - 2 * sizes.edge), (LARGE, sizes.edge)):
        meter = mesh.meter()
        seconds = await mesh.ask("fill", model=PARKED, total=total)
        await asyncio.sleep(sizes.swept_s)
        await mesh.wait_calm(CALM_S)
        if side:
            costs.add(side, meter.spent_s(), total, seconds)
    costs.report()
    after = rss_bytes(mesh.client.pid), rss_bytes(mesh.broker_pid), (await mesh.queue())["bytes"]
    names = ("a waiting handle: client RSS, bytes", "a queued job: broker RSS, bytes", "a queued job: stream, bytes")
    for name, old, new in zip(names, before, after, strict=True):
        report.add(name, LARGE, (new - old) / sizes.deep)
    meter = mesh.meter()
    began_s = time.monotonic()
    await asyncio.sleep(sizes.watch_s)
    spent_s = meter.spent_s()
    for name in ("client", "broker"):
        row = f"{sizes.deep:,} handles wait: {name}, % of a core"
        report.add(row, LARGE, spent_s[name] / (time.monotonic() - began_s) * 100)


async def _beside(report: Report, sizes: QueueSizes, meshes: dict[str, ScaleMesh], label: str) -> None:
    costs = Costs(report, label)
    for side in TURNS:
        meter = meshes[side].meter()
        seconds = await meshes[side].ask("unary", total=sizes.unary, at_once=sizes.at_once)
        costs.add(side, meter.spent_s(), sizes.unary, seconds)
        report.count(side, sizes.unary)
    costs.report()


async def _drain(report: Report, sizes: QueueSizes, meshes: dict[str, ScaleMesh]) -> None:
    """Work jobs off: many from the deep queue, as many from one that is filled up to a little again and again."""
    label = f"drain, {sizes.deep:,} / {sizes.shallow:,} deep"
    costs, done = Costs(report, label), 0
    shallow, deep = meshes[SMALL], meshes[LARGE]
    while done < sizes.drained:
        await shallow.ask("fill", model=PARKED, total=sizes.shallow)
        await shallow.ask("let_go")
        await shallow.wait_calm(CALM_S)
        done += await _work_off(shallow, costs, SMALL, sizes.shallow)
    await _work_off(deep, costs, LARGE, sizes.drained)
    costs.report()


async def _work_off(mesh: ScaleMesh, costs: Costs, side: str, jobs: int) -> int:
    """Let the worker of the parked model have `jobs` or a few more."""
    before = await mesh.finished()
    meter = Meter({"worker": tuple(each.pid for each in mesh.workers), "broker": mesh.broker_pid})
    await _pause(mesh, 0)
    end_s = time.monotonic() + CALM_S
    while (count := await mesh.finished() - before) < jobs:
        if time.monotonic() > end_s:
            raise BenchError(f"{count} of {jobs} queued jobs were worked off within {CALM_S:.0f} s")
        await asyncio.sleep(LOOK_S)
    costs.add(side, meter.spent_s(), count)
    await _pause(mesh, HOUR_MS)
    return count


async def _pause(mesh: ScaleMesh, ms: int) -> None:
    """Have the parked model's queue deliver nothing for so long; 0: deliver."""
    lanes = Lanes(Broker(mesh.connection, Names()))
    for lane in await lanes.all():
        if lane.model == PARKED:
            if ms:
                await lanes.pause(lane.consumer, await lanes.clock_unix_ms() + ms)
            else:
                await lanes.resume(lane.consumer)
