"""Sets and reads tenants' limits.

The first limit of a mesh declares the buckets that limits need on NATS; a mesh without limits has none.
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
    """The limits of one tenant, or the defaults."""

    tenant: str | None  # None: the defaults
    limits: QuotaLimits


async def all_limits(broker: Broker) -> list[Allowed]:
    """Returns the defaults first, if there are any, then every tenant with limits, by name.

    Raises:
        BrokerError: NATS did not answer.
    """
    own, default = await read_limits(broker)
    found = [] if default is None else [Allowed(None, default)]
    return found + [Allowed(tenant, own[tenant]) for tenant in sorted(own)]


async def limit(broker: Broker, tenant: str | None, changes: dict[str, int | None], is_cleared: bool) -> Allowed:
    """Changes the limits of a tenant, or the defaults if `tenant` is None. They apply at once.

    Args:
        changes: by field of QuotaLimits; None removes the limit.
        is_cleared: remove all limits first.

    Raises:
        ConfigError: a limit is out of range.
        TopologyError: a bucket for limits exists with other settings.
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
