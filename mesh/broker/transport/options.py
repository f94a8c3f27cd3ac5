"""Where NATS is and who we are, as one value."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, repr=False)
class ConnectOptions:
    """Where NATS is and who we are. `repr` shows no secret."""

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    name: str = "mesh"
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials: Path | None = None  # a .creds file: JWT and nkey
    nkey_seed: Path | None = None
    tls_ca: Path | None = None  # PEM: whose certificates are trusted; None: those that this machine trusts
    tls_cert: Path | None = None  # PEM: our own certificate, for servers that ask for one
    tls_key: Path | None = None  # PEM: its key, where it is not in the same file
    allow_plaintext: bool = False  # to other machines too, where the network itself is trusted
    inbox_prefix: str = "_INBOX"
    connect_timeout_s: float = 5.0  # for the first connection; later ones are tried for ever

    def __repr__(self) -> str:
        return f"ConnectOptions({self.shown})"

    @property
    def demands_tls(self) -> bool:
        """Whether a connection without TLS is out of the question, whatever the addresses say."""
        return self.tls_ca is not None or self.tls_cert is not None

    @property
    def shown(self) -> str:
        """The servers' addresses, for messages."""
        return ", ".join(_shown(each) for each in self.servers)


def _shown(server: str) -> str:
    """A server's address without user and password."""
    scheme, sep, rest = server.rpartition("://")
    return f"{scheme}{sep}{rest.rpartition('@')[2]}"
