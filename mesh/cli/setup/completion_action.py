"""Asks the mesh for names to complete, for BOUND_S at most."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace

import click

from mesh.broker.broker import Broker, open_broker
from mesh.broker.topology.pause import Lanes
from mesh.cli.connecting import connect_options
from mesh.cli.option_values import DEFAULT_NATS, Nats
from mesh.errors import MeshError
from mesh.protocol.subjects import Names, is_token

BOUND_S = 1.0  # the user waits for the completion

Look = Callable[[Broker], Awaitable[set[str]]]


def ask(context: click.Context, kind: str) -> list[str]:
    """Names of a kind (`models`, `workers`, `tenants`); none if the mesh does not tell them within BOUND_S."""
    found: list[str] = []

    def work() -> None:
        try:
            found.extend(asyncio.run(_names_of(_nats_of(context), _LOOKS[kind])))
        except (MeshError, TimeoutError, OSError):
            return  # a line on the terminal would damage the user's input

    # In a thread that nobody waits for any longer: closing a connection to a server that hangs takes its time too.
    thread = threading.Thread(target=work, name="mesh-complete", daemon=True)
    thread.start()
    thread.join(BOUND_S)
    return list(found)


async def _names_of(nats: Nats, look: Look) -> list[str]:
    options = replace(connect_options(nats, "mesh-complete"), connect_timeout_s=BOUND_S)
    async with asyncio.timeout(BOUND_S), open_broker(options, Names(nats.namespace)) as broker:
        return sorted(filter(is_token, await look(broker)))


def _nats_of(context: click.Context) -> Nats:
    """Where the half-typed command would connect to."""
    given = context.params
    return Nats(
        nats=tuple(given.get("nats") or (DEFAULT_NATS,)),
        creds=given.get("creds"),
        nkey=given.get("nkey"),
        user=given.get("user"),
        password=given.get("password"),
        tls_ca=given.get("tls_ca"),
        tls_cert=given.get("tls_cert"),
        tls_key=given.get("tls_key"),
        allow_plaintext=bool(given.get("allow_plaintext")),
        namespace=given.get("namespace") or "mesh",
    )


async def _models(broker: Broker) -> set[str]:
    return {each.model for each in await Lanes(broker).all()}


async def _workers(broker: Broker) -> set[str]:
    return {each.worker for each in await broker.workers.all()}


async def _tenants(broker: Broker) -> set[str]:
    """Of the jobs that wait or run; those of all Results would be too many to list at the press of a key."""
    addresses = map(broker.names.read_request, await broker.queue.subjects())
    return {"default"} | {each.tenant for each in addresses if each is not None}


_LOOKS: dict[str, Look] = {"models": _models, "workers": _workers, "tenants": _tenants}
