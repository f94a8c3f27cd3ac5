"""Which models are deployed, and what their workers can take: asked before a request is sent."""

import asyncio
import contextlib

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.client.control_api import ControlApi
from mesh.client.requests import check_limits
from mesh.errors import (
    BrokerError,
    BrokerTimeoutError,
    DisconnectedError,
    MeshError,
    ModelNotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from mesh.protocol.messages import Request

FRESH_S = 10.0  # how long a look at the workers is good for
UNLIMITED_TOKENS = 1 << 40


class Catalog:
    """One client's knowledge of the mesh's models."""

    def __init__(self, broker: Broker, control_api: ControlApi | None = None) -> None:
        """`control_api`: whom to ask where JetStream refuses this user."""
        self._control_api = control_api
        self._broker = broker
        self._presence = broker.workers
        self._known: set[str] = set()  # models whose queue exists
        self._limits: dict[str, int] = {}  # model to its longest context, of the workers last seen
        self._looked_s = float("-inf")
        self._told_s: dict[str, float] = {}  # by model, when the control API said; loop time
        self._read_s = float("-inf")  # when the mesh's settings were; loop time
        self._protocol = ""
        self._loop = asyncio.get_running_loop()

    async def check(self, model: str, request: Request, timeout_s: float) -> None:
        """Refuse a model nobody deployed, and what its workers say they cannot take.

        Raises:
            ModelNotFoundError, InvalidRequestError, TooLargeError: what cannot be learnt in time is not refused.
            VersionError: the mesh speaks another major version of the protocol.
        """
        if self._is_fresh(model):
            check_limits(request, self.longest_context(model))
            return
        try:
            async with asyncio.timeout(timeout_s):
                if self._control_api is not None and self._control_api.is_needed:
                    await self._be_told_of(model, self._control_api)
                else:
                    await self.learn_of(model)
        except TimeoutError:
            return  # the mesh itself refuses what it cannot serve
        check_limits(request, self.longest_context(model))

    def longest_context(self, model: str) -> int:
        """The most tokens, prompt and output together, that a worker of `model` takes; 0: none was seen."""
        return self._limits.get(model, 0)

    async def protocol(self) -> str:
        """The protocol that the mesh speaks, as it was read just now or last; "" if that never was."""
        now_s = self._loop.time()
        if now_s - self._read_s > FRESH_S:
            self._read_s = now_s
            with contextlib.suppress(MeshError):  # on an error, the last answer stays valid
                self._protocol = str((await topology.read_settings(self._broker)).protocol)
        return self._protocol

    def _is_fresh(self, model: str) -> bool:
        """Whether it was looked at just now, so that nobody need be asked."""
        now_s = self._loop.time()
        if self._control_api is not None and self._control_api.is_needed:
            return now_s - self._told_s.get(model, float("-inf")) <= FRESH_S
        return model in self._known and now_s - self._looked_s <= FRESH_S

    async def _be_told_of(self, model: str, control_api: ControlApi) -> None:
        try:
            self._limits[model] = await control_api.longest_context(model)
        except BrokerError:
            return  # nobody is there to say; the mesh itself refuses
        self._told_s[model] = self._loop.time()

    async def learn_of(self, model: str) -> None:
        """Read the mesh, unless that was done just now. An unknown model is not refused.

        Raises:
            ModelNotFoundError: nobody deployed this model.
        """
        if model not in self._known:
            try:
                exists = await topology.has_model(self._broker, model)
            except (BrokerTimeoutError, UnavailableError, UnauthorizedError, DisconnectedError):
                return  # not every user may ask; the mesh itself refuses
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
        except (BrokerError, UnauthorizedError):
            return
        self._limits = {}
        for each in workers:
            longest = each.max_model_len or UNLIMITED_TOKENS
            self._limits[each.model] = max(self._limits.get(each.model, 0), longest)
