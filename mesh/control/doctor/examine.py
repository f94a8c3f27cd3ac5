"""Gathers the facts for `mesh doctor`.

Changes nothing. Every request has a time limit.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import urlsplit

from msgspec.structs import replace

from mesh.broker import topology
from mesh.broker.broker import Broker, open_broker
from mesh.broker.inspect import examine
from mesh.broker.inspect.inspector import Inspector
from mesh.broker.inspect.server_info import ServiceFacts
from mesh.broker.topology import Change, MeshSettings
from mesh.broker.transport.connection import Connection
from mesh.broker.transport.options import ConnectOptions
from mesh.broker.transport.tls import is_loopback
from mesh.control.doctor import local as local_machine
from mesh.control.doctor.facts import (
    AddressFacts,
    ClockFacts,
    DriftFacts,
    Facts,
    LocalFacts,
    LoginFacts,
    MeshFacts,
    SettingsFacts,
)
from mesh.control.status import snapshot as status
from mesh.control.status.versions import Speaker
from mesh.errors import BrokerError, BrokerTimeoutError, ConfigError, MeshError, UnauthorizedError, VersionError
from mesh.protocol.messages import TIERS
from mesh.protocol.subjects import Names

CLOCK_SAMPLES = 8  # the sample with the shortest round trip is the most exact
NO_META = 10008  # JetStream: "system temporarily unavailable", where its cluster has no leader
MOST_ASKED = 200  # most workers that are pinged

T = TypeVar("T")


async def examine_all(options: ConnectOptions, names: Names, monitor_url: str | None, is_quick: bool) -> Facts:
    """Gathers all facts of NATS and of this machine, concurrently."""
    looking = asyncio.create_task(local_machine.look(is_quick), name="mesh-doctor-local")
    try:
        found = await _examine_nats(options, names, monitor_url)
        local: LocalFacts = await looking
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    return replace(found, local=local)


async def _examine_nats(options: ConnectOptions, names: Names, monitor_url: str | None) -> Facts:
    known = Facts(
        namespace=names.ns,
        addresses=[address_of(each, options.demands_tls) for each in options.servers],
        login=LoginFacts(
            has_password=_has_secret(options),
            has_key=options.credentials is not None or options.nkey_seed is not None,
        ),
    )
    try:
        async with open_broker(options, names) as broker:
            return await _examine(broker, known, monitor_url)
    except UnauthorizedError as error:
        return replace(known, unreachable=str(error), is_refused=True)
    except ConfigError as error:
        return replace(known, unreachable=str(error), is_misconfigured=True)
    except BrokerError as error:
        return replace(known, unreachable=str(error))


async def _examine(broker: Broker, known: Facts, monitor_url: str | None) -> Facts:
    greeting = examine.greeting(broker.connection)
    known = replace(known, greeting=greeting)
    if monitor_url is not None:
        monitor = await local_machine.read_monitor(monitor_url, greeting.server_id)
        known = replace(known, monitor=monitor)
    try:
        known = replace(known, account=await examine.account(broker.connection))
    except MeshError as error:
        is_away = isinstance(error, BrokerTimeoutError) or (
            isinstance(error, BrokerError) and error.err_code == NO_META
        )
        return replace(known, account_error=str(error), is_jetstream_away=is_away)
    mesh = await _examine_mesh(broker)
    return replace(known, mesh=mesh, clock=await _clock(broker.connection))


async def _examine_mesh(broker: Broker) -> MeshFacts:
    leaderless = await _or_nothing(examine.leaderless(broker))
    try:
        settings = await topology.read_settings(broker)
    except MeshError as error:
        exists = await examine.exists(broker.connection, broker.names.requests_stream)
        is_other = isinstance(error, VersionError)
        return MeshFacts(why_not=str(error), exists=exists, is_other_version=is_other, leaderless=leaderless or [])
    inspector, look_error = Inspector(broker), ""
    try:
        seen = await status.snapshot(broker)
    except MeshError as error:
        seen, look_error = None, str(error)
    workers = [each.presence for each in seen.workers] if seen is not None else []
    lanes = await _or_nothing(inspector.lanes()) or []
    models = {each.model for each in workers} | {each.model for each in lanes if each.tier in TIERS}
    drifts, silent, services = await asyncio.gather(
        _or_nothing(_drifts(broker, settings, sorted(models))),
        examine.silent(broker, [each.worker for each in workers[:MOST_ASKED]]),
        _or_nothing(examine.services(broker)),
    )
    return MeshFacts(
        settings=SettingsFacts(
            replicas=settings.replicas,
            storage=settings.storage,
            events_storage=settings.events_storage,
            events_bytes=settings.events_bytes,
            lanes=settings.lanes,
            protocol=str(settings.protocol),
        ),
        doors=_doors(services or [], {each.worker for each in workers}),
        drifts=drifts or [],
        leaderless=leaderless or [],
        lanes=lanes,
        silent=silent,
        snapshot=seen,
        look_error=look_error,
    )


def _doors(services: list[ServiceFacts], workers: set[str]) -> list[Speaker]:
    """Returns the services that no worker hosts."""
    return [
        Speaker(name=each.id, kind="door", protocol=each.metadata.get("protocol", ""), version=each.version)
        for each in services
        if each.id not in workers
    ]


async def _drifts(broker: Broker, settings: MeshSettings, models: list[str]) -> list[DriftFacts]:
    found = await topology.plan(broker, settings)
    drifts = [_drift(each, "") for each in found if each.verb != "keep"]
    for model in models:
        plan = await topology.plan_consumers(broker, settings, model)
        drifts += [_drift(each, model) for each in plan if each.verb != "keep"]
    return drifts


def _drift(change: Change, model: str) -> DriftFacts:
    return DriftFacts(kind=change.kind, name=change.name, detail=change.detail, model=model)


async def _clock(connection: Connection) -> ClockFacts | None:
    samples = await _or_nothing(examine.clock_samples(connection, CLOCK_SAMPLES))
    if not samples:
        return None
    best = min(samples, key=lambda each: each.heard_unix_ms - each.sent_unix_ms)
    return ClockFacts(
        offset_ms=(best.sent_unix_ms + best.heard_unix_ms) / 2 - best.server_unix_ms,
        error_ms=(best.heard_unix_ms - best.sent_unix_ms) / 2,
        rtt_ms=sorted(each.heard_unix_ms - each.sent_unix_ms for each in samples),
    )


def address_of(server: str, demands_tls: bool = False) -> AddressFacts:
    """A server's address, without user and password. `demands_tls`: TLS is used for any scheme."""
    at = urlsplit(server if "://" in server else f"nats://{server}")
    host = at.hostname or ""
    shown = f"{at.scheme}://{at.netloc.rpartition('@')[2]}"
    return AddressFacts(
        url=shown, is_local=is_loopback(host), asks_for_tls=demands_tls or at.scheme in ("tls", "wss", "https")
    )


def _has_secret(options: ConnectOptions) -> bool:
    in_address = any("@" in each.rpartition("://")[2] for each in options.servers)
    return in_address or options.password is not None or options.token is not None


async def _or_nothing(looking: Awaitable[T]) -> T | None:
    """Awaits `looking`. Returns None if NATS did not answer; another finding reports that."""
    try:
        return await looking
    except MeshError:
        return None
