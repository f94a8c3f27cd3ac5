"""Sets what tenants may use, and reads what they are allowed. Used by `mesh tenant limits`.

The first limit of a mesh declares what limits need on its NATS; a mesh without limits has none of it.
"""

from dataclasses import dataclass

import msgspec

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.quotas import read_limits, write_limits
from mesh.errors import TopologyError
from mesh.policies.quota import QuotaLimits, check_limits


@dataclass(frozen=True, slots=True)
class Allowed:
    """The limits of one tenant, or of all that have none of their own."""

    tenant: str | None  # None: those
    limits: QuotaLimits


async def all_limits(broker: Broker) -> list[Allowed]:
    """Every tenant that has limits, by name, and first what holds for the others, if anything does.

    Raises:
        BrokerError: NATS did not answer.
    """
    own, default = await read_limits(broker)
    found = [] if default is None else [Allowed(None, default)]
    return found + [Allowed(tenant, own[tenant]) for tenant in sorted(own)]


async def limit(broker: Broker, tenant: str | None, changes: dict[str, int | None], is_cleared: bool) -> Allowed:
    """Change limits of a tenant, or of all that have none of their own if it is None; they hold at once.

    Args:
        changes: by field of QuotaLimits; None: no limit.
        is_cleared: begin with none.

    Raises:
        ConfigError: a limit is out of range.
        TopologyError: what limits need is there, with other settings.
        BrokerError: NATS did not answer, or refused.
    """
    before = QuotaLimits()
    if not is_cleared:
        own, default = await read_limits(broker)
        before = (default if tenant is None else own.get(tenant)) or before
    limits = check_limits(msgspec.structs.replace(before, **changes))
    settings = await topology.read_settings(broker)
    plan = await topology.plan_quota(broker, settings)
    differing = next((change for change in plan if change.verb == "differs"), None)
    if differing is not None:
        raise TopologyError(
            f"{differing.kind} {differing.name} differs: {differing.detail}; change it with `nats stream edit`, "
            "or delete it and set the limits again"
        )
    await topology.apply(broker.connection, plan)
    await write_limits(broker, tenant, limits)
    return Allowed(tenant, limits)
