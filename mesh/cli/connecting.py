"""From the options of the command line to a connection, a client, and the names of a mesh."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from mesh.broker import topology
from mesh.broker.broker import Broker, open_broker
from mesh.broker.transport.options import ConnectOptions
from mesh.cli.option_values import Nats
from mesh.cli.traces import traced
from mesh.client.client import Client, connect
from mesh.errors import ConfigError
from mesh.protocol.messages import Presence
from mesh.protocol.subjects import Names, is_token, to_token


def connect_options(nats: Nats, name: str = "mesh-cli") -> ConnectOptions:
    """Where and as whom to connect. `name` is what NATS shows of us.

    Raises:
        ConfigError: no address.
    """
    if not nats.servers:
        raise ConfigError("--nats is empty; give an address such as nats://127.0.0.1:4222", key="nats")
    return ConnectOptions(
        servers=nats.servers,
        name=name,
        user=nats.user,
        password=nats.password,
        credentials=nats.creds,
        nkey_seed=nats.nkey,
        tls_ca=nats.tls_ca,
        tls_cert=nats.tls_cert,
        tls_key=nats.tls_key,
        allow_plaintext=nats.allow_plaintext,
    )


@contextlib.asynccontextmanager
async def open_client(nats: Nats, tenant: str) -> AsyncIterator[Client]:
    """A client of the mesh that the options name."""
    names = Names(nats.namespace)
    async with traced(), connect(tenant=tenant, namespace=names.ns, options=connect_options(nats)) as client:
        yield client


@contextlib.asynccontextmanager
async def open_mesh(nats: Nats) -> AsyncIterator[Broker]:
    """The mesh that the options mean.

    Raises:
        TopologyError: there is none.
    """
    async with open_broker(connect_options(nats), Names(nats.namespace)) as broker:
        await topology.read_settings(broker)
        yield broker


async def choose_model(client: Client, given: str | None) -> str:
    """The model to ask: the one given, else the only one served; as `pick_model`."""
    return pick_model(given, [] if given is not None else await client.workers())


def pick_model(given: str | None, workers: Sequence[Presence]) -> str:
    """The model given, else the only one that `workers` serve. Pure.

    Raises:
        ConfigError: none is given, and there is none, or more than one.
    """
    if given is not None:
        # MESH_MODEL may hold what `mesh up` loads; it is served under this name.
        return given if is_token(given) else to_token(given)
    served = sorted({each.model for each in workers})
    if len(served) == 1:
        return served[0]
    if not served:
        raise ConfigError("no worker is running; start one with `mesh up` or `mesh worker`", key="model")
    raise ConfigError(f"several models are served; choose one with --model: {', '.join(served)}", key="model")
