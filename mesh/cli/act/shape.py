"""What a mesh should look like: what was asked for, else what is there, else the defaults."""

from dataclasses import asdict, replace
from typing import Any

import msgspec

from mesh.broker import topology
from mesh.broker.connection import Connection
from mesh.broker.mapping import read_api
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
        base = replace(base, **await _storage(connection, names))
    except TopologyError:
        base = MeshSettings()
    given: dict[str, Any] = {key: value for key, value in asdict(shape).items() if value is not None}
    if "ack_wait" in given:
        given["ack_wait_s"] = given.pop("ack_wait")
    return replace(base, **given)


async def _storage(connection: Connection, names: Names) -> dict[str, Any]:
    """Where the streams are kept; `read_settings` does not say."""
    found = {}
    for key, stream in (("storage", names.requests_stream), ("events_storage", names.events_stream)):
        _, payload = await connection.request(f"$JS.API.STREAM.INFO.{stream}")
        found[key] = msgspec.convert(read_api(payload, f"stream {stream}")["config"]["storage"], str)
    return found
