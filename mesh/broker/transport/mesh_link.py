"""`MeshLink`: a connection, the names of one mesh on it, and the clock."""

from dataclasses import dataclass, field

from mesh.broker.transport.connection import Connection
from mesh.clock import Clock
from mesh.protocol.subjects import Names


@dataclass(frozen=True)
class MeshLink:
    """One mesh on a connection. Several meshes may share a connection, each with its own names."""

    connection: Connection
    names: Names
    clock: Clock = field(default_factory=Clock)  # has the server's time after the first stream was queried
