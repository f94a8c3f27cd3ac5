"""The streams, buckets and consumers of a mesh: `plan` compares the settings with NATS, `apply` declares them."""

from mesh.broker.topology.declaration import (
    Change,
    apply,
    check_server,
    consumer_states,
    has_model,
    plan,
    plan_consumers,
    plan_quota,
    plan_volatile,
    read_settings,
    stream_clock,
    stream_state,
)
from mesh.broker.topology.streams import GROUP, NS, MeshSettings

__all__ = [
    "GROUP",
    "NS",
    "Change",
    "MeshSettings",
    "apply",
    "check_server",
    "consumer_states",
    "has_model",
    "plan",
    "plan_consumers",
    "plan_quota",
    "plan_volatile",
    "read_settings",
    "stream_clock",
    "stream_state",
]
