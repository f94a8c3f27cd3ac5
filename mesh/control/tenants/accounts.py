"""Manages tenants' accounts as files: a folder that nats-server's configuration includes, and one key per tenant.

`add` writes the account before the index that includes it, so a reload in between reads the old state. Each secret goes
into its own file with mode 0600, and is never printed. Source: nats/tenants.conf.
"""

import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nkeys  # type: ignore[import-untyped]  # a dependency of nats-py, without types

from mesh.control.tenants.account_file import (
    AccountLimits,
    account,
    check_name,
    index,
    keys_in,
    tenants_in,
)
from mesh.errors import ConfigError
from mesh.protocol.subjects import Names

INDEX = "index.conf"
# Runs on the server's machine. nats-server 2.15 creates a new account at the first reload and binds its imports at the
# second. Only clients of removed accounts are disconnected.
RELOAD = "nats-server --signal reload; sleep 1; nats-server --signal reload"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant, read from its account's file."""

    name: str
    file: Path
    keys: tuple[str, ...]  # public


class Accounts:
    """The folder of accounts that a nats-server includes."""

    def __init__(self, folder: Path, names: Names) -> None:
        self._folder = folder
        self._names = names

    def all(self) -> list[Tenant]:
        """Returns every tenant, by name.

        Raises:
            ConfigError: the folder is not a folder of accounts, or cannot be read.
        """
        path = self._folder / INDEX
        try:
            found = tenants_in(path.read_text())
            files = [self._folder / f"{each}.conf" for each in found]
            texts = [each.read_text() for each in files]
        except OSError as error:
            raise ConfigError(
                f"accounts = {str(self._folder)!r} has no readable {Path(error.filename or path).name} "
                f"({error.strerror}); give the folder beside tenants.conf with --accounts DIR",
                key="accounts",
            ) from None
        return [Tenant(name, file, tuple(keys_in(text))) for name, file, text in zip(found, files, texts, strict=True)]

    def add(self, tenant: str, key_file: Path, limits: AccountLimits) -> Tenant:
        """Writes an account for `tenant`, and the secret of its one user to `key_file` (mode 0600).

        Raises:
            ConfigError: the name cannot be used or is in use, `key_file` exists, or one cannot be written.
        """
        others = [each.name for each in self.all()]
        check_name(tenant, others)
        if tenant in others:
            raise ConfigError(
                f"tenant = {tenant!r} has an account already; remove it first with `mesh tenant rm {tenant}`",
                key="tenant",
            )
        seed, public = new_user()
        _write_secret(key_file, seed)
        try:
            file = self._folder / f"{tenant}.conf"
            _write(file, account(self._names, tenant, [public], limits))
            _write(self._folder / INDEX, index([*others, tenant]))
        except ConfigError:
            key_file.unlink()
            raise
        return Tenant(tenant, file, (public,))

    def remove(self, tenant: str) -> None:
        """Removes the account. The tenant's jobs and Results stay.

        Raises:
            ConfigError: there is none, or the folder cannot be written.
        """
        everybody = self.all()
        found = next((each for each in everybody if each.name == tenant), None)
        if found is None:
            have = ", ".join(each.name for each in everybody) or "none"
            raise ConfigError(f"tenant = {tenant!r} has no account; there are: {have}", key="tenant")
        _write(self._folder / INDEX, index([each.name for each in everybody if each.name != tenant]))
        found.file.unlink(missing_ok=True)


def new_user() -> tuple[bytes, str]:
    """Returns the secret seed of a new user, and its public key. Source: the nkeys specification of NATS."""
    seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    pair = nkeys.from_seed(seed)
    try:
        return bytes(seed), pair.public_key.decode()
    finally:
        pair.wipe()


def _write_secret(path: Path, secret: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"key-file = {str(path)!r} exists, and is never overwritten; give another with --key-file PATH",
            key="key-file",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"key-file = {str(path)!r} cannot be written ({error.strerror}); give another with --key-file PATH",
            key="key-file",
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret + b"\n")


def _write(path: Path, text: str) -> None:
    """Replaces a file atomically: a concurrent reload reads the old file or the new one."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # it holds no secret, and the server may run as another user
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(
            f"accounts = {str(path.parent)!r} cannot be written ({error.strerror}); "
            "give a writable folder with --accounts DIR",
            key="accounts",
        ) from None
