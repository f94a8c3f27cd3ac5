"""One process holds a role at a time, and the server says which."""

from mesh.broker.broker import Broker
from mesh.broker.stores.purge import purge_subject
from mesh.broker.stores.reads import get_from_leader
from mesh.reconcile.leader import LeaderLease
from mesh.server import EmbeddedServer
from tests.running import wait_until

KEY = "$KV.mesh_workers.leader.expiry"
STREAM = "KV_mesh_workers"


async def holder(broker: Broker) -> tuple[bytes, int] | None:
    found = await get_from_leader(broker.connection, STREAM, {"last_by_subj": KEY})
    return (found.body, found.sequence) if found is not None else None


async def lapse(broker: Broker) -> None:
    """As the bucket does with a key that was not renewed for three beats."""
    found = await holder(broker)
    assert found is not None
    assert await purge_subject(broker.connection, STREAM, KEY, found[1]) == 1


async def test_the_first_to_ask_is_the_leader_and_the_key_names_it(broker: Broker, peer: Broker) -> None:
    first, second = LeaderLease(broker, "expiry", "w-1"), LeaderLease(peer, "expiry", "w-2")
    assert await first.hold()
    assert not await second.hold()
    assert not await second.hold(), "a refusal does not make the next call succeed"
    found = await holder(broker)
    assert found is not None
    assert found[0] == b"w-1"


async def test_the_leader_renews_its_lease(broker: Broker, peer: Broker) -> None:
    first, second = LeaderLease(broker, "expiry", "w-1"), LeaderLease(peer, "expiry", "w-2")
    assert await first.hold()
    before = await holder(broker)
    assert await first.hold()
    after = await holder(broker)
    assert before is not None
    assert after is not None
    assert after[1] > before[1], "a renewal is a write: without one the key lapses"
    assert not await second.hold()


async def test_when_the_lease_lapses_the_next_to_ask_leads_and_the_old_leader_is_refused(
    broker: Broker, peer: Broker
) -> None:
    """The old one was suspended for long: it must not renew what is another's."""
    old, new = LeaderLease(broker, "expiry", "w-1"), LeaderLease(peer, "expiry", "w-2")
    assert await old.hold()
    await lapse(broker)
    assert await new.hold()
    assert not await old.hold()
    assert not await old.hold()
    assert await new.hold()
    found = await holder(broker)
    assert found is not None
    assert found[0] == b"w-2"


async def test_a_leader_whose_key_lapsed_asks_once_more_and_leads_again(broker: Broker) -> None:
    lease = LeaderLease(broker, "expiry", "w-1")
    assert await lease.hold()
    await lapse(broker)
    assert not await lease.hold(), "the fence it knows is no longer true"
    assert await lease.hold()


async def test_roles_do_not_exclude_each_other(broker: Broker, peer: Broker) -> None:
    assert await LeaderLease(broker, "expiry", "w-1").hold()
    assert await LeaderLease(peer, "audit", "w-2").hold()


async def test_who_cannot_ask_is_no_leader(broker: Broker, mesh_server: EmbeddedServer) -> None:
    lease = LeaderLease(broker, "expiry", "w-1")
    assert await lease.hold()
    await mesh_server.stop(kill=True)
    await wait_until(lambda: not broker.connection.is_connected)
    assert not await lease.hold()
