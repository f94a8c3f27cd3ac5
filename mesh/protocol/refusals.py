"""Errors as a NATS service says them: the number in `Nats-Service-Error-Code`, and the headers beside it. Pure.

The numbers are HTTP's, as ADR-32 has them.
"""

from typing import Final

from mesh.errors import (
    BrokerError,
    MeshError,
    QuotaExceededError,
    RequestError,
    ResultNotFoundError,
    WaitTimeoutError,
)

BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401
NOT_FOUND: Final = 404
TOO_LARGE: Final = 413
TOO_MANY: Final = 429
INTERNAL: Final = 500
UNAVAILABLE: Final = 503

_BY_CODE = {
    "invalid_request": BAD_REQUEST,
    "unsupported": BAD_REQUEST,
    "unauthorized": UNAUTHORIZED,
    "model_not_found": NOT_FOUND,
    "too_large": TOO_LARGE,
    "quota_exceeded": TOO_MANY,
}


def service_code(error: MeshError) -> int:
    """The number of an error."""
    if isinstance(error, RequestError):
        return _BY_CODE.get(error.code, BAD_REQUEST)
    if isinstance(error, ResultNotFoundError):
        return NOT_FOUND
    if isinstance(error, BrokerError | WaitTimeoutError):
        return UNAVAILABLE
    return INTERNAL


def details_of(error: MeshError) -> tuple[tuple[str, str], ...]:
    """Headers that say in the mesh's own words what it is: the code, the field at fault, when to try again."""
    found = [("Mesh-Error-Code", error.code)]
    if isinstance(error, RequestError) and error.field is not None:
        found.append(("Mesh-Error-Field", error.field))
    if isinstance(error, QuotaExceededError) and error.retry_after_ms is not None:
        found.append(("Mesh-Retry-After-Ms", str(error.retry_after_ms)))
    return tuple(found)
