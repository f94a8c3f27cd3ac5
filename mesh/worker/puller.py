"""Pulls jobs from the model's consumers for one worker. `worker/credits` decides when to pull from which.

All code here runs in a callback of the connection or in one of the worker's side tasks.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.pulls import Leases, PullEnd, Pulls
from mesh.errors import BrokerError, DisconnectedError
from mesh.policies.tiers import TierWeights
from mesh.protocol.messages import TIERS
from mesh.protocol.subjects import is_token
from mesh.worker.credits import Credits, Source
from mesh.worker.suspension import Suspension

log = logging.getLogger("mesh.worker")

TICK_S = 0.25  # between checks for forgotten pulls and stale consumers
BROKEN_PAUSE_S = 0.2  # before the next pull from a consumer that answered with an error
REPAIR_S = 2.0  # between checks that our consumers exist, while pulls fail


class Puller:
    """Pulls for one worker, from `prepare` to `stop`."""

    def __init__(
        self,
        broker: Broker,
        model: str,
        capacity: int,
        is_held_up: Callable[[], bool],
        start_job: Callable[[Delivery], None],
    ) -> None:
        """`start_job` is called for each delivery that holds a slot, until `released`.

        While `is_held_up()`, nothing is pulled, and deliveries are handed back.
        """
        self._broker = broker
        self._model = model
        self._capacity = capacity
        self._is_held_up = is_held_up
        self._start_job = start_job
        self._leases = Leases(broker.connection)
        self._loop = asyncio.get_running_loop()
        self._settings = topology.MeshSettings()
        self._credits = Credits(capacity, [], TierWeights())
        self._puller: Pulls | None = None
        self._is_stopped = False
        self._is_due = False
        self._clock = broker.clock
        self._suspension = Suspension(self._settings.ack_wait_s / 2)
        self._broken = asyncio.Event()
        self.owned: frozenset[int] = frozenset()  # lanes pulled first; the presence board keeps it
        self.emptied = asyncio.Event()  # set when no pull is open after `stop`

    @property
    def open_pulls(self) -> int:
        return self._puller.open_pulls if self._puller is not None else 0

    @property
    def free(self) -> int:
        """Slots neither taken nor promised to a pull."""
        return self._credits.free

    async def prepare(self, weights: TierWeights) -> topology.MeshSettings:
        """Read the mesh's settings, and declare the model's consumers where they are missing.

        Raises:
            TopologyError: there is no mesh on this NATS, or the server is too old.
        """
        topology.check_server(self._broker.connection.server_version)
        self._settings = await topology.read_settings(self._broker)
        await self._ensure_declared()
        self._begin(weights)
        return self._settings

    def pump(self) -> None:
        """Send the pulls that the credits allow."""
        if self._puller is None or self._is_stopped or not self._broker.connection.is_connected or self._is_held_up():
            return
        if self._suspension.is_suspected(self._clock.uptime_s()):
            return  # deliveries of a pull sent now would not be run
        now_s = self._loop.time()
        for ask in self._credits.plan(now_s, self.owned):
            priority = 0 if ask.source.lane in self.owned else 1
            try:
                self._puller.pull(ask.source.consumer, ask.batch, ask.expires_s, priority)
            except DisconnectedError:
                self._credits.ended(ask.source.consumer, now_s, empty=False)

    def released(self) -> None:
        """A job released its slot."""
        self._credits.released()
        self._pump_soon()

    def connection_changed(self, connected: bool) -> None:
        """Forget the open pulls, which end with their connection; pull again on a new one."""
        if not connected and self._puller is not None:
            self._puller.reset()
        elif connected and self._settings.events_storage == "memory":
            self._broken.set()  # the server may have lost its memory streams
        self.pump()

    def stop(self) -> None:
        """Send no more pulls; deliveries of the open ones are handed back at once."""
        self._is_stopped = True
        self._check_emptied()

    def close(self) -> None:
        """Receive no more deliveries."""
        if self._puller is not None:
            self._puller.close()

    def ticked(self) -> None:
        """Run one tick of the side task."""
        self._suspension.ticked(self._clock.uptime_s())
        if self._puller is not None:
            self._puller.expire()
        self.pump()

    async def tick(self) -> None:
        """Side task: end forgotten pulls, and pull from stale consumers."""
        self.ticked()
        while True:
            await asyncio.sleep(TICK_S)
            self.ticked()

    async def repair(self) -> None:
        """Side task: declare missing consumers again when pulls fail."""
        while True:
            await self._broken.wait()
            await asyncio.sleep(REPAIR_S)
            self._broken.clear()
            if not self._broker.connection.is_connected:
                continue
            try:
                await self._ensure_declared()
            except BrokerError as error:
                log.warning("the queue of %s cannot be pulled: %s", self._model, error, extra={"event": "queue_broken"})

    def _begin(self, weights: TierWeights) -> None:
        """Make the books and the pulls, after the settings were read."""
        sources = [
            Source(self._broker.names.consumer(self._model, tier, lane), tier, lane)
            for tier in TIERS
            for lane in range(self._settings.lanes)
        ]
        self._credits = Credits(self._capacity, sources, weights)
        self._suspension = Suspension(self._settings.ack_wait_s / 2)
        self._puller = Pulls(self._broker, self._delivered, self._pull_ended)

    async def _ensure_declared(self) -> None:
        """Declare missing streams and consumers; warn about those that differ from the mesh's settings."""
        changes = await topology.plan_volatile(self._broker, self._settings)
        changes += await topology.plan_consumers(self._broker, self._settings, self._model)
        for change in changes:
            if change.verb == "differs":
                log.warning(
                    "%s %s differs from the mesh's settings: %s; it is used as it is",
                    change.kind,
                    change.name,
                    change.detail,
                    extra={"event": "topology_drift"},
                )
        await topology.apply(self._broker.connection, changes)

    def _pull_ended(self, consumer: str, how: PullEnd) -> None:
        broken = how == "broken"
        if broken:
            self._broken.set()
        pause_s = BROKEN_PAUSE_S if broken else 0.0
        self._credits.ended(consumer, self._loop.time(), empty=how == "empty", pause_s=pause_s)
        self._check_emptied()
        self._pump_soon()

    def _delivered(self, delivery: Delivery) -> None:
        if self._suspension.is_suspected(self._clock.uptime_s()):
            # The delivery may have waited in the socket until its lease ended, so another worker may have the job.
            # Even a NAK would disturb that worker, so it gets no answer; if no worker has it, it is redelivered.
            self._credits.delivered(delivery.consumer, delivery.pending, accepted=False)
            log.warning("a delivery came late and was left alone", extra={"event": "late_delivery"})
            return
        is_addressed = is_token(delivery.address.tenant)
        is_open = not self._is_stopped and not self._is_held_up()
        accepted = is_addressed and is_open and self._credits.accepts()
        self._credits.delivered(delivery.consumer, delivery.pending, accepted)
        if accepted:
            self._start_job(delivery)
        else:
            self._hand_back(delivery)
        self._pump_soon()

    def _pump_soon(self) -> None:
        """Pull once for all changes in this turn of the loop."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._pump_now)

    def _pump_now(self) -> None:
        self._is_due = False
        self.pump()

    def _hand_back(self, delivery: Delivery) -> None:
        """Return a job that cannot start here; remove a request that can have no Result."""
        with contextlib.suppress(DisconnectedError):  # without a connection, it is redelivered when its lease ends
            if is_token(delivery.address.tenant):
                self._leases.nak(delivery)
                return
            reason = "the subject's tenant is not of the form [A-Za-z0-9_-]{1,64}"
            log.warning(
                "request %d was removed: %s", delivery.stored.sequence, reason, extra={"event": "request_removed"}
            )
            self._leases.term(delivery, reason)

    def _check_emptied(self) -> None:
        if self._is_stopped and not self.open_pulls:
            self.emptied.set()
