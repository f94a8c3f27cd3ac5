"""The identity of a job in a mesh: one id names one job of each tenant."""

from typing import NamedTuple

import msgspec


class JobKey(NamedTuple):
    """Tenant and id, both subject tokens. Equal to the plain pair, and usable as a key."""

    tenant: str
    id: str

    def __str__(self) -> str:
        """`<tenant>.<id>`, as in message ids and in the bucket of Results."""
        return f"{self.tenant}.{self.id}"


class JobRef(msgspec.Struct, frozen=True, gc=False):
    """The identity, model and tier of one stored request. It is made from the delivery, and carried from there."""

    id: str
    tenant: str
    model: str
    tier: str
    sequence: int = 0  # of the request in its stream; 0: not known

    @property
    def key(self) -> JobKey:
        """The job's identity."""
        return JobKey(self.tenant, self.id)
