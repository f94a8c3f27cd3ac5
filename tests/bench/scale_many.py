"""What many tenants and many workers cost. Parts of tests.bench.scale."""

import asyncio
import time
from dataclasses import dataclass

from tests.bench.report import Report
from tests.bench.scale_mesh import LARGE, SMALL, TURNS, Costs, Squad, scale_mesh


@dataclass(frozen=True, slots=True)
class TenantSizes:
    """How much is done in one round."""

    tenants: int = 1_000
    unary: int = 4_000  # requests in each block
    at_once: int = 64


@dataclass(frozen=True, slots=True)
class WorkerSizes:
    """How much is done in one round."""

    workers: int = 64
    rate: float = 300.0  # requests a second
    block_s: float = 6.0
    idle_s: float = 10.0
    settle_s: float = 4.0  # for everybody to have seen everybody


async def measure_tenants(report: Report, sizes: TenantSizes) -> None:
    """One tenant and all of them in turn, on one mesh; a client for each, on one connection."""
    async with scale_mesh(Squad()) as mesh:
        counts = {LARGE: sizes.tenants, SMALL: 1}
        for count in counts.values():  # clients are made, every lane is known
            await mesh.ask("unary", total=max(count, sizes.unary), at_once=sizes.at_once, tenants=count)
        label = f"unary, {sizes.tenants:,} tenants / 1"
        costs = Costs(report, label)
        for side in TURNS:
            meter = mesh.meter()
            load = {"total": sizes.unary, "at_once": sizes.at_once, "tenants": counts[side]}
            seconds = await mesh.ask("unary", **load)
            costs.add(side, meter.spent_s(), sizes.unary, seconds)
            report.count(side, sizes.unary)
        costs.report()


async def measure_workers(report: Report, sizes: WorkerSizes) -> None:
    """Two meshes, one with many worker processes; the same load is offered to each."""
    async with scale_mesh(Squad(sizes.workers)) as large, scale_mesh(Squad()) as small:
        meshes, counts = {LARGE: large, SMALL: small}, {LARGE: sizes.workers, SMALL: 1}
        for mesh in meshes.values():
            await mesh.ask("offered", rate=sizes.rate, seconds=sizes.block_s / 2)
        await asyncio.sleep(sizes.settle_s)
        meters, began_s = {side: mesh.meter() for side, mesh in meshes.items()}, time.monotonic()
        await asyncio.sleep(sizes.idle_s)
        seconds = time.monotonic() - began_s
        idle = {side: {name: s / seconds for name, s in meters[side].spent_s().items()} for side in meshes}
        label = f"{sizes.workers} workers / 1"
        for name in ("worker", "broker"):
            for side, count in counts.items():
                report.add(f"{label}, idle: {name} CPU ms/s per worker", side, idle[side][name] / count * 1e3)
        label = f"{label}, unary at {sizes.rate:g}/s"
        gross, net = Costs(report, label), Costs(report, f"{label}, less idle")
        for side in TURNS:
            meter, began_s = meshes[side].meter(), time.monotonic()
            jobs = await meshes[side].ask("offered", rate=sizes.rate, seconds=sizes.block_s)
            spent_s, seconds = meter.spent_s(), time.monotonic() - began_s
            gross.add(side, spent_s, jobs)
            net.add(side, {name: max(0.0, s - idle[side][name] * seconds) for name, s in spent_s.items()}, jobs)
            report.count(side, jobs)
        gross.report()
        net.report()
