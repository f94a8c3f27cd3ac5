"""`mesh tenant`: tenants' accounts in files, and what is said of them."""

import json
from pathlib import Path

from mesh.cli.terminal import render
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.control.tenants.account_file import AccountLimits
from mesh.control.tenants.accounts import RELOAD, Accounts
from mesh.protocol.subjects import Names

__all__ = ["AccountLimits", "add", "open_accounts", "remove", "show_list"]

_COLUMNS = (TableColumn("tenant", least=12), TableColumn("keys", is_number=True), TableColumn("first key", least=12))


def open_accounts(folder: Path, namespace: str) -> Accounts:
    """The accounts in `folder`, of the mesh of that namespace."""
    return Accounts(folder, Names(namespace))


def add(accounts: Accounts, tenant: str, key_file: Path, limits: AccountLimits, as_json: bool) -> None:
    """Write the account and the key, and say what is left to do.

    Raises:
        ConfigError: see `Accounts.add`.
    """
    added = accounts.add(tenant, key_file, limits)
    if as_json:
        shown = {"tenant": tenant, "account": str(added.file), "key": str(key_file), "reload": RELOAD}
        render.say_json(json.dumps(shown | {"public_key": added.keys[0]}))
        return
    render.say(f"account  {render.harmless(str(added.file))}")
    render.say(f"key      {render.harmless(str(key_file))}  (secret: for whoever is {tenant}, and nobody else)")
    _say_reload("has it")


def remove(accounts: Accounts, tenant: str, as_json: bool) -> None:
    """Remove the account, and say what is left to do.

    Raises:
        ConfigError: see `Accounts.remove`.
    """
    accounts.remove(tenant)
    if as_json:
        render.say_json(json.dumps({"tenant": tenant, "reload": RELOAD}))
        return
    render.say(f"removed  {tenant}")
    _say_reload("cuts it off")


def show_list(accounts: Accounts, as_json: bool) -> None:
    """List them.

    Raises:
        ConfigError: see `Accounts.all`.
    """
    found = accounts.all()
    if as_json:
        tenants = [{"tenant": each.name, "account": str(each.file), "keys": list(each.keys)} for each in found]
        render.say_json(json.dumps({"tenants": tenants}))
        return
    rows = [(each.name, str(len(each.keys)), each.keys[0] if each.keys else "none") for each in found]
    show_table(_COLUMNS, rows)
    if not found:
        render.note("no tenant has an account; `mesh tenant add NAME` writes one.")


def _say_reload(what: str) -> None:
    render.note(f"Where nats-server runs, this {what}; nobody else is disturbed:")
    render.note(f"    {RELOAD}")
