"""`mesh tenant limits`: what tenants may use, as a table."""

import json
from collections.abc import Sequence

import msgspec

from mesh.cli.connecting import open_mesh
from mesh.cli.option_values import Nats
from mesh.cli.terminal import render
from mesh.cli.terminal.table import TableColumn, show_table
from mesh.control.tenants.limits import Allowed, all_limits, limit
from mesh.policies.quota import QuotaLimits
from mesh.protocol.subjects import check_token

_TITLES = {
    "queued": "queued",
    "running": "running",
    "requests_per_minute": "req/min",
    "tokens_per_day": "tok/day",
    "max_tokens": "max out",
    "prompt_bytes": "prompt B",
}
OTHERS = "(all others)"


async def run(
    nats: Nats, tenant: str | None, is_default: bool, changes: dict[str, int | None], is_cleared: bool, as_json: bool
) -> None:
    """Set the limits if anything is to be changed, and show those that are meant.

    Raises:
        InvalidRequestError: `tenant` is no subject token. ConfigError: a limit is out of range.
        TopologyError, BrokerError: there is no mesh, or NATS did not answer.
    """
    if tenant is not None:
        check_token("tenant", tenant)
    async with open_mesh(nats) as broker:
        if changes or is_cleared:
            shown = [await limit(broker, tenant, changes, is_cleared)]
        else:
            shown = await all_limits(broker)
            if tenant is not None or is_default:
                shown = [each for each in shown if each.tenant == tenant]
    _show(shown, as_json)
    if not shown and not as_json:
        whose = "the other tenants" if is_default else tenant or "any tenant"
        render.note(f"nothing limits {whose}.")


def _show(shown: Sequence[Allowed], as_json: bool) -> None:
    if as_json:
        tenants = [{"tenant": each.tenant, **msgspec.to_builtins(_whole(each.limits))} for each in shown]
        render.say_json(json.dumps({"limits": tenants}))
        return
    if not shown:
        return
    columns = (TableColumn("tenant", least=12), *(TableColumn(title, is_number=True) for title in _TITLES.values()))
    rows = [(each.tenant or OTHERS, *(_number(getattr(each.limits, key)) for key in _TITLES)) for each in shown]
    show_table(columns, rows)


def _whole(limits: QuotaLimits) -> dict[str, int | None]:
    """All of them, also those that do not limit."""
    return {key: getattr(limits, key) for key in _TITLES}


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
