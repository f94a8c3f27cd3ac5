"""Dead letters: requests that were given up, kept with the reason so that an operator can look and redrive.

The message is the request as it was submitted; what happened to it stands in headers, where `nats stream view`
shows it.
"""

from mesh.broker.connection import Connection
from mesh.broker.delivery import Delivery
from mesh.broker.mapping import read_puback
from mesh.protocol import headers
from mesh.protocol.messages import ErrorInfo
from mesh.protocol.subjects import Names


class DeadLetters:
    """The dead-letter stream of one mesh."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names

    async def bury(self, delivery: Delivery, reason: ErrorInfo, attempts: int) -> None:
        """Keep a copy of the request; the same delivery twice is kept once.

        Raises:
            BrokerError: JetStream did not take it.
        """
        stored = delivery.stored
        header = headers.block(
            ("Nats-Msg-Id", f"dead-{stored.sequence}"),
            ("Content-Type", headers.MSGPACK if stored.encoding == "msgpack" else headers.JSON),
            ("Mesh-Job", stored.job),
            ("Mesh-Attempts", attempts),
            ("Mesh-Error-Code", reason.code),
            ("Mesh-Error", " ".join(reason.message.split())[:500]),
            ("Mesh-Stored-Unix-Ms", delivery.stored_unix_ms),
        )
        subject = self._names.dead(delivery.address)
        _, payload = await self._connection.request(subject, stored.body, header)
        read_puback(payload, f"bury {stored.job}")
