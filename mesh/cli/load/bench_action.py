"""`mesh bench`: put load on a running mesh, show how it goes, print what it came to."""

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from mesh.cli.connecting import choose_model, connect_options
from mesh.cli.option_values import Nats
from mesh.cli.terminal import live, render
from mesh.clock import SYSTEM
from mesh.errors import ConfigError
from mesh.protocol.subjects import Names
from mesh.verify.bench import plot, report
from mesh.verify.bench.dataset import read_items
from mesh.verify.bench.figures import Sample, figures_of
from mesh.verify.bench.load import BenchLoad, Progress, open_clients
from mesh.verify.bench.plan import Item, PlannedRequest, WorkloadShape, asks, read_goals, read_length, read_shares

TELL_S = 5.0  # between lines of progress where nobody watches


@dataclass(frozen=True, slots=True)
class Wanted:
    """The requests, as the options give them."""

    model: str | None
    num_prompts: int
    request_rate: float | None
    max_concurrency: int | None
    burstiness: float
    input_len: str
    output_len: str
    dataset: Path | None
    tier: str
    tenant: str
    temperature: float
    respect_eos: bool
    num_warmups: int
    seed: int


@dataclass(frozen=True, slots=True)
class Output:
    """The outputs of a benchmark."""

    goodput: tuple[str, ...]
    percentiles: str
    json_file: Path | None
    plot: Path | None
    samples: bool


async def run(wanted: Wanted, output: Output, nats: Nats) -> bool:
    """The whole benchmark; whether every request finished.

    Raises:
        ConfigError: an option cannot be used.
        DisconnectedError, TopologyError: no NATS, or no mesh on it.
    """
    goals, shares = read_goals(output.goodput), _percentiles(output.percentiles)
    if output.plot is not None:
        plot.check_file(output.plot)
    shape, items = _shape(wanted), _items(wanted.dataset)
    plan = list(asks(random.Random(wanted.seed), shape, items))
    concurrency = wanted.max_concurrency
    if concurrency is None and any(ask.at_s is None for ask in plan):
        concurrency = len(plan)  # all at once, as vLLM's infinite rate
    names = Names(nats.namespace)
    async with open_clients(connect_options(nats, "mesh-bench"), names, (ask.tenant for ask in plan)) as clients:
        model = await choose_model(next(iter(clients.values())), wanted.model)
        load = BenchLoad(model, clients, concurrency)
        if wanted.num_warmups:
            await load.run(_warm_up(plan, wanted.num_warmups))
        with _progress(len(plan)) as told:
            samples = await load.run(plan, told)
    figures = figures_of(samples, goals, shares)
    for line in report.lines_of(figures, goals):
        render.say(line)
    if output.json_file is not None:
        setup = {"schema": render.SCHEMA, "date": time.strftime("%Y%m%d-%H%M%S"), "model_id": model, **_told(wanted)}
        _write(output.json_file, setup | figures.as_json() | (_raw(samples) if output.samples else {}))
    if output.plot is not None:
        plot.draw(samples, f"{model}: {figures.finished} of {figures.requests} requests", output.plot)
    return figures.finished == figures.requests


def _shape(wanted: Wanted) -> WorkloadShape:
    return WorkloadShape(
        count=wanted.num_prompts,
        input=read_length("input-len", wanted.input_len),
        output=read_length("output-len", wanted.output_len),
        tenants=read_shares("tenant", wanted.tenant),
        tiers=read_shares("tier", wanted.tier),
        rate=wanted.request_rate,
        burstiness=wanted.burstiness,
        ignore_eos=not wanted.respect_eos,
        temperature=wanted.temperature,
    )


def _items(file: Path | None) -> list[Item]:
    if file is None:
        return []
    try:
        body = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"--dataset {file} cannot be read: {error.strerror}", key="dataset") from None
    return read_items(body, file.name)


def _warm_up(plan: list[PlannedRequest], count: int) -> Iterator[PlannedRequest]:
    """The first ones, at once; caches, pools and compilers are warm afterwards."""
    return (PlannedRequest(None, ask.tenant, ask.tier, ask.fields) for ask in plan[:count])


def _percentiles(text: str) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if not all(0 < share < 100 for share in found):
        raise ConfigError(
            f"--percentiles = {text!r} must be whole numbers from 1 to 99, such as 50,99", key="percentiles"
        )
    return found


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Progress]:
    """Tells how far the benchmark is."""
    began_s = SYSTEM.monotonic_s()
    with live.progress(TELL_S, total) as tell:

        def told(sent: int, ended: int, tokens: int) -> None:
            spent_s = SYSTEM.monotonic_s() - began_s
            rate = tokens / max(spent_s, 0.001)
            tell(f"{ended}/{total} ended, {sent - ended} open, {rate:,.0f} tok/s, {spent_s:.0f} s", ended)

        yield told


def _told(wanted: Wanted) -> dict[str, object]:
    """The options, in vLLM's names."""
    told = asdict(wanted)
    del told["model"], told["num_prompts"]
    told["dataset"] = None if wanted.dataset is None else wanted.dataset.name
    told["request_rate"] = "inf" if wanted.request_rate is None else wanted.request_rate
    return told


def _raw(samples: list[Sample]) -> dict[str, object]:
    """Each request's own values."""
    return {
        "input_lens": [each.prompt_tokens for each in samples],
        "output_lens": [each.completion_tokens for each in samples],
        "ttfts": [None if each.ttft_ms is None else each.ttft_ms / 1000 for each in samples],
        "itls": [[b - a for a, b in zip(each.arrivals_s, each.arrivals_s[1:], strict=False)] for each in samples],
        "statuses": [each.status for each in samples],
        "errors": [each.code for each in samples],
    }


def _write(file: Path, values: dict[str, object]) -> None:
    try:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(values), indent=1) + b"\n")
    except OSError as error:
        raise ConfigError(f"--json {file} cannot be written: {error.strerror}", key="json") from None
