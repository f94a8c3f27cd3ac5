"""What a test sees of the wire: every message of a server in the order it took them, and peers written by hand."""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.broker.stores.delivery import Delivery, StoredRequest
from mesh.broker.transport.connection import Connection
from mesh.protocol import codec
from mesh.protocol.messages import Request
from mesh.protocol.subjects import RequestAddress
from tests.running import MODEL, wait_until


@dataclass(frozen=True)
class Seen:
    """One message."""

    subject: str
    payload: bytes
    header: bytes
    reply: str


class Wire:
    """The messages on a server since this was made, heard on a connection of its own; answers among them."""

    def __init__(self, connection: Connection, subjects: Sequence[str] = (">",)) -> None:
        self._connection = connection
        self.seen: list[Seen] = []
        for subject in subjects if ">" in subjects else (*subjects, "_INBOX.>"):
            connection.subscribe(subject, self._heard)

    async def ready(self) -> "Wire":
        """Return once the server knows of the interest."""
        await self.settle(self._connection)
        return self

    async def settle(self, speaker: Connection) -> None:
        """Return once everything `speaker` has published so far was heard here."""
        mark = speaker.new_inbox()
        speaker.publish(mark, b"")
        await wait_until(lambda: any(each.subject == mark for each in self.seen))
        self.seen = [each for each in self.seen if each.subject != mark]

    def on(self, start: str) -> list[Seen]:
        """The messages whose subject begins so."""
        return [each for each in self.seen if each.subject.startswith(start)]

    def subjects(self, *starts: str) -> list[str]:
        """The subjects that begin in one of these ways, in order."""
        return [each.subject for each in self.seen if each.subject.startswith(starts)]

    def answer_to(self, message: Seen) -> int:
        """The place of the answer to a message; fails if there is none."""
        return next(place for place, each in enumerate(self.seen) if each.subject == message.reply)

    def place_of(self, message: Seen) -> int:
        return self.seen.index(message)

    def _heard(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        self.seen.append(Seen(subject.decode(), payload, header, reply.decode()))


def delivery_of(
    request: Request | None = None,
    *,
    job: str = "j",
    tenant: str = "t",
    sequence: int = 17,
    consumer: str = f"{MODEL}-standard-0",
    ack_subject: str = "",
    pending: int = 0,
) -> Delivery:
    """A job as JetStream hands it out, made by hand."""
    asked = request or Request(id=job, prompt="a")
    address = RequestAddress(MODEL, "standard", tenant, "0")
    stored = StoredRequest(
        sequence=sequence,
        address=address,
        job=job,
        encoding="json",
        request=asked,
        error=None,
        traceparent="",
        body=codec.encode(asked),
        stored_unix_ms=1,
    )
    return Delivery(
        stored=stored,
        ref=stored.ref,
        address=address,
        consumer=consumer,
        delivered=1,
        pending=pending,
        ack_subject=ack_subject or f"$JS.ACK.MESH_REQUESTS.{consumer}.1.{sequence}.1.1.{pending}",
    )
