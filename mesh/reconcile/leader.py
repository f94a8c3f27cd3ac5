"""Leader election among processes that offer the same service. The server decides; there is no election service.

The lease is a key of the workers' bucket, `leader.<role>`, that its holder rewrites under a fence. When the holder
stops, the bucket forgets the key after three beats, and the next process to ask becomes the leader. The key is two
tokens long, so it is no worker's key.
"""

from mesh.broker.broker import Broker
from mesh.broker.transport.mapping import read_puback
from mesh.errors import MeshError, SequenceError
from mesh.protocol import headers


class LeaderLease:
    """One process's claim to one role."""

    def __init__(self, broker: Broker, role: str, holder: str) -> None:
        """`role` is a subject token, for example `expiry`; `holder` names this process to operators."""
        self._connection = broker.connection
        self._key = f"$KV.{broker.names.workers_bucket}.leader.{role}"
        self._holder = holder
        self._revision = 0

    async def hold(self) -> bool:
        """Take or renew the lease. True: it is ours until PRESENCE_BEAT_S * PRESENCE_BEATS after this call began."""
        try:
            header = headers.expecting(self._revision)
            _, payload = await self._connection.request(self._key, self._holder.encode(), header, timeout_s=2.0)
            self._revision = read_puback(payload, "leader lease").seq
        except SequenceError:
            self._revision = 0
            return False
        except MeshError:  # the outcome is unknown: the next call finds out
            return False
        return True
