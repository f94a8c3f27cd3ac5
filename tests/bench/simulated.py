"""The mesh against the floor, on the simulated engine. Called by `python -m tests.bench simulated`."""

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mesh.protocol.messages import Request
from tests.bench.engine import INSTANT, INTERVAL_S, PACED, expected, prompt_of
from tests.bench.load import Watch, keep_open
from tests.bench.report import Report
from tests.bench.sides import Measured, simulated_sides
from tests.bench.stream import BenchError, Stream, latenesses_s, percentile

LOAD_S = 120.0  # for the slowest side on a busy machine; a lost answer shows as this
PROMPTS = 16  # different answers, so that tokens of one job in another are seen


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in one round."""

    alone: int = 300  # requests, one at a time
    many: int = 3000  # requests, `at_once` at a time
    streams: int = 384
    stream_tokens: int = 128
    streams_s: float = 1.0  # sides that are quicker with `streams` of them get as many again, for that long
    paced: int = 192  # streams
    paced_tokens: int = 64
    at_once: int = 64


SMALL = Sizes(alone=5, many=16, streams=8, stream_tokens=20, streams_s=0.0, paced=4, paced_tokens=8, at_once=4)

Measure = Callable[["Round", Measured], Awaitable[None]]


class Round:
    """One round's way of putting load on a side, and of writing down what came out."""

    def __init__(self, report: Report, sizes: Sizes) -> None:
        self.report = report
        self.sizes = sizes

    async def run(
        self,
        side: Measured,
        profile: str,
        total: int,
        tokens: int,
        *,
        at_once: int,
        stream: bool,
        spread_s: float = 0.0,
    ) -> list[Stream]:
        """`total` requests, each answer checked against what the engine must have made."""
        prompts = [prompt_of(profile, number) for number in range(PROMPTS)]
        answers = {prompt: expected(prompt, tokens) for prompt in prompts}

        async def one(prompt: str) -> Stream:
            found = await side.asker.run(Request(prompt=prompt, max_tokens=tokens, temperature=0, stream=stream))
            text, token_ids = answers[prompt]
            if stream:
                found.check(text, token_ids)
            elif found.result_text != text:
                raise BenchError(f"job {found.job}: {found.result_text!r} in place of {text!r}")
            return found

        calls = [functools.partial(one, prompts[number % PROMPTS]) for number in range(total)]
        try:
            async with asyncio.timeout(LOAD_S):
                found = await keep_open(at_once, calls, spread_s)
        except TimeoutError:
            raise BenchError(f"{side.name}: {total} requests did not end within {LOAD_S:.0f} s") from None
        self.report.count(side.name, len(found))
        return found

    async def unary_alone(self, side: Measured) -> None:
        """One request at a time, of one token, without a stream."""
        found = await self.run(side, "fast", self.sizes.alone, 1, at_once=1, stream=False)
        self._times("unary alone", side, [each.done_s - each.asked_s for each in found], 1e6, "µs")
        await side.settle()

    async def streamed_alone(self, side: Measured) -> None:
        """The same, with its events streamed."""
        found = await self.run(side, "fast", self.sizes.alone, 1, at_once=1, stream=True)
        self._times("one token streamed alone", side, [each.done_s - each.asked_s for each in found], 1e6, "µs")
        await side.settle()

    async def unary_many(self, side: Measured) -> None:
        """As many at a time as the sizes say."""
        total, at_once = self.sizes.many, self.sizes.at_once
        meter, watch = side.meter(), Watch()
        await self.run(side, "fast", total, 1, at_once=at_once, stream=False)
        self.report.add(f"unary at {at_once}, req/s", side.name, total / watch.elapsed_s())
        await side.settle()
        self._cpu(f"unary at {at_once}, CPU µs/req", side, meter.spent_s(), total)

    async def streams(self, side: Measured, profile: str, label: str) -> None:
        """Streams as fast as the engine can."""
        tokens, found = self.sizes.stream_tokens, list[Stream]()
        meter, watch = side.meter(), Watch()
        while not found or watch.elapsed_s() < self.sizes.streams_s:
            found += await self.run(side, profile, self.sizes.streams, tokens, at_once=self.sizes.at_once, stream=True)
        total = len(found) * tokens
        self.report.add(f"{label}, tokens/s", side.name, total / watch.elapsed_s())
        self._events(f"{label},", side, found)
        await side.settle()
        self._cpu(f"{label}, CPU µs/token", side, meter.spent_s(), total)

    async def paced(self, side: Measured) -> None:
        """Streams at the pace of a real model: how late tokens are, and what they cost."""
        total, tokens = self.sizes.paced, self.sizes.paced_tokens
        await side.take_times()  # forgets those of the warm-up
        meter = side.meter()
        spread_s = tokens * INTERVAL_S
        at_once = self.sizes.at_once
        found = await self.run(side, PACED, total, tokens, at_once=at_once, stream=True, spread_s=spread_s)
        await side.settle()
        spent_s = meter.spent_s()
        times = await side.take_times()
        late = [s for each in found for s in latenesses_s(each, times[each.job][1], INTERVAL_S)]
        self._times("paced: token late by", side, late, 1e3, "ms")
        # Without the engine's own share, from getting the job to the step that makes its first token.
        first = [each.first_token_s() - (times[each.job][1] - times[each.job][0]) for each in found]
        self._times("paced: first token", side, first, 1e3, "ms")
        self._events("paced:", side, found)
        for name, seconds in spent_s.items():
            self.report.add(f"paced: {name} CPU µs/token", side.name, seconds / (total * tokens) * 1e6)
        self._cpu("paced: CPU µs/token", side, spent_s, total * tokens)

    def _times(self, label: str, side: Measured, times_s: list[float], scale: float, unit: str) -> None:
        for share in (50, 99):
            self.report.add(f"{label} p{share}, {unit}", side.name, percentile(times_s, share / 100) * scale)

    def _events(self, label: str, side: Measured, found: list[Stream]) -> None:
        """How far tokens gathered on their way: it explains the rest."""
        n_events = sum(len(each.counts) for each in found)
        self.report.add(f"{label} tokens/event", side.name, sum(sum(each.counts) for each in found) / n_events)

    def _cpu(self, label: str, side: Measured, spent_s: dict[str, float], units: int) -> None:
        self.report.add(label, side.name, sum(spent_s.values()) / units * 1e6)


