"""`mesh replay`: from the options to `control/replay/runner`, and what it came to."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from mesh.broker import topology
from mesh.broker.broker import Broker, open_broker
from mesh.broker.stores.recordings import TimeRange
from mesh.cli.connecting import connect_options, open_mesh
from mesh.cli.load.replay_values import ReplayOptions, ReplayTarget
from mesh.cli.option_values import Nats
from mesh.cli.terminal import figures, render
from mesh.cli.terminal.live import progress
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.clock import SYSTEM
from mesh.control.replay.plan import SHARES, Outline, ReplayMapping, ReplayReport
from mesh.control.replay.runner import Pace, Replay, check_models
from mesh.errors import ConfigError
from mesh.figures import quantile
from mesh.protocol.subjects import Names, check_token, is_token, to_token

LOOK_S = 0.5  # between looks at how it goes
TELL_S = 10.0  # between lines where nobody watches
_OUTLINE = (
    TableColumn("tenant", least=8),
    TableColumn("model/tier", least=12),
    TableColumn("requests", is_number=True),
)
_TIMES = (TableColumn("", least=12), *(TableColumn(f"p{share}", is_number=True) for share in SHARES))
_WHY = {
    "unreadable": "were no requests that can be read",
    "replays": "were replays themselves",
}


async def run(asked: ReplayOptions, whither: ReplayTarget, nats: Nats, is_applied: bool, as_json: bool) -> bool:
    """Show what would be submitted, or submit it; False if that was to be done, and not for all of them.

    Raises:
        ConfigError, InvalidRequestError: an option cannot be used.
        ModelNotFoundError: the target lacks a model; nothing was submitted.
        TopologyError: nothing is recorded, or there is no mesh.
        BrokerError: NATS did not answer.
    """
    target = ReplayMapping(secrets.token_hex(3), *_models(whither.to_model), tenant=whither.to_tenant)
    if target.tenant is not None:
        check_token("to-tenant", target.tenant)
    pace = Pace(asked.speed or None, asked.limit, asked.at_once)
    async with open_mesh(nats) as source:
        replay = Replay(source, _span(asked), target, pace)
        outline = await replay.outline()
        async with _open_target(source, whither, nats) as broker:
            await check_models(broker, outline)
            if not is_applied:
                _show_outline(outline, asked, as_json)
                return True
            try:
                await _submit(replay, broker, outline, as_json)
                await replay.compare()
            finally:  # also when a signal ends it: what was done is told
                _show_report(replay.report, target.run, outline, as_json)
    return not (replay.report.refused or replay.report.ended["lost"])


async def _submit(replay: Replay, broker: Broker, outline: Outline, as_json: bool) -> None:
    telling = asyncio.create_task(_tell(replay.report, outline), name="mesh-replay-tell") if not as_json else None
    try:
        await replay.run(broker)
    finally:
        if telling is not None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)


async def _tell(report: ReplayReport, outline: Outline) -> None:
    """How it goes, until cancelled."""
    with progress(TELL_S, outline.total) as tell:
        while True:
            await asyncio.sleep(LOOK_S)
            text = f"{report.submitted:,} of {outline.total:,} submitted, {report.open:,} open"
            if report.refused:
                text += f", {report.refused.total():,} refused"
            tell(text, report.submitted)


def _show_outline(outline: Outline, asked: ReplayOptions, as_json: bool) -> None:
    span_ms = outline.last_unix_ms - outline.first_unix_ms
    if as_json:
        render.say_json(json.dumps({"applied": False, **_outline_as_json(outline)}))
        return
    if outline.total:
        rows = [
            (render.harmless(tenant), render.harmless(f"{model}/{tier}"), f"{count:,}")
            for (tenant, model, tier), count in outline.asks.most_common()
        ]
        show_table(_OUTLINE, rows)
    for line in _remarks(outline):
        render.note(line)
    if outline.total:
        pace = f"takes {figures.span(span_ms / asked.speed)} or longer" if asked.speed else "takes as long as they run"
        render.note(f"recorded in {figures.span(span_ms)}; this {pace}. Nothing was submitted; --apply submits them.")


def _remarks(outline: Outline) -> Iterator[str]:
    if not outline.total:
        yield "no recorded request is to be replayed, as far as was asked for"
    for why, count in outline.skipped.items():
        yield f"{figures.many(count, 'recorded message')} {_WHY[why]}, and left out"
    if outline.missing:
        yield f"{figures.many(outline.missing, 'request')} between the first and the last were not recorded"


def _show_report(report: ReplayReport, run: str, outline: Outline, as_json: bool) -> None:
    if as_json:
        render.say_json(json.dumps(_report_as_json(report, run, outline)))
        return
    for line in _remarks(outline):
        render.note(line)
    render.say(f"run {run}: {report.submitted:,} of {outline.total:,} submitted as replay-{run}-…")
    for title, counts in (("refused", report.refused), ("ended", report.ended)):
        if counts:
            render.say(f"{title}: {', '.join(f'{name} {count:,}' for name, count in counts.most_common())}")
    if report.open:
        render.say(f"{figures.many(report.open, 'job')} had not ended when this did, and go on")
    if report.behind_s >= 1:
        render.note(f"the pace was not kept: up to {figures.span(report.behind_s * 1000)} late; see --at-once, --speed")
    rows = [
        (f"{what}, {who}", *(figures.span(quantile(values, share / 100)) for share in SHARES))
        for what, who, values in _times(report)
        if values
    ]
    if rows:
        show_table(_TIMES, rows)
        if not report.originals:
            render.note("how long the originals took is not known: they are not in the audit (any more)")


def _times(report: ReplayReport) -> Iterator[tuple[str, str, Sequence[int]]]:
    for what, (originals, replays) in (("first token", report.firsts_ms()), ("total", report.totals_ms())):
        yield what, "originals", originals
        yield what, "replays", replays


def _outline_as_json(outline: Outline) -> dict[str, Any]:
    return {
        "requests": outline.total,
        "asks": [
            {"tenant": tenant, "model": model, "tier": tier, "requests": count}
            for (tenant, model, tier), count in outline.asks.most_common()
        ],
        "first_unix_ms": outline.first_unix_ms,
        "last_unix_ms": outline.last_unix_ms,
        "left_out": dict(outline.skipped),
        "missing": outline.missing,
    }


def _report_as_json(report: ReplayReport, run: str, outline: Outline) -> dict[str, Any]:
    times = {
        f"{what.replace(' ', '_')}_ms_{who}": {f"p{share}": round(quantile(values, share / 100)) for share in SHARES}
        for what, who, values in _times(report)
        if values
    }
    done = {"submitted": report.submitted, "refused": dict(report.refused), "ended": dict(report.ended)}
    open_ = {"open": report.open, "behind_s": round(report.behind_s, 3)}
    return {"applied": True, "run": run, **done, **open_, "times": times, "outline": _outline_as_json(outline)}


@contextlib.asynccontextmanager
async def _open_target(source: Broker, whither: ReplayTarget, nats: Nats) -> AsyncIterator[Broker]:
    """Where they are submitted: the mesh they come from, or another one, which gets none of our credentials.

    Raises:
        TopologyError: there is no mesh.
    """
    names = Names(whither.to_namespace or nats.namespace)
    if whither.to_nats is None:
        if whither.to_creds is not None:
            raise ConfigError("--to-creds is for --to-nats, which is not given", key="to-creds")
        there = Broker(source.connection, names)
        if names != source.names:
            await topology.read_settings(there)
        yield there
        return
    target = replace(
        connect_options(replace(nats, nats=(whither.to_nats,)), "mesh-replay"),
        user=None,
        password=None,
        credentials=whither.to_creds,
        nkey_seed=None,
        tls_cert=None,
        tls_key=None,
    )
    async with open_broker(target, names) as broker:
        await topology.read_settings(broker)
        yield broker


def _models(given: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """`chat=new` and `new`: the renamed models, and the one for all others.

    Raises:
        ConfigError: it reads otherwise.
    """
    renamed, others = dict[str, str](), list[str]()
    for each in given:
        old, equals, new = each.rpartition("=")
        if not is_token(new) or (equals and not is_token(old)):
            raise ConfigError(f"--to-model {each!r} is neither NEW nor OLD=NEW with names of models", key="to-model")
        if equals:
            renamed[old] = new
        else:
            others.append(new)
    if len(others) > 1:
        raise ConfigError(f"--to-model names one model for all others, not {' and '.join(others)}", key="to-model")
    return renamed, others[0] if others else None


def _span(asked: ReplayOptions) -> TimeRange:
    now_s = SYSTEM.wall_unix_ms() / 1000
    model = asked.model
    if model is not None and not is_token(model):  # MESH_MODEL may hold what `mesh up` loads
        model = to_token(model)
    since = None if asked.since is None else int((now_s - asked.since) * 1000)
    # Not later than now: what is replayed into this very mesh is recorded too.
    return TimeRange(since, int((now_s - (asked.until or 0.0)) * 1000), asked.tenant, model)
