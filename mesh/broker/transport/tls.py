"""Decides which connections to NATS must be encrypted, and makes their TLS context."""

import ipaddress
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from mesh.broker.transport.options import ConnectOptions
from mesh.errors import ConfigError

_ENCRYPTED = ("tls", "wss")
_SCHEMES = ("nats", "ws", *_ENCRYPTED)


def check_addresses(options: ConnectOptions) -> None:
    """Refuse invalid addresses, and unencrypted connections to other machines.

    Raises:
        ConfigError: an address is invalid, or would send prompts and passwords in clear text; the message names the
            address and the remedies.
    """
    for server in options.servers:
        scheme, host = _parts(server)
        if scheme in _ENCRYPTED:
            continue
        shown = f"{scheme}://{server.rpartition('://')[2].rpartition('@')[2]}"
        if options.demands_tls:
            if scheme == "ws":
                raise ConfigError(f"{shown} has no TLS, but --tls-ca and --tls-cert require it; use wss://", key="nats")
        elif not options.allow_plaintext and not is_loopback(host):
            raise ConfigError(
                f"{shown} is another machine, and everything would travel there in clear text; use "
                f"{'wss' if scheme == 'ws' else 'tls'}://, or --allow-plaintext (in Python: "
                "ConnectOptions(allow_plaintext=True)) where the network itself is trusted",
                key="nats",
            )


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine. Any name other than `localhost` counts as another machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(options: ConnectOptions) -> ssl.SSLContext | None:
    """Return the TLS context: 1.2 or newer, with the server's name verified; None: this machine's defaults.

    Raises:
        ConfigError: a file cannot be read, or has the wrong content.
    """
    if options.tls_key is not None and options.tls_cert is None:
        raise ConfigError("--tls-key needs its certificate; give that too, with --tls-cert", key="tls-cert")
    if not options.demands_tls:
        return None
    _check_readable("tls-ca", options.tls_ca)
    _check_readable("tls-cert", options.tls_cert)
    _check_readable("tls-key", options.tls_key)
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
    except ssl.SSLError as error:
        raise ConfigError(
            f"--tls-ca {options.tls_ca} holds no certificate in PEM form ({error.reason})", key="tls-ca"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.tls_cert is not None:
        try:
            # Without a password, OpenSSL would ask for one on the terminal, and a service would wait for ever.
            context.load_cert_chain(options.tls_cert, options.tls_key, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            where = f"{options.tls_cert} and {options.tls_key}" if options.tls_key else str(options.tls_cert)
            raise ConfigError(
                f"--tls-cert: {where} do not hold a certificate and its own key, without a passphrase ({reason})",
                key="tls-cert",
            ) from error
    return context


def _check_readable(key: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"--{key} {path} cannot be read: {error.strerror}", key=key) from error


def _parts(server: str) -> tuple[str, str]:
    """Return scheme and host of an address; a host alone is enough.

    Raises:
        ConfigError: the address is not one of a NATS server.
    """
    try:
        at = urlsplit(server if "://" in server else f"nats://{server}")
        if at.scheme in _SCHEMES and at.port != 0:  # reading the port checks it
            return at.scheme, at.hostname or ""
    except ValueError:
        pass
    shown = server.rpartition("://")[0] + "://" + server.rpartition("://")[2].rpartition("@")[2]
    raise ConfigError(
        f"{shown.removeprefix('://')} is no address of NATS; write it as nats://HOST:PORT or tls://HOST:PORT",
        key="nats",
    )
