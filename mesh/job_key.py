"""The identity of a job in a mesh: one id names one job of each tenant."""

from typing import NamedTuple


class JobKey(NamedTuple):
    """Tenant and id, both subject tokens. Equal to the plain pair, and usable as a key."""

    tenant: str
    id: str

    def __str__(self) -> str:
        """`<tenant>.<id>`, as in message ids and in the bucket of Results."""
        return f"{self.tenant}.{self.id}"
