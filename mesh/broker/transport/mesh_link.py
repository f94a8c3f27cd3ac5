"""A connection, and the names of one mesh on it: the two values that every store and every plan needs together."""

from dataclasses import dataclass

from mesh.broker.transport.connection import Connection
from mesh.protocol.subjects import Names


@dataclass(frozen=True)
class MeshLink:
    """One mesh as a connection reaches it. Several may share a connection, each with its own names."""

    connection: Connection
    names: Names
