"""The options of a connection: NATS's addresses, and this process's credentials."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, repr=False)
class ConnectOptions:
    """NATS's addresses, and this process's credentials. `repr` shows no secret."""

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    name: str = "mesh"
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials: Path | None = None  # a .creds file: JWT and nkey
    nkey_seed: Path | None = None
    tls_ca: Path | None = None  # PEM: the trusted authorities; None: this machine's
    tls_cert: Path | None = None  # PEM: this client's certificate, for servers that require one
    tls_key: Path | None = None  # PEM: the certificate's key, if it is in another file
    allow_plaintext: bool = False  # allow connections to other machines without TLS, on a trusted network
    inbox_prefix: str = "_INBOX"
    connect_timeout_s: float = 5.0  # for the first connection; reconnects are tried for ever

    def __repr__(self) -> str:
        return f"ConnectOptions({self.shown})"

    @property
    def demands_tls(self) -> bool:
        """Whether a connection without TLS is refused, also at a nats:// address."""
        return self.tls_ca is not None or self.tls_cert is not None

    @property
    def shown(self) -> str:
        """The servers' addresses, for messages."""
        return ", ".join(_shown(each) for each in self.servers)


def _shown(server: str) -> str:
    """Return a server's address without user and password."""
    scheme, sep, rest = server.rpartition("://")
    return f"{scheme}{sep}{rest.rpartition('@')[2]}"
