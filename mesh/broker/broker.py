"""One mesh on one connection, with its stores: the value that the rooms above the broker are given."""

import contextlib
from collections.abc import AsyncIterator
from functools import cached_property

from mesh.broker.stores.deadletters import DeadLetters
from mesh.broker.stores.journal import Journal
from mesh.broker.stores.liveness import LivenessStore
from mesh.broker.stores.queue import RequestQueue
from mesh.broker.stores.results import ResultStore
from mesh.broker.stores.workers import PresenceStore
from mesh.broker.transport.connection import connect
from mesh.broker.transport.mesh_link import MeshLink
from mesh.broker.transport.options import ConnectOptions
from mesh.protocol.subjects import Names


class Broker(MeshLink):
    """A MeshLink whose stores are made when they are first used. They hold no state of their own."""

    @cached_property
    def queue(self) -> RequestQueue:
        """The requests that wait or run."""
        return RequestQueue(self)

    @cached_property
    def journal(self) -> Journal:
        """The events of every job."""
        return Journal(self)

    @cached_property
    def results(self) -> ResultStore:
        """The Results, one for each ended job."""
        return ResultStore(self)

    @cached_property
    def workers(self) -> PresenceStore:
        """The workers that are alive, by their own word."""
        return PresenceStore(self)

    @cached_property
    def liveness(self) -> LivenessStore:
        """The workers that are alive, by the server's word."""
        return LivenessStore(self)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """The requests of jobs that were given up."""
        return DeadLetters(self)


@contextlib.asynccontextmanager
async def open_broker(options: ConnectOptions, names: Names) -> AsyncIterator[Broker]:
    """A mesh on a connection of its own, for as long as the context lasts.

    Raises:
        DisconnectedError, UnauthorizedError, ConfigError: as `transport.connection.connect`.
    """
    async with connect(options) as connection:
        yield Broker(connection, names)