async def _burst_1(now: Round, side: Measured) -> None:
    await now.streams(side, "fast", f"{now.sizes.at_once} streams burst 1")


async def _burst_16(now: Round, side: Measured) -> None:
    await now.streams(side, "burst", f"{now.sizes.at_once} streams burst 16")


async def _instant(now: Round, side: Measured) -> None:
    await now.streams(side, INSTANT, f"{now.sizes.at_once} streams instant")


# What is measured, and whether the coalescing floor differs there.
MEASURES: tuple[tuple[Measure, bool], ...] = (
    (Round.unary_alone, False),
    (Round.streamed_alone, False),
    (Round.unary_many, False),
    (_burst_1, True),
    (_burst_16, True),
    (_instant, True),
    (Round.paced, True),
)


async def measure(rounds: int, sizes: Sizes | None = None) -> Report:
    """All measures, each on every side in turn; who goes first alternates."""
    sizes = sizes or Sizes()
    async with simulated_sides() as sides:
        report = Report("simulated engine", [side.name for side in sides])
        for side in sides:  # caches, pools and the file system warm
            await Round(Report("warm-up", []), sizes).unary_many(side)
            for profile in ("fast", INSTANT):
                await Round(Report("warm-up", []), sizes).streams(side, profile, "")
        for number in range(rounds):
            for run, coalesces in MEASURES:
                taking_part = sides if coalesces else sides[:2]
                for side in taking_part if number % 2 == 0 else taking_part[::-1]:
                    await run(Round(report, sizes), side)
            print(f"round {number + 1} of {rounds} is done", file=sys.stderr, flush=True)
    return report
