"""`mesh worker` with one bug planted in it, for the tests that the soak's judge can fail.

python mutant_worker.py MUTANT [options of mesh worker]
"""

# mypy: disable-error-code="method-assign"
# A bug is planted by putting another method in the place of one.

import sys
from collections.abc import Callable, Sequence

import msgspec

from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.journal import Journal
from mesh.broker.stores.pulls import Leases
from mesh.broker.stores.results import ResultStore
from mesh.broker.transport.calls import OnReply
from mesh.broker.transport.mapping import read_puback
from mesh.cli.main import main
from mesh.job_key import JobKey
from mesh.protocol.messages import Started
from mesh.worker.actions import Actions
from mesh.worker.attempt import Ack, Action
from mesh.worker.commands import Commands
from mesh.worker.publisher import Publisher
from mesh.worker.worker import Worker

MUTANTS: dict[str, Callable[[], None]] = {}


def mutant(plant: Callable[[], None]) -> Callable[[], None]:
    MUTANTS[plant.__name__.replace("_", "-")] = plant
    return plant


@mutant
def none() -> None:
    """The worker as it is."""


@mutant
def ack_before_store() -> None:
    """The request leaves the queue while its Result is still to be written: a crash in between loses the job."""
    perform = Actions.perform

    async def hasty(self: Actions, actions: Sequence[Action], publisher: Publisher) -> None:
        if any(isinstance(action, Ack) for action in actions):
            await self._context.leases.ack(self._delivery)
        await perform(self, actions, publisher)

    Actions.perform = hasty


@mutant
def unconfirmed_ack() -> None:
    """Sent and forgotten: a server that dies takes it along, and the job runs again."""

    async def forgetful(self: Leases, delivery: Delivery) -> bool:
        self._connection.publish(delivery.ack_subject, b"+ACK")
        return True

    Leases.ack = forgetful


@mutant
def put_instead_of_create() -> None:
    """The last writer wins: a Result that was read changes afterwards."""

    async def put(self: ResultStore, key: JobKey, body: bytes, ttl_ms: int, timeout_s: float = 5.0) -> bool:
        subject = self._names.result_key(key)
        _, payload = await self._connection.request(subject, body, timeout_s=timeout_s)
        read_puback(payload, "put")
        return True

    ResultStore.create = put


@mutant
def no_fence() -> None:
    """Events are appended whoever wrote last: a zombie's tokens stand among its successor's."""

    def append(self: Journal, subject: str, body: bytes, last: int, on_reply: OnReply, timeout_s: float) -> None:
        self._connection.call(subject, body, b"", on_reply, timeout_s)

    Journal.publish = append


@mutant
def delivery_count() -> None:
    """JetStream's count of deliveries taken for the number of the attempt."""
    delivered: dict[str, int] = {}
    start, begin = Worker._start_job, Publisher.begin

    def counting(self: Worker, delivery: Delivery) -> None:
        delivered[delivery.job] = delivery.delivered
        start(self, delivery)

    def mistaken(self: Publisher, event: Started, last: int) -> None:
        begin(self, msgspec.structs.replace(event, attempt=delivered[event.id]), last)

    Worker._start_job, Publisher.begin = counting, mistaken


@mutant
def term_on_error() -> None:
    """A failed job is terminated instead of retried."""

    def thrown_away(self: Leases, delivery: Delivery, delay_s: float = 0.0) -> None:
        self.term(delivery, "it failed")

    Leases.nak = thrown_away


@mutant
def ignored_cancel() -> None:
    """Whoever cancels is told that it is done, and the engine goes on with what nobody wants."""

    def nod(self: Commands, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        tenant, job = subject.decode().split(".")[-2:]
        if reply and (tenant, job) in {runner.key for runner in self._runners.values()}:
            self._connection.publish(reply.decode(), b"cancelled")

    Commands._cancel = nod


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    MUTANTS[name]()
    sys.argv = ["mesh", "worker", *arguments]
    main()
