"""What many streams of one client cost, against few that bring as many tokens a second. A part of tests.bench.scale."""

import asyncio
import time
from dataclasses import dataclass

from tests.bench.report import Report
from tests.bench.scale_engine import FAST
from tests.bench.scale_mesh import LARGE, SMALL, Costs, ScaleMesh, Squad, rss_bytes, scale_mesh
from tests.bench.stream import BenchError

READY_S = 120.0
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class StreamSizes:
    """How much is done in one round. Both paces bring the same number of tokens a second in all."""

    many: int = 10_000  # streams at once
    few: int = 100
    slow_ms: int = 4_000  # between two tokens of the many
    workers: int = 4
    window_s: float = 12.0  # that is looked at, while all are open
    spread_s: float = 8.0  # over which the many begin
    slack_s: float = 6.0  # for all of them to have begun
    quiet_few: int = 1_000  # streams that wait for their first token
    quiet_s: float = 8.0

    @property
    def brisk_ms(self) -> float:
        """Between two tokens of the few."""
        return self.slow_ms * self.few / self.many


async def measure_streams(report: Report, sizes: StreamSizes) -> None:
    """The few before and after the many, on one mesh."""
    slow, brisk = f"0:{sizes.slow_ms}", f"0:{sizes.brisk_ms:g}"
    quiet = f"{(sizes.spread_s + sizes.quiet_s + sizes.slack_s) * 1000:g}:0"
    capacity = -(-sizes.many * 5 // (4 * sizes.workers))  # some to spare: not all get equally many
    async with scale_mesh(Squad(sizes.workers, capacity=capacity, paces=(FAST, slow, brisk, quiet))) as mesh:
        await mesh.ask("unary", total=20 * sizes.workers, at_once=4)
        label = f"stream, {sizes.many:,} / {sizes.few} at once"
        costs = Costs(report, label, "token")
        blocks: list[_Block] = []
        few, many = (sizes.few, brisk, sizes.brisk_ms / 1000), (sizes.many, slow, sizes.slow_ms / 1000)
        blocks.append(await _window(mesh, sizes, report, costs, SMALL, few))
        before = _memory(mesh)
        blocks.append(await _window(mesh, sizes, report, costs, LARGE, many))
        blocks.append(await _window(mesh, sizes, report, costs, SMALL, few))
        costs.report()
        for name, old, new in zip(("client", "worker", "broker"), before, blocks[1].memory, strict=True):
            report.add(f"a running stream: {name} RSS, bytes", LARGE, (new - old) / sizes.many)
        kept = await _quiet(mesh, report, sizes, quiet)
        net = Costs(report, f"{label}, less quiet", "token")
        for block in blocks:
            held_s = block.streams * block.seconds
            net.add(block.side, {name: s - kept[name] * held_s for name, s in block.spent_s.items()}, block.tokens)
        net.report()


@dataclass(frozen=True, slots=True)
class _Block:
    """What was seen while `streams` were open for so many `seconds`."""

    side: str
    streams: int
    seconds: float
    tokens: int
    spent_s: dict[str, float]
    memory: tuple[float, float, float]  # client, workers, broker


async def _window(
    mesh: ScaleMesh, sizes: StreamSizes, report: Report, costs: Costs, side: str, load: tuple[int, str, float]
) -> _Block:
    """One block: `load` says how many streams, their pace, and the seconds between two tokens."""
    total, pace, interval_s = load
    spread_s = sizes.spread_s * total / sizes.many
    tokens = int((spread_s + sizes.window_s + sizes.slack_s) / interval_s) + 2
    await mesh.ask("begin", pace=pace, total=total, tokens=tokens, spread_s=spread_s)
    await _until(mesh, "shown", total)
    meter, began_s, before = mesh.meter(), time.monotonic(), await mesh.ask("standing")
    await asyncio.sleep(sizes.window_s)
    after, seconds = await mesh.ask("standing"), time.monotonic() - began_s
    heard = after["tokens"] - before["tokens"]
    spent_s = meter.spent_s()
    costs.add(side, spent_s, heard, seconds)
    block = _Block(side, total, seconds, heard, spent_s, _memory(mesh))
    if after["ended"]:
        raise BenchError(f"{after['ended']} of {total} streams ended before all had been looked at")
    report.count(side, await mesh.ask("finish"))
    return block


async def _quiet(mesh: ScaleMesh, report: Report, sizes: StreamSizes, pace: str) -> dict[str, float]:
    """What it costs to keep a stream on which nothing comes: its lease, and whoever looks after it.

    CPU seconds of each process for one of many streams and one second.
    """
    label = f"quiet stream, {sizes.many:,} / {sizes.quiet_few:,} at once"
    costs = Costs(report, label, "s")
    meter, began_s = mesh.meter(), time.monotonic()
    await asyncio.sleep(sizes.quiet_s / 2)
    seconds = time.monotonic() - began_s
    idle = {name: spent_s / seconds for name, spent_s in meter.spent_s().items()}
    kept: dict[str, float] = {}
    for side, total in ((SMALL, sizes.quiet_few), (LARGE, sizes.many)):
        await mesh.ask("begin", pace=pace, total=total, tokens=1, spread_s=sizes.spread_s * total / sizes.many)
        await _until(mesh, "jobs", total)
        meter, began_s = mesh.meter(), time.monotonic()
        await asyncio.sleep(sizes.quiet_s)
        spent_s, seconds = meter.spent_s(), time.monotonic() - began_s
        # Without what the processes take with no job at all.
        spent_s = {name: max(0.0, s - idle[name] * seconds) for name, s in spent_s.items()}
        costs.add(side, spent_s, total * seconds)
        kept = {name: s / (total * seconds) for name, s in spent_s.items()}
        if (await mesh.ask("standing"))["shown"]:
            raise BenchError("a stream that should have been quiet was not")
        report.count(side, await mesh.ask("finish"))
    costs.report()
    return kept


async def _until(mesh: ScaleMesh, what: str, count: int) -> None:
    end_s = time.monotonic() + READY_S
    while (now := (await mesh.ask("standing"))[what]) < count:
        if time.monotonic() > end_s:
            raise BenchError(f"{now} of {count} streams: {what} within {READY_S:.0f} s")
        await asyncio.sleep(LOOK_S)


def _memory(mesh: ScaleMesh) -> tuple[float, float, float]:
    workers = sum(rss_bytes(each.pid) for each in mesh.workers)
    return rss_bytes(mesh.client.pid), workers, rss_bytes(mesh.broker_pid)
