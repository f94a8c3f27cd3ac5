"""The values that commands receive from their shared options."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_NATS = "nats://127.0.0.1:4222"
TIERS = ("interactive", "standard", "batch")  # a copy: importing mesh.protocol.messages is slow


@dataclass(frozen=True, slots=True, repr=False)
class Nats:
    """Servers, credentials and namespace. Has no repr, because it holds a password."""

    nats: tuple[str, ...]
    creds: Path | None
    nkey: Path | None
    user: str | None
    password: str | None
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    allow_plaintext: bool
    namespace: str

    @property
    def servers(self) -> tuple[str, ...]:
        """The server addresses, from repeated options and comma-separated values."""
        given = (each.strip() for several in self.nats for each in several.split(","))
        return tuple(each for each in given if each)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Engine, model and the name under which a worker serves it."""

    engine: str
    model: str | None
    name: str | None
    engine_arg: tuple[str, ...]
    max_model_len: int | None
    capacity: int | None


@dataclass(frozen=True, slots=True)
class Policies:
    """A worker's scheduling and failure settings."""

    tier_weights: str
    max_attempts: int
    stall_timeout: float
    coalesce_ms: float


@dataclass(frozen=True, slots=True)
class TopologyOptions:
    """The operator's settings of a mesh. None keeps the current value, or the default in a new mesh."""

    lanes: int | None
    replicas: int | None
    storage: str | None
    events_storage: str | None
    ack_wait: float | None
    max_deliver: int | None
    queue_limit: int | None
    audit: bool | None = None
    record_requests: bool | None = None
    record_days: int | None = None
    record_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings of a request. None means the protocol's default."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: tuple[str, ...]
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Question:
    """Model, tenant, tier and system message of a request."""

    model: str | None
    tenant: str
    tier: str
    system: str | None


@dataclass(frozen=True, slots=True)
class Filters:
    """Filters for dead letters. None matches all."""

    model: str | None
    tier: str | None
    tenant: str | None
    code: str | None
    since: float | None
