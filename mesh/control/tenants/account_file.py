"""Writes the nats-server configuration of one tenant's account. Pure.

The mesh's account (nats/tenants.conf) permits an import only if the tenant token equals the importing account's name.
So this text grants nothing. It requests all imports and limits its own users.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.errors import ConfigError
from mesh.job_key import JobKey
from mesh.protocol.subjects import Names, is_token

OWN = ("mesh", "sys", "$g")  # accounts that nats/tenants.conf and the server have already; compared without case
MESH_ACCOUNT = "MESH"
INDEX_HEAD = "# Written by `mesh tenant`: one line for each tenant."
_INCLUDE = re.compile(r'^\s*include\s+"?\'?([A-Za-z0-9_-]+)\.conf\b', re.MULTILINE)
_NKEY = re.compile(r"\bU[A-Z2-7]{55}\b")


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """Server limits for all connections of one tenant together."""

    connections: int = 1000
    subscriptions: int = 100_000  # a client needs one for each open job

    def __post_init__(self) -> None:
        for key, most in (("connections", 1_000_000), ("subscriptions", 100_000_000)):
            value = getattr(self, key)
            if not 1 <= value <= most:
                raise ConfigError(f"{key} = {value} is not between 1 and {most}; give --{key} N", key=key)


def check_name(tenant: str, others: Sequence[str] = ()) -> str:
    """Returns `tenant` if it can name an account.

    Raises:
        ConfigError: it is not a subject token, or differs from a taken name only by case.
    """
    if not is_token(tenant):
        shown = repr(tenant) if len(repr(tenant)) <= 80 else repr(tenant)[:77] + "…"
        raise ConfigError(f"tenant = {shown} is not of the form [A-Za-z0-9_-]{{1,64}}; give another name", key="tenant")
    if tenant.lower() in OWN:
        raise ConfigError(f"tenant = {tenant!r} is the name of another account; give another name", key="tenant")
    twin = next((each for each in others if each.lower() == tenant.lower() and each != tenant), None)
    if twin is not None:
        raise ConfigError(
            f"tenant = {tenant!r} differs from {twin!r} in upper and lower case only; give another name", key="tenant"
        )
    return tenant


def publishes(names: Names, tenant: str) -> list[str]:
    """Returns the subjects that a tenant may publish to; each is imported as a service."""
    bucket = names.results_bucket
    return [
        names.request("*", "*", tenant, "*"),
        f"{names.ns}.rpc.{tenant}.*",
        names.control(tenant, "*", "*"),
        f"$JS.API.DIRECT.GET.KV_{bucket}.{names.result_key(JobKey(tenant, '*'))}",
    ]


def hears(names: Names, tenant: str) -> list[str]:
    """Returns the mesh subjects that a tenant may subscribe to; each is imported as a stream."""
    return [names.live(JobKey(tenant, "*")), names.events(JobKey(tenant, "*"))]


def account(names: Names, tenant: str, keys: Sequence[str], limits: AccountLimits) -> str:
    """Returns the text of the account's file. `keys`: the public nkeys of its users."""
    services, streams = publishes(names, tenant), hears(names, tenant)
    users = "\n".join(f"    {{ nkey: {key} }}" for key in keys)
    imports = [f'{{ service: {{ account: {MESH_ACCOUNT}, subject: "{each}" }} }}' for each in services]
    imports += [f'{{ stream: {{ account: {MESH_ACCOUNT}, subject: "{each}" }} }}' for each in streams]
    # Subscribing to a stream's wildcard works too: `nats sub 'mesh.live.acme.>'`.
    heard = [*streams, *(each.removesuffix("*") + ">" for each in streams), "_INBOX.>"]
    return f"""\
# Tenant {tenant}. Written by `mesh tenant`, which overwrites it: changes by hand are lost.
"{tenant}" {{
  users: [
{users}
  ]
  limits {{ max_connections: {limits.connections}, max_subscriptions: {limits.subscriptions}, max_leafnodes: 0 }}
  default_permissions {{
    publish: [ {_listed(services)} ]
    subscribe: [ {_listed(heard)} ]
  }}
  imports: [
    {_lines(imports)}
  ]
}}
"""


def index(tenants: Sequence[str]) -> str:
    """Returns the text of the file that includes every account's file."""
    return "\n".join([INDEX_HEAD, *(f'include "{each}.conf"' for each in sorted(tenants))]) + "\n"


def tenants_in(index_text: str) -> list[str]:
    """Returns the tenants that an index includes, by name."""
    return sorted(_INCLUDE.findall(index_text))


def keys_in(account_text: str) -> list[str]:
    """Returns the public keys in an account's file."""
    return _NKEY.findall(account_text)


def _listed(subjects: Sequence[str]) -> str:
    return ", ".join(f'"{each}"' for each in subjects)


def _lines(entries: Sequence[str]) -> str:
    return "\n    ".join(entries)
