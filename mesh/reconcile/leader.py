"""One process among many: who holds the seat does what needs doing once. Elected by the server, without a service.

The seat is a key of the workers' bucket that its holder rewrites; when it stops, the bucket forgets the key after
three beats, and the next to ask is the holder. Two tokens long, so that it is no worker's key.
"""

from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mapping import read_puback
from mesh.errors import MeshError, SequenceError
from mesh.protocol import headers
from mesh.protocol.subjects import Names


class LeaderLease:
    """A claim to one seat, in one process."""

    def __init__(self, connection: Connection, names: Names, seat: str, who: str) -> None:
        self._connection = connection
        self._key = f"$KV.{names.workers_bucket}.seat.{seat}"
        self._who = who
        self._revision = 0

    async def hold(self) -> bool:
        """Take the seat, or keep it; whether it is ours for the next PRESENCE_BEAT_S * PRESENCE_BEATS."""
        try:
            header = headers.expecting(self._revision)
            _, payload = await self._connection.request(self._key, self._who.encode(), header, timeout_s=2.0)
            self._revision = read_puback(payload, "seat").seq
        except SequenceError:
            self._revision = 0
            return False
        except MeshError:  # unknown: whoever asks next finds out
            return False
        return True
