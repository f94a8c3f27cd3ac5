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
    help="Folder of accounts that nats-server includes: tenants.d beside tenants.conf.",
)
with_namespace = option("--namespace", default="mesh", help="Name of the mesh on its NATS.")


class _InOrder(click.Group):
    """Lists its commands in the order of this module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group("tenant", cls=_InOrder)
def command() -> None:
    """Manage the NATS accounts, keys and limits of tenants.

    An account reaches only its tenant's queue, jobs, Results and live tokens; nats-server enforces that.

    `add`, `ls` and `rm` read and write files that a nats-server with nats/tenants.conf includes. They print the
    command that reloads it; NATS need not run. `limits` sets a tenant's limits in any mesh.

    The secret key is a file with mode 0600. It authenticates the tenant: `mesh generate --tenant acme --nkey
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
    show_default="NAME.nk in this folder",
    metavar="PATH",
    help="File for the secret key (mode 0600); never overwritten.",
)
@option(
    "--connections", type=int, default=1000, metavar="N", help="Open connections of all the tenant's clients together."
)
@option("--subscriptions", type=int, default=100_000, metavar="N", help="Open subscriptions; each open job needs one.")
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
    """Write an account for a tenant, and a new secret key for it.

    NAME is the tenant of the jobs and the name of the account: up to 64 of A-Z, a-z, 0-9, _ and -. The reload does
    not disturb other tenants.

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


@command.command("ls", short_help="List the tenants that have an account.")
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


@command.command("rm", short_help="Remove an account.")
@click.argument("tenant", metavar="NAME")
@with_accounts
@with_namespace
@with_json
def rm(tenant: str, accounts: Path, namespace: str, as_json: bool) -> None:
    """Remove a tenant's account. The next reload disconnects its clients and disables its key.

    The tenant's data stays until it ages out: queued jobs run, and Results are kept. The key file is not removed.

    \b
    Examples:
        mesh tenant rm acme --accounts nats/tenants.d
        mesh tenant rm acme --json | jq -r .reload | sh
    """
    from mesh.cli.tenants import tenant_action

    tenant_action.remove(tenant_action.open_accounts(accounts, namespace), tenant, as_json)


class _Limit(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments for it
    """Parses a number, or `none`."""

    name = "N|none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Checks only the form; policies/quota checks the range."""
        try:
            return "none" if value == "none" else int(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a number nor none", param, ctx)


@command.command("limits", short_help="Show or set limits.")
@click.argument("tenant", metavar="[NAME]", required=False)
@option("--queued", type=_Limit(), metavar="N", help="Jobs that wait or run; checked at the front door.")
@option("--running", type=_Limit(), metavar="N", help="Jobs that run at the same time, over all workers; others wait.")
@option("--requests-per-minute", type=_Limit(), metavar="N", help="Requests in one clock minute.")
@option("--tokens-per-day", type=_Limit(), metavar="N", help="Tokens of prompts and outputs in one UTC day.")
@option("--max-tokens", type=_Limit(), metavar="N", help="Output tokens of one request.")
@option("--prompt-bytes", type=_Limit(), metavar="N", help="Bytes of one request's prompt or messages.")
@option("--defaults", is_flag=True, help="Apply to all tenants without limits of their own.")
@option("--clear", is_flag=True, help="Remove all limits before setting the given ones.")
@with_json
@with_nats
def limits(
    tenant: str | None, defaults: bool, clear: bool, as_json: bool, nats: Nats, **given: int | str | None
) -> None:
    """Show or set tenants' limits. A change applies at once, to jobs that have not started.

    A request beyond a limit is refused before it reaches an engine. The front door answers 429 with a time to retry,
    or 413 if the request is too large. A request published straight into the queue ends as failed, with
    quota_exceeded or too_large. Jobs beyond --running are not refused; they wait for another to end.

    A limit that is not given stays as it is; none removes it. Without NAME and --defaults, it lists all limits.

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
        raise click.UsageError("give NAME or --defaults, not both", click.get_current_context())
    changes = {key: value if isinstance(value, int) else None for key, value in given.items() if value is not None}
    if tenant is None and not defaults and (changes or clear):
        raise click.UsageError("give NAME or --defaults to choose whose limits to set", click.get_current_context())
    loop.run(limits_action.run(nats, tenant, defaults, changes, clear, as_json))
