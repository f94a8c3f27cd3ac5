"""The values that commands get from their shared options. See cli/options for the options themselves."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_NATS = "nats://127.0.0.1:4222"
TIERS = ("interactive", "standard", "batch")  # mesh.protocol.messages has them too, and a slow import


@dataclass(frozen=True, slots=True, repr=False)
class Nats:
    """Where NATS is, who we are, and which mesh on it. No repr: it holds a password."""

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
        """The addresses, however they were separated."""
        given = (each.strip() for several in self.nats for each in several.split(","))
        return tuple(each for each in given if each)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which model is served, by what, under which name."""

    engine: str
    model: str | None
    name: str | None
    engine_arg: tuple[str, ...]
    max_model_len: int | None
    capacity: int | None


@dataclass(frozen=True, slots=True)
class Policies:
    """What a worker decides by."""

    tier_weights: str
    max_attempts: int
    stall_timeout: float
    coalesce_ms: float


@dataclass(frozen=True, slots=True)
class TopologyOptions:
    """What the operator chooses about a mesh; None: as it is already, else the default."""

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
    """How a model shall answer; None: the request's own default."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: tuple[str, ...]
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Question:
    """Whom to ask, and in which form."""

    model: str | None
    tenant: str
    tier: str
    system: str | None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which dead letters are meant; None: any."""

    model: str | None
    tier: str | None
    tenant: str | None
    code: str | None
    since: float | None
