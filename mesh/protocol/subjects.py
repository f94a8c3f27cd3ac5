"""Builds and reads the subjects of the protocol. Pure.

`check_token` checks every name from outside before it becomes part of a subject, because NATS itself accepts
wildcards and control characters in a published subject.
"""

import re
from dataclasses import dataclass

from mesh.errors import InvalidRequestError
from mesh.job_key import JobKey
from mesh.protocol.messages import TIERS, Tier

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
DEFAULT_NAMESPACE = "mesh"
MAX_REPLY_BYTES = 1024


def is_token(value: object) -> bool:
    """Whether `value` may stand as one token of a subject."""
    return isinstance(value, str) and TOKEN.fullmatch(value) is not None


def check_token(field: str, value: object) -> str:
    """Return `value` if it is a subject token.

    Raises:
        InvalidRequestError: otherwise, naming `field`.
    """
    if is_token(value):
        return str(value)
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "…"
    raise InvalidRequestError(f"{shown} is not of the form [A-Za-z0-9_-]{{1,64}}", field=field)


def check_tier(value: object) -> Tier:
    """Return `value` if it is a tier.

    Raises:
        InvalidRequestError: otherwise.
    """
    for tier in TIERS:
        if tier == value:
            return tier
    raise InvalidRequestError(f"{value!r} is not one of {', '.join(TIERS)}", field="tier")


def to_token(name: str) -> str:
    """A subject token for any name: `Qwen/Qwen2.5-0.5B` becomes `Qwen2-5-0-5B`."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-")[:64] or "model"


@dataclass(frozen=True, slots=True)
class RequestAddress:
    """The address in a stored request's subject, `<ns>.req.<model>.<tier>.<tenant>.<lane>`."""

    model: str
    tier: str
    tenant: str
    lane: str


@dataclass(frozen=True, slots=True)
class Names:
    """Every subject, stream and bucket of one mesh. `ns` is the namespace, `mesh` unless chosen otherwise."""

    ns: str = DEFAULT_NAMESPACE

    def __post_init__(self) -> None:
        check_token("namespace", self.ns)

    # Streams and buckets.

    @property
    def requests_stream(self) -> str:
        return f"{self.ns.upper()}_REQUESTS"

    @property
    def events_stream(self) -> str:
        return f"{self.ns.upper()}_EVENTS"

    @property
    def dead_stream(self) -> str:
        return f"{self.ns.upper()}_DEAD"

    @property
    def audit_stream(self) -> str:
        return f"{self.ns.upper()}_AUDIT"

    @property
    def record_stream(self) -> str:
        return f"{self.ns.upper()}_RECORD"

    @property
    def results_bucket(self) -> str:
        return f"{self.ns}_results"

    @property
    def workers_bucket(self) -> str:
        return f"{self.ns}_workers"

    @property
    def tenants_bucket(self) -> str:
        """The bucket of the tenants' limits; it exists once an operator sets the first."""
        return f"{self.ns}_tenants"

    @property
    def usage_stream(self) -> str:
        """The stream of the tenants' usage counters; it exists together with `tenants_bucket`."""
        return f"{self.ns.upper()}_USAGE"

    @property
    def objects_bucket(self) -> str:
        return f"{self.ns}_objects"

    def consumer(self, model: str, tier: str, lane: int | str) -> str:
        return f"{model}-{tier}-{lane}"

    # Subjects.

    def request(self, model: str, tier: str, tenant: str, affinity: str) -> str:
        return f"{self.ns}.req.{model}.{tier}.{tenant}.{affinity}"

    def events(self, key: JobKey) -> str:
        return f"{self.ns}.out.{key.tenant}.{key.id}"

    def live(self, key: JobKey) -> str:
        """The subject of a job's live events, which JetStream republishes once they are stored."""
        return f"{self.ns}.live.{key.tenant}.{key.id}"

    def attempts(self, key: JobKey) -> str:
        """The subject that counts and fences the attempts at a job that streams nothing; private to the mesh."""
        return self.system("attempts", key.tenant, key.id)

    def notes(self, key: JobKey) -> str:
        """The subject of the notes on attempts without a Result; private to the mesh."""
        return self.system("notes", key.tenant, key.id)

    def liveness(self, worker: str) -> str:
        """The subject of a worker's liveness record; private to the mesh."""
        return self.system("liveness", worker)

    def leases(self, worker: str) -> str:
        """The subject on which a worker announces its leases to its peers; private to the mesh."""
        return self.system("leases", worker)

    def drain(self, worker: str) -> str:
        """The subject of a worker's drain command; private to the mesh."""
        return self.system("drain", worker)

    def dead(self, at: RequestAddress) -> str:
        return f"{self.ns}.dead.{at.model}.{at.tier}.{at.tenant}.{at.lane}"

    def audit(self, tenant: str, event: str) -> str:
        """The subject of an audit entry; tenant and event may be "*"."""
        return f"{self.ns}.audit.{tenant}.{event}"

    def control(self, tenant: str, verb: str, job: str) -> str:
        return f"{self.ns}.ctl.{tenant}.{verb}.{job}"

    def system(self, *tokens: str) -> str:
        return ".".join((self.ns, "sys", *tokens))

    def result_key(self, key: JobKey) -> str:
        """The stream subject of one Result."""
        return f"$KV.{self.results_bucket}.{key.tenant}.{key.id}"

    def worker_key(self, worker: str) -> str:
        return f"$KV.{self.workers_bucket}.{worker}"

    def slot_key(self, tenant: str, number: int | str) -> str:
        """One place for a running job of a tenant; the bucket drops it when its holder misses three beats."""
        return f"$KV.{self.workers_bucket}.slot.{tenant}.{number}"

    def limits_key(self, tenant: str) -> str:
        return f"$KV.{self.tenants_bucket}.tenant.{tenant}"

    @property
    def default_limits_key(self) -> str:
        """The limits of tenants that have none of their own."""
        return f"$KV.{self.tenants_bucket}.default"

    def usage(self, tenant: str, what: str, period: str) -> str:
        """A counter; private to the mesh."""
        return self.system("usage", tenant, what, period)

    def may_answer(self, reply: str) -> bool:
        """Whether a process of the mesh may publish to a request's reply subject.

        A process of the mesh may publish where its client may not. So it never answers into JetStream, a bucket or
        the mesh itself. Nor does it answer to a subject that could exceed the server's limit on a line, which would
        cost the connection.
        """
        return 0 < len(reply.encode()) <= MAX_REPLY_BYTES and not reply.startswith(("$", f"{self.ns}."))

    def read_request(self, subject: str) -> RequestAddress | None:
        """The address in a stored request's subject; None if it is not one."""
        parts = subject.split(".")
        if len(parts) != 6 or parts[0] != self.ns or parts[1] != "req":
            return None
        return RequestAddress(*parts[2:])
