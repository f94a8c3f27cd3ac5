"""The error tree: each class has its word on the wire, and the picture in errors.py is the truth."""

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh import errors
from mesh.errors import EngineError, JobError, MeshError, RefusedError, RequestError, SequenceError
from mesh.protocol.messages import ErrorInfo, Result

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
CLASSES: list[type[MeshError]] = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, MeshError)
]
GROUPS: dict[type[MeshError], type[MeshError]] = {
    errors.RequestError: errors.InvalidRequestError,
    errors.EngineError: errors.EngineFailedError,
    errors.JobError: errors.JobFailedError,
}
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
    assert tree_in_docstring() == {each.__name__: each.__bases__[0].__name__ for each in CLASSES}


def test_the_codes_of_a_result_are_those_of_the_protocol() -> None:
    text = (ROOT / "nats" / "PROTOCOL.md").read_text()
    paragraph = text[text.index("retryable}`; codes") :].split("A Result")[0]
    assert set(re.findall(r"`([a-z_]+)`", paragraph)) == CODES
    ours = {each.code for each in CLASSES if each.in_result} | {"internal", "attempts_exhausted"}
    assert ours == CODES


@pytest.mark.parametrize("kind", CLASSES, ids=lambda each: each.__name__)
def test_a_result_carries_no_other_code(kind: type[MeshError]) -> None:
    assert make(kind).result_code in CODES
    assert make(kind).result_code == (kind.code if kind.in_result else "internal")


def test_each_class_has_a_code_of_its_own() -> None:
    """Groups whose errors say no more share the code of their first kind."""
    codes = [each.code for each in CLASSES if each not in GROUPS]
    assert len(codes) == len(set(codes))
    assert {each: each.code for each in GROUPS} == {each: kind.code for each, kind in GROUPS.items()}
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda each: each.__name__)
def test_each_class_says_its_status_its_exit_code_and_whether_to_retry(kind: type[MeshError]) -> None:
    assert kind.__name__.endswith("Error")
    assert kind.retryable is (kind.__name__ in RETRYABLE)
    assert kind.http_status in {400, 401, 404, 409, 413, 429, 500, 503, 504}
    assert kind.exit_code in {1, 3, 4, 5}


def test_what_may_succeed_later_is_no_request_that_never_will() -> None:
    assert not issubclass(errors.QuotaExceededError, RequestError)
    assert issubclass(errors.QuotaExceededError, RefusedError)
    assert not any(each.retryable for each in CLASSES if issubclass(each, RequestError))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda each: each.__name__)
def test_each_error_says_why(kind: type[MeshError]) -> None:
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
    assert errors.JobFailedError.code == "job_failed"


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
    with pytest.raises(RefusedError):
        raise errors.QuotaExceededError("full")


RESULT = Result(id="j", tenant="default", model="demo", status="failed", error=ErrorInfo(code="too_large", message="m"))
LOADED = [
    *(make(each) for each in CLASSES),
    errors.InvalidRequestError("must be a number", field="top_p"),
    errors.QuotaExceededError("full", field="max_tokens", retry_after_ms=250),
    errors.JobFailedError("gone", result=RESULT, code="too_large"),
    errors.JobExpiredError("late", result=RESULT, code="expired"),
    errors.BrokerTimeoutError("slow", err_code=10008),
    SequenceError("late", last=9),
    errors.ConfigError("bad", key="nats"),
]


@pytest.mark.parametrize("travel", [lambda each: pickle.loads(pickle.dumps(each)), copy.copy], ids=["pickle", "copy"])
@pytest.mark.parametrize("error", LOADED, ids=repr)
def test_errors_travel_between_processes_with_all_they_carry(
    error: MeshError, travel: Callable[[MeshError], MeshError]
) -> None:
    """Engines live in processes of their own, and programs ask from pools of processes."""
    error.add_note("while it was asked")
    found = travel(error)
    assert type(found) is type(error)
    assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))
    assert (found.code, found.retryable) == (error.code, error.retryable)


def test_an_error_of_somebody_else_travels_too() -> None:
    """A subclass with an `__init__` of its own."""
    found = pickle.loads(pickle.dumps(OverheatedError(celsius=99)))
    assert (str(found), found.celsius, found.code) == ("99 degrees", 99, "engine_error")


class OverheatedError(EngineError):
    def __init__(self, *, celsius: int) -> None:
        self.celsius = celsius
        super().__init__(f"{celsius} degrees")
