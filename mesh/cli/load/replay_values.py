"""The option values of `mesh replay`: requests, pace and target."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Which recorded requests, and how fast."""

    since: float | None
    until: float | None
    tenant: str | None
    model: str | None
    limit: int | None
    speed: float  # 0: as fast as they are taken
    at_once: int


@dataclass(frozen=True, slots=True, repr=False)
class ReplayTarget:
    """Where they are submitted, and as what; None: as they were. No repr: an address may hold a password."""

    to_nats: str | None
    to_creds: Path | None
    to_namespace: str | None
    to_tenant: str | None
    to_model: tuple[str, ...]
