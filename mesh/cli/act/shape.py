"""What a mesh should look like: what was asked for, else what is there, else the defaults."""

from dataclasses import asdict, replace
from typing import Any

from mesh.broker import topology
from mesh.broker.connection import Connection
from mesh.broker.topology import MeshSettings
from mesh.cli.options import Shape
from mesh.errors import TopologyError
from mesh.protocol.subjects import Names


async def wanted(connection: Connection, names: Names, shape: Shape) -> MeshSettings:
    """The settings to plan with.

    Raises:
        ConfigError: a setting is out of range.
    """
    try:
        base = await topology.read_settings(connection, names)
    except TopologyError:
        base = MeshSettings()
    given: dict[str, Any] = {key: value for key, value in asdict(shape).items() if value is not None}
    if "ack_wait" in given:
        given["ack_wait_s"] = given.pop("ack_wait")
    return replace(base, **given)
