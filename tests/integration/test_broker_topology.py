"""Streams, buckets and consumers on a real server: planned, applied, and never changed behind anybody's back."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.queue import RequestQueue
from mesh.broker.stores.reads import StoredMessage, get_batch
from mesh.broker.topology import Change, MeshSettings
from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mapping import read_api
from mesh.errors import BrokerError, ConfigError, TopologyError
from mesh.protocol import headers
from mesh.protocol.subjects import Names
from tests.running import wait_until

NAMES = Names()
SETTINGS = MeshSettings(lanes=2, ack_wait_s=7.5, max_deliver=500, queue_limit=123)
MODELS = ["demo", "other"]


async def planned(
    connection: Connection, settings: MeshSettings = SETTINGS, models: Sequence[str] = MODELS, names: Names = NAMES
) -> list[Change]:
    return await topology.plan(Broker(connection, names), settings, models)


async def config_of(connection: Connection, stream: str) -> dict[str, Any]:
    _, payload = await connection.request(f"$JS.API.STREAM.INFO.{stream}")
    config: dict[str, Any] = read_api(payload, stream)["config"]
    return config


async def test_an_empty_server_needs_everything_in_the_order_of_dependence(connection: Connection) -> None:
    changes = await planned(connection)
    assert {change.verb for change in changes} == {"create"}
    assert [change.kind for change in changes] == ["stream"] * 4 + ["bucket"] * 2 + ["consumer"] * 12
    assert [change.name for change in changes[:6]] == [
        "MESH_REQUESTS",
        "MESH_EVENTS",
        "MESH_DEAD",
        "MESH_AUDIT",
        "mesh_results",
        "mesh_workers",
    ]


async def test_a_plan_changes_nothing(connection: Connection) -> None:
    await planned(connection)
    with pytest.raises(TopologyError, match="no mesh on this NATS"):
        await topology.read_settings(Broker(connection, NAMES))


async def test_what_was_applied_is_kept_by_the_next_plan(connection: Connection) -> None:
    changes = await planned(connection)
    assert await topology.apply(connection, changes) == 18
    again = await planned(connection)
    assert [(change.verb, change.detail) for change in again] == [("keep", "")] * 18
    assert await topology.apply(connection, again) == 0
    assert await topology.apply(connection, changes) == 18, "what is there already is created once more without harm"


async def test_what_the_operator_chose_is_read_back(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection))
    found = await topology.read_settings(Broker(connection, NAMES))
    assert (found.lanes, found.ack_wait_s, found.max_deliver, found.queue_limit) == (2, 7.5, 500, 123)


async def test_what_differs_is_told_and_left_alone(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection))
    wanted = MeshSettings(lanes=2, ack_wait_s=20, max_deliver=500, queue_limit=9)
    changes = await planned(connection, wanted)
    differing = {change.name: change.detail for change in changes if change.verb == "differs"}
    assert set(differing) == {"MESH_REQUESTS"} | {c.name for c in changes if c.kind == "consumer"}
    assert "max_msgs_per_subject: 123, wanted 9" in differing["MESH_REQUESTS"]
    assert "ack_wait: 7500000000, wanted 20000000000" in differing["demo-batch-0"]
    before = await config_of(connection, "MESH_REQUESTS")
    assert await topology.apply(connection, changes) == 0
    assert await config_of(connection, "MESH_REQUESTS") == before
    found = await topology.read_settings(Broker(connection, NAMES))
    assert (found.ack_wait_s, found.queue_limit) == (7.5, 123)


async def test_what_an_operator_changed_by_hand_is_seen_and_never_put_back(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection))
    config = await config_of(connection, "MESH_EVENTS")
    changed = config | {"max_bytes": 5 << 20}
    _, payload = await connection.request("$JS.API.STREAM.UPDATE.MESH_EVENTS", msgspec.json.encode(changed))
    read_api(payload, "update")
    changes = await planned(connection)
    (events,) = [change for change in changes if change.name == "MESH_EVENTS"]
    assert events.verb == "differs"
    assert events.detail.startswith("max_bytes: 5242880, wanted ")
    await topology.apply(connection, changes)
    assert (await config_of(connection, "MESH_EVENTS"))["max_bytes"] == 5 << 20


async def test_only_what_is_missing_is_created(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection, models=["demo"]))
    _, payload = await connection.request("$JS.API.CONSUMER.DELETE.MESH_REQUESTS.demo-batch-1")
    read_api(payload, "delete")
    changes = await planned(connection)
    assert {c.name for c in changes if c.verb == "create"} == {"demo-batch-1"} | {
        f"other-{tier}-{lane}" for tier in ("interactive", "standard", "batch") for lane in (0, 1)
    }
    assert await topology.apply(connection, changes) == 7


async def test_two_meshes_live_on_one_server(connection: Connection) -> None:
    lab = Names("lab")
    await topology.apply(connection, await planned(connection))
    await topology.apply(connection, await planned(connection, MeshSettings(lanes=1), ["demo"], lab))
    assert (await topology.read_settings(Broker(connection, NAMES))).lanes == 2
    assert (await topology.read_settings(Broker(connection, lab))).lanes == 1
    assert {change.verb for change in await planned(connection)} == {"keep"}


async def test_a_stream_that_was_not_made_by_mesh_is_told_so(connection: Connection) -> None:
    body = msgspec.json.encode({"name": "MESH_REQUESTS", "subjects": ["mesh.req.>"]})
    _, payload = await connection.request("$JS.API.STREAM.CREATE.MESH_REQUESTS", body)
    read_api(payload, "create")
    with pytest.raises(TopologyError, match="was not made by `mesh init`"):
        await topology.read_settings(Broker(connection, NAMES))
    requests = (await planned(connection))[0]
    assert requests.verb == "differs"
    assert "retention: limits, wanted workqueue" in requests.detail


async def test_what_stood_before_a_refusal_stays(connection: Connection) -> None:
    """The consumers of a stream that is not there are refused."""
    changes = await planned(connection, models=["demo"])
    consumers = [change for change in changes if change.kind == "consumer"]
    with pytest.raises(BrokerError, match="create consumer demo-interactive-0"):
        await topology.apply(connection, [changes[1], *consumers])
    assert (await config_of(connection, "MESH_EVENTS"))["name"] == "MESH_EVENTS"


async def test_a_model_is_known_once_its_queue_is_declared(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection, models=["demo"]))
    assert await topology.has_model(Broker(connection, NAMES), "demo")
    assert not await topology.has_model(Broker(connection, NAMES), "demos")


async def test_without_a_mesh_no_model_can_be_asked_for(connection: Connection) -> None:
    with pytest.raises(TopologyError):
        await topology.has_model(Broker(connection, NAMES), "demo")
    with pytest.raises(TopologyError):
        await topology.stream_state(connection, "MESH_REQUESTS")
    assert await topology.consumer_states(connection, "MESH_REQUESTS") == {}


async def test_more_consumers_than_fit_one_answer_are_all_seen(connection: Connection) -> None:
    """JetStream lists 256 at a time."""
    settings = MeshSettings(lanes=90)
    await topology.apply(connection, await planned(connection, settings, ["demo"]))
    assert len(await topology.consumer_states(connection, "MESH_REQUESTS")) == 270
    assert {change.verb for change in await planned(connection, settings, ["demo"])} == {"keep"}


async def test_every_lane_gets_requests_and_every_request_a_lane(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection, models=["demo"]))
    for number in range(40):
        await connection.request(NAMES.request("demo", "batch", "t", f"token-{number}"), b"{}")
    states = await topology.consumer_states(connection, "MESH_REQUESTS")
    counts = [states[f"demo-batch-{lane}"]["num_pending"] for lane in (0, 1)]
    assert sum(counts) == 40
    assert min(counts) > 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("replicas", 0),
        ("replicas", 6),
        ("lanes", 0),
        ("lanes", 1025),
        ("ack_wait_s", 0.5),
        ("ack_wait_s", float("nan")),
        ("max_deliver", 3),
        ("queue_limit", 0),
        ("events_bytes", 1000),
        ("events_age_s", 1),
        ("duplicate_window_s", 0),
    ],
)
def test_a_setting_beyond_its_bounds_is_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key) as refused:
        MeshSettings(**{key: value})  # type: ignore[arg-type]  # also of the wrong type
    assert refused.value.key == key


@pytest.mark.parametrize("version", ["2.12.0", "2.12.0-beta.1", "2.15.1", "3.0.0", "2.100.0"])
def test_a_server_new_enough_is_taken(version: str) -> None:
    topology.check_server(version)


@pytest.mark.parametrize("version", ["2.11.9", "2.9.25", "1.4.1", "0.0.0", "", "dev"])
def test_a_server_too_old_is_refused(version: str) -> None:
    with pytest.raises(TopologyError, match=r"2\.12\.0 or newer"):
        topology.check_server(version)


RECORDING = replace(SETTINGS, record_days=2, record_bytes=5 << 20)


async def test_recording_is_turned_on_and_off_on_a_mesh_that_exists(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection))
    changes = [change for change in await planned(connection, RECORDING) if change.verb != "keep"]
    assert [(change.verb, change.name) for change in changes] == [
        ("change", "MESH_REQUESTS"),
        ("create", "MESH_RECORD"),
    ]
    assert "republish: {'headers_only': True}, wanted {'headers_only': False}" in changes[0].detail
    assert "mesh.lanes" not in changes[0].detail
    assert await topology.apply(connection, changes) == 1
    assert await topology.read_settings(Broker(connection, NAMES)) == RECORDING
    assert {change.verb for change in await planned(connection, RECORDING)} == {"keep"}
    kept = await config_of(connection, "MESH_RECORD")
    assert (kept["max_age"], kept["max_bytes"]) == (2 * 86_400 * topology.NS, 5 << 20)

    longer = replace(RECORDING, record_days=3)
    assert await topology.apply(connection, await planned(connection, longer)) == 0
    assert (await config_of(connection, "MESH_RECORD"))["max_age"] == 3 * 86_400 * topology.NS

    await topology.apply(connection, await planned(connection))
    assert (await topology.read_settings(Broker(connection, NAMES))).record_days == 0
    assert {change.verb for change in await planned(connection)} == {"keep"}
    assert (await config_of(connection, "MESH_RECORD"))["subjects"] == ["mesh.sys.unrecorded"]


async def test_every_request_is_recorded_with_its_body_and_only_while_that_is_on(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection, RECORDING))
    for number in range(200):
        header = headers.block(("Nats-Msg-Id", f"acme.{number}"))
        await connection.request("mesh.req.demo.batch.acme.any", b"body %d" % number, header)
        await RequestQueue(Broker(connection, NAMES)).remove(number + 1)  # it ends as soon as it began

    async def recorded() -> list[StoredMessage]:
        ask = {"seq": 1, "next_by_subj": "mesh.sys.queued.>", "batch": 1000}
        return await get_batch(connection, "MESH_RECORD", ask)

    async def is_complete() -> bool:
        return len(await recorded()) == 200

    await wait_until(is_complete)
    assert [message.body for message in await recorded()] == [b"body %d" % number for number in range(200)]
    await topology.apply(connection, await planned(connection))
    await connection.request("mesh.req.demo.batch.acme.any", b"unrecorded")
    await connection.request("mesh.req.demo.batch.acme.any", b"unrecorded")
    assert len(await recorded()) == 200


async def test_a_mesh_declared_before_there_was_an_audit_has_one(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection))
    config = await config_of(connection, "MESH_REQUESTS")
    for key in ("mesh.audit", "mesh.record_days", "mesh.record_bytes"):
        del config["metadata"][key]
    _, payload = await connection.request("$JS.API.STREAM.UPDATE.MESH_REQUESTS", msgspec.json.encode(config))
    read_api(payload, "update")
    assert {change.verb for change in await planned(connection)} == {"keep"}
    assert (await topology.read_settings(Broker(connection, NAMES))).audit
    await topology.apply(connection, await planned(connection, replace(SETTINGS, audit=False)))
    assert not (await topology.read_settings(Broker(connection, NAMES))).audit


async def test_turning_something_on_changes_nothing_else_that_differs(connection: Connection) -> None:
    await topology.apply(connection, await planned(connection))
    changes = await planned(connection, replace(RECORDING, queue_limit=9))
    found = [(change.verb, change.detail) for change in changes if change.name == "MESH_REQUESTS"]
    assert [verb for verb, _ in found] == ["change", "differs"]
    assert found[1][1] == "max_msgs_per_subject: 123, wanted 9"
    await topology.apply(connection, changes)
    assert (await config_of(connection, "MESH_REQUESTS"))["max_msgs_per_subject"] == 123
