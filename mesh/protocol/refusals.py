"""Errors in a NATS service's answer: the number in `Nats-Service-Error-Code`, and further headers. Pure.

The numbers are HTTP statuses, as in ADR-32; each class in mesh/errors names its own.
"""

from typing import Final

from mesh.errors import MeshError, QuotaExceededError, RefusedError

BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404
INTERNAL: Final = 500
UNAVAILABLE: Final = 503


def service_code(error: MeshError) -> int:
    """The number of an error."""
    return error.http_status


def details_of(error: MeshError) -> tuple[tuple[str, str], ...]:
    """The headers of an error: its code, the field at fault, and when to try again."""
    found = [("Mesh-Error-Code", error.code)]
    if isinstance(error, RefusedError) and error.field is not None:
        found.append(("Mesh-Error-Field", error.field))
    if isinstance(error, QuotaExceededError) and error.retry_after_ms is not None:
        found.append(("Mesh-Retry-After-Ms", str(error.retry_after_ms)))
    return tuple(found)
