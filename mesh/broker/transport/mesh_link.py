"""A connection, the names of one mesh on it, and the clock: what every store and every plan needs together."""

from dataclasses import dataclass, field

from mesh.broker.transport.connection import Connection
from mesh.clock import Clock
from mesh.protocol.subjects import Names


@dataclass(frozen=True)
class MeshLink:
    """One mesh as a connection reaches it. Several may share a connection, each with its own names."""

    connection: Connection
    names: Names
    clock: Clock = field(default_factory=Clock)  # knows the server's time once a stream was asked about
