"""`mesh tenant`: `add`, `ls`, `rm`."""

from pathlib import Path

import click

from mesh.cli.options import option, with_json

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)

with_accounts = option(
    "--accounts",
    type=_FOLDER,
    default=Path("tenants.d"),
    metavar="DIR",
    help="The folder of accounts that nats-server includes: tenants.d beside tenants.conf.",
)
with_namespace = option("--namespace", default="mesh", help="The mesh's name on its NATS.")


class _InOrder(click.Group):
    """Lists its commands as they stand here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group("tenant", cls=_InOrder)
def command() -> None:
    """Give each tenant of a mesh an account of its own on NATS, and a key to it.

    From there it reaches its own queue, jobs, Results and live tokens, and nothing else; nats-server enforces that.
    Nothing of the mesh need be told: these commands write files, which a nats-server with the configuration
    nats/tenants.conf includes, and print how to have it read them. NATS need not be running.

    The key is a file that only you can read; whoever has it is the tenant: `mesh generate --tenant acme --nkey
    acme.nk`. The server's files hold no secret.

    \b
    Examples:
        mesh tenant add acme --accounts nats/tenants.d
        mesh tenant ls --accounts nats/tenants.d
        mesh tenant rm acme --accounts nats/tenants.d
    """


@command.command("add", short_help="Write an account and a key.")
@click.argument("tenant", metavar="NAME")
@with_accounts
@option(
    "--key-file",
    type=_FILE,
    show_default="NAME.nk, here",
    metavar="PATH",
    help="Where the secret key goes (mode 0600); never overwritten.",
)
@option("--connections", type=int, default=1000, metavar="N", help="Connections at once, of all its programs together.")
@option("--subscriptions", type=int, default=100_000, metavar="N", help="Subscriptions at once: one for each open job.")
@with_namespace
@with_json
def add(
    tenant: str,
    accounts: Path,
    key_file: Path | None,
    connections: int,
    subscriptions: int,
    namespace: str,
    as_json: bool,
) -> None:
    """Write an account for a tenant, and a new secret key to connect to it with.

    NAME is the tenant of its jobs and the name of its account: up to 64 of A-Z, a-z, 0-9, _ and -. Tenants that are
    there already notice nothing, also not of the reload.

    \b
    Examples:
        mesh tenant add acme --accounts nats/tenants.d
        mesh tenant add acme --key-file /etc/mesh/acme.nk --connections 20
        mesh tenant add acme --json | jq -r .reload | sh
    """
    from mesh.cli.act import tenant as act

    limits = act.AccountLimits(connections=connections, subscriptions=subscriptions)
    act.add(act.open_accounts(accounts, namespace), tenant, key_file or Path(f"{tenant}.nk"), limits, as_json)


@command.command("ls", short_help="List them.")
@with_accounts
@with_namespace
@with_json
def ls(accounts: Path, namespace: str, as_json: bool) -> None:
    """List the tenants that have an account, with the public keys of those who may connect to it.

    \b
    Examples:
        mesh tenant ls --accounts nats/tenants.d
        mesh tenant ls --json | jq -r '.tenants[].tenant'
    """
    from mesh.cli.act import tenant as act

    act.show_list(act.open_accounts(accounts, namespace), as_json)


@command.command("rm", short_help="Take an account away.")
@click.argument("tenant", metavar="NAME")
@with_accounts
@with_namespace
@with_json
def rm(tenant: str, accounts: Path, namespace: str, as_json: bool) -> None:
    """Take a tenant's account away: with the next reload, its programs are cut off and its key opens nothing.

    What it has in the mesh stays until its time is over: queued jobs run, Results are kept. Its key file is left
    where it is.

    \b
    Examples:
        mesh tenant rm acme --accounts nats/tenants.d
        mesh tenant rm acme --json | jq -r .reload | sh
    """
    from mesh.cli.act import tenant as act

    act.remove(act.open_accounts(accounts, namespace), tenant, as_json)
