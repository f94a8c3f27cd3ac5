"""The error tree: each class has its word on the wire, and the picture in errors.py is the truth."""

import inspect
import pickle
import re
from pathlib import Path

import pytest

from mesh import errors
from mesh.errors import JobError, MeshError, RequestError, SequenceError

ROOT = Path(__file__).parents[1]

# nats/PROTOCOL.md: the codes a Result may carry. A new one is a change of the protocol.
CODES = {
    "invalid_request",
    "unsupported",
    "model_not_found",
    "too_large",
    "quota_exceeded",
    "unauthorized",
    "expired",
    "cancelled",
    "engine_error",
    "engine_dead",
    "attempts_exhausted",
    "internal",
}
CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, MeshError)]
RETRYABLE = {
    "QuotaExceededError",
    "EngineError",
    "EngineFailedError",
    "EngineDeadError",
    "BrokerError",
    "BrokerTimeoutError",
    "DisconnectedError",
    "UnavailableError",
    "WaitTimeoutError",
}


def make(kind: type[MeshError]) -> MeshError:
    if issubclass(kind, JobError):
        return kind("why", result=None, code=kind.code)
    if issubclass(kind, SequenceError):
        return kind("why", last=7)
    return kind("why")


def tree_in_docstring() -> dict[str, str]:
    """Class to parent, as the drawing has it."""
    parents: dict[str, str] = {}
    branch: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^(?P<lead>[\s│├└─]*)(?P<name>[A-Z]\w*Error)\b", line)
        if found is None:
            continue
        depth = len(found["lead"])
        while branch and branch[-1][0] >= depth:
            branch.pop()
        parents[found["name"]] = branch[-1][1] if branch else "Exception"
        branch.append((depth, found["name"]))
    return parents


def test_the_drawing_at_the_top_is_the_tree() -> None:
    assert tree_in_docstring() == {each.__name__: each.__base__.__name__ for each in CLASSES}


def test_the_codes_are_those_of_the_protocol() -> None:
    text = (ROOT / "nats" / "PROTOCOL.md").read_text()
    paragraph = text[text.index("retryable}`; codes") :].split("A Result")[0]
    assert set(re.findall(r"`([a-z_]+)`", paragraph)) == CODES


@pytest.mark.parametrize("kind", CLASSES, ids=lambda each: each.__name__)
def test_each_error_has_a_code_of_the_protocol_and_says_whether_to_retry(kind: type[Exception]) -> None:
    assert kind.__name__.endswith("Error")
    assert kind.code in CODES
    assert kind.retryable is (kind.__name__ in RETRYABLE)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda each: each.__name__)
def test_each_error_says_why(kind: type[Exception]) -> None:
    error = make(kind)
    assert "why" in str(error)
    assert kind.__name__ in repr(error)


def test_a_request_error_names_the_field_at_fault() -> None:
    error = errors.InvalidRequestError("must be a number", field="top_p")
    assert (error.field, error.reason, str(error)) == ("top_p", "must be a number", "top_p: must be a number")
    assert str(errors.InvalidRequestError("is empty")) == "is empty"


def test_a_job_error_carries_the_result_and_its_code() -> None:
    error = errors.JobFailedError("gone", result="the Result", code="attempts_exhausted")
    assert (error.result, error.code) == ("the Result", "attempts_exhausted")
    assert errors.JobFailedError.code == "internal"


def test_a_sequence_error_tells_the_last_sequence_and_is_not_tried_again() -> None:
    error = SequenceError("late", last=9)
    assert (error.last, error.err_code, error.retryable) == (9, 10071, False)


def test_nothing_but_the_tree_is_public_in_the_module() -> None:
    public = {name for name, each in vars(errors).items() if not name.startswith("_") and inspect.isclass(each)}
    assert public == {each.__name__ for each in CLASSES}


def test_a_request_error_is_caught_as_its_kinds() -> None:
    with pytest.raises(RequestError):
        raise errors.TooLargeError("much", field="prompt")
    with pytest.raises(MeshError):
        raise errors.QuotaExceededError("full")


@pytest.mark.parametrize("kind", [k for k in CLASSES if not issubclass(k, JobError | SequenceError)], ids=str)
def test_errors_travel_between_processes(kind: type[Exception]) -> None:
    """Engines live in processes of their own."""
    assert str(pickle.loads(pickle.dumps(kind("why")))) == "why"
