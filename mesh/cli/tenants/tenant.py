"""`mesh tenant`: `add`, `ls`, `rm`, `limits`."""

from pathlib import Path

import click

from mesh.cli.option_values import Nats
from mesh.cli.options import option, with_json, with_nats

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
    `add`, `ls` and `rm` write and read files, which a nats-server with the configuration nats/tenants.conf includes,
    and print how to have it read them; NATS need not be running. `limits` sets what a tenant may use, in any mesh.

    The key is a file that only you can read; whoever has it is the tenant: `mesh generate --tenant acme --nkey
    acme.nk`. The server's files hold no secret.

    \b
    Examples:
        mesh tenant add acme --accounts nats/tenants.d
        mesh tenant ls --accounts nats/tenants.d
        mesh tenant rm acme --accounts nats/tenants.d
        mesh tenant limits acme --running 8 --requests-per-minute 600
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
    from mesh.cli.tenants import tenant_action

    limits = tenant_action.AccountLimits(connections=connections, subscriptions=subscriptions)
    tenant_action.add(
        tenant_action.open_accounts(accounts, namespace), tenant, key_file or Path(f"{tenant}.nk"), limits, as_json
    )


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
    from mesh.cli.tenants import tenant_action

    tenant_action.show_list(tenant_action.open_accounts(accounts, namespace), as_json)


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
    from mesh.cli.tenants import tenant_action

    tenant_action.remove(tenant_action.open_accounts(accounts, namespace), tenant, as_json)


class _Limit(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments for it
    """A number, or `none`."""

    name = "N|none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """What is out of range is refused with the rest, by policies/quota."""
        try:
            return "none" if value == "none" else int(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a number nor none", param, ctx)


@command.command("limits", short_help="Show or set what a tenant may use.")
@click.argument("tenant", metavar="[NAME]", required=False)
@option("--queued", type=_Limit(), metavar="N", help="Jobs that wait or run; asked at the front door.")
@option("--running", type=_Limit(), metavar="N", help="Jobs at once, over all workers; others wait for their turn.")
@option("--requests-per-minute", type=_Limit(), metavar="N", help="Requests in one minute of the clock.")
@option("--tokens-per-day", type=_Limit(), metavar="N", help="Tokens of prompts and outputs in one day, UTC.")
@option("--max-tokens", type=_Limit(), metavar="N", help="Output tokens of one request.")
@option("--prompt-bytes", type=_Limit(), metavar="N", help="Bytes of one request's prompt or messages.")
@option("--defaults", is_flag=True, help="Meant are all tenants that have no limits of their own.")
@option("--clear", is_flag=True, help="Forget the limits there were, before setting those given.")
@with_json
@with_nats
def limits(
    tenant: str | None, defaults: bool, clear: bool, as_json: bool, nats: Nats, **given: int | str | None
) -> None:
    """Show what tenants may use, or set it. What is set holds at once, for jobs that have not begun.

    A request beyond a limit is refused before an engine sees it: at the front door with 429 and when to try again (413
    if it is too large ever to be taken); published straight into the queue, its job ends as failed with quota_exceeded
    or too_large. Jobs beyond --running are not refused: they wait until one of the others ends.

    A limit that is not given stays as it is; none removes it. Without NAME and --defaults, all of them are listed.

    \b
    Examples:
        mesh tenant limits
        mesh tenant limits acme --running 8 --requests-per-minute 600 --tokens-per-day 2000000
        mesh tenant limits acme --running none
        mesh tenant limits --defaults --max-tokens 4096
        mesh tenant limits acme --clear
    """
    from mesh.cli.tenants import limits_action
    from mesh.cli.terminal import loop

    if tenant is not None and defaults:
        raise click.UsageError("NAME and --defaults exclude each other", click.get_current_context())
    changes = {key: value if isinstance(value, int) else None for key, value in given.items() if value is not None}
    if tenant is None and not defaults and (changes or clear):
        raise click.UsageError("whose limits? give NAME or --defaults", click.get_current_context())
    loop.run(limits_action.run(nats, tenant, defaults, changes, clear, as_json))
