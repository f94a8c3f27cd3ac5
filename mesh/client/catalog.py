"""Which models are deployed, and what their workers can take: asked before a request is sent."""

import asyncio

from mesh.broker import topology
from mesh.broker.connection import Connection
from mesh.broker.store import PresenceStore
from mesh.client.requests import check_limits
from mesh.errors import BrokerError, BrokerTimeoutError, DisconnectedError, ModelNotFoundError, UnavailableError
from mesh.protocol.messages import Request
from mesh.protocol.subjects import Names

FRESH_S = 10.0  # how long a look at the workers is good for
UNLIMITED_TOKENS = 1 << 40


class Catalog:
    """What one client knows of the mesh's models."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._presence = PresenceStore(connection, names)
        self._known: set[str] = set()  # models whose queue exists
        self._limits: dict[str, int] = {}  # model to its longest context, of the workers last seen
        self._looked_s = float("-inf")
        self._loop = asyncio.get_running_loop()

    async def check(self, model: str, request: Request, timeout_s: float) -> None:
        """Refuse a model nobody deployed, and what its workers say they cannot take.

        Raises:
            ModelNotFoundError, InvalidRequestError, TooLargeError: what cannot be learnt in time is not refused.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._learn_of(model)
        except TimeoutError:
            return  # the mesh itself refuses what it cannot serve
        check_limits(request, self._limits.get(model, 0))

    async def _learn_of(self, model: str) -> None:
        if model not in self._known:
            try:
                exists = await topology.has_model(self._connection, self._names, model)
            except (BrokerTimeoutError, UnavailableError, DisconnectedError):
                return  # a tenant's account cannot ask; the mesh itself refuses
            if not exists:
                await self._look()
                have = ", ".join(sorted(self._limits)) or "none"
                raise ModelNotFoundError(f"no model {model!r} is deployed; there are: {have}", field="model")
            self._known.add(model)
        if self._loop.time() - self._looked_s > FRESH_S:
            await self._look()

    async def _look(self) -> None:
        self._looked_s = self._loop.time()
        try:
            workers = await self._presence.all()
        except BrokerError:
            return
        self._limits = {}
        for each in workers:
            longest = each.max_model_len or UNLIMITED_TOKENS
            self._limits[each.model] = max(self._limits.get(each.model, 0), longest)
