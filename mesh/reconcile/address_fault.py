"""Finds the fault in a request's subject that keeps every worker from serving it. Pure."""

from collections.abc import Sequence

from mesh.protocol.messages import TIERS, ErrorInfo
from mesh.protocol.subjects import is_token


def address_fault(tokens: Sequence[str]) -> ErrorInfo | None:
    """The fault in the tokens after `<ns>.req.`; None: a worker of that model would serve it."""
    if len(tokens) != 4:
        return ErrorInfo(code="invalid_request", message="the subject needs model, tier, tenant and affinity")
    model, tier, tenant, _ = tokens
    if not is_token(model) or not is_token(tenant):
        return ErrorInfo(code="invalid_request", message="model and tenant must be of the form [A-Za-z0-9_-]{1,64}")
    if tier not in TIERS:
        return ErrorInfo(code="invalid_request", message=f"tier: {tier!r} is not one of {', '.join(TIERS)}")
    return None
