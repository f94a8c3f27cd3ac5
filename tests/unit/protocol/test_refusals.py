"""Each error has its number."""

import pytest

from mesh import errors
from mesh.errors import MeshError
from mesh.protocol.refusals import details_of, service_code

NUMBERS = [
    (errors.InvalidRequestError("x", field="top_p"), 400),
    (errors.UnsupportedError("x"), 400),
    (errors.UnauthorizedError("x"), 401),
    (errors.ModelNotFoundError("x"), 404),
    (errors.ResultNotFoundError("x"), 404),
    (errors.TooLargeError("x"), 413),
    (errors.QuotaExceededError("x"), 429),
    (errors.BrokerTimeoutError("x"), 503),
    (errors.UnavailableError("x"), 503),
    (errors.DisconnectedError("x"), 503),
    (errors.WaitTimeoutError("x"), 503),
    (errors.ProtocolError("x"), 500),
    (errors.MeshError("x"), 500),
]


@pytest.mark.parametrize(("error", "number"), NUMBERS, ids=[type(error).__name__ for error, _ in NUMBERS])
def test_an_error_has_its_number(error: MeshError, number: int) -> None:
    assert service_code(error) == number


def test_the_field_at_fault_is_told() -> None:
    assert details_of(errors.InvalidRequestError("x", field="top_p")) == (
        ("Mesh-Error-Code", "invalid_request"),
        ("Mesh-Error-Field", "top_p"),
    )
    assert details_of(errors.UnavailableError("x")) == (("Mesh-Error-Code", "unavailable"),)


def test_a_quota_says_what_is_full_and_when_to_try_again() -> None:
    error = errors.QuotaExceededError("full", field="max_tokens", retry_after_ms=250)
    assert details_of(error) == (
        ("Mesh-Error-Code", "quota_exceeded"),
        ("Mesh-Error-Field", "max_tokens"),
        ("Mesh-Retry-After-Ms", "250"),
    )
