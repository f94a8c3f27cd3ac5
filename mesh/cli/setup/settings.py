"""Chooses the settings of a mesh: the options, else the existing settings, else the defaults."""

from dataclasses import asdict, replace
from typing import Any

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.cli.option_values import TopologyOptions
from mesh.errors import ConfigError, TopologyError

RECORD_DAYS = 1  # prompts are kept no longer than somebody asks for


def of_profile(shape: TopologyOptions, profile: str | None) -> TopologyOptions:
    """`shape` with what the durability profile chooses; what was given stands.

    Raises:
        ConfigError: the two contradict each other.
    """
    if profile is None:
        return shape
    if profile == "strict" and shape.storage == "memory":
        raise ConfigError(
            "--profile strict keeps requests and results through a power cut, and --storage memory does not; "
            "leave one of them out",
            key="profile",
        )
    return replace(shape, events_storage=shape.events_storage or ("memory" if profile == "strict" else "file"))


async def wanted(broker: Broker, shape: TopologyOptions) -> MeshSettings:
    """The settings to plan with.

    Raises:
        ConfigError: a setting is out of range.
    """
    try:
        base = await topology.read_settings(broker)
    except TopologyError:
        base = MeshSettings()
    given: dict[str, Any] = {key: value for key, value in asdict(shape).items() if value is not None}
    if "ack_wait" in given:
        given["ack_wait_s"] = given.pop("ack_wait")
    is_recorded = given.pop("record_requests", bool(base.record_days))
    if is_recorded and given.get("record_days") == 0:
        raise ConfigError("--record-days 0 records nothing; --no-record-requests says so", key="record-days")
    if not is_recorded and given.keys() & {"record_days", "record_bytes"}:
        raise ConfigError("--record-days and --record-bytes need --record-requests", key="record-requests")
    given["record_days"] = given.get("record_days", base.record_days or RECORD_DAYS) if is_recorded else 0
    return replace(base, **given)
