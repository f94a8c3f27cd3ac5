"""Every error the mesh raises or writes into a Result, as one tree.

    MeshError
    ├── RefusedError               the request was not taken
    │   ├── RequestError           it cannot be served as it is; asking again changes nothing
    │   │   ├── InvalidRequestError    a field is missing, of the wrong type, or out of range
    │   │   ├── UnsupportedError       a valid field that this engine cannot honour
    │   │   ├── TooLargeError          too many bytes, or too many tokens for the model
    │   │   ├── ModelNotFoundError     no such model is deployed
    │   │   └── UnauthorizedError      NATS refused the subject to this user
    │   └── QuotaExceededError     the queue is full, or a limit is reached; try later
    ├── JobError                   the job was accepted and ended without finishing (carries the Result)
    │   ├── JobFailedError         it failed, or was given up
    │   ├── JobCancelledError      somebody asked for it to stop
    │   └── JobExpiredError        its deadline passed
    ├── EngineError
    │   ├── EngineFailedError      this attempt failed; another may succeed
    │   └── EngineDeadError        the engine can serve nobody any more
    ├── BrokerError                NATS could not be reached, or refused
    │   ├── BrokerTimeoutError     no answer in time: the outcome is unknown
    │   ├── DisconnectedError      no connection to NATS, or lost before the answer: the outcome is unknown
    │   ├── UnavailableError       nobody answers there: no such stream or service, or no leader just now
    │   ├── SequenceError          a fenced publish came too late: somebody else wrote first
    │   └── TopologyError          streams, buckets or consumers are missing or differ
    ├── WaitTimeoutError           a wait of the client library reached its bound
    ├── ResultNotFoundError        no Result: unknown job, or kept no longer
    ├── ProtocolError              a peer said something the protocol does not allow
    ├── VersionError               the mesh speaks another major version of the protocol than this program
    └── ConfigError                a setting cannot be used; the message names it and the fix

A user of the client library writes:

    try:
        result = (await client.generate("demo", "Hello")).raise_for_status()
    except mesh.errors.QuotaExceededError:
        ...  # back off
    except mesh.errors.MeshError as error:
        print(error.code, error)
"""

from typing import ClassVar


class MeshError(Exception):
    """Base of all. Each class says once how its errors are called and what they become elsewhere.

    RequestError, EngineError and JobError only group: each shares the code of its first kind, for errors of engines
    that say no more. Every other class has a code of its own.
    """

    code: ClassVar[str] = "internal"  # the stable word, in headers, Results, logs and programs
    retryable: ClassVar[bool] = False  # whether the same may succeed later
    http_status: ClassVar[int] = 500  # also the number of a NATS service error (protocol/refusals)
    exit_code: ClassVar[int] = 1  # of the CLI: 1 the job, 3 a request or a setting, 4 NATS, 5 the engine
    in_result: ClassVar[bool] = False  # whether the error of a Result may carry the code

    @property
    def result_code(self) -> str:
        """The code under which a Result tells of this error: its own, or `internal`."""
        return self.code if self.in_result else MeshError.code

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle an error with all its attributes, independently of its `__init__`."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[MeshError], args: tuple[object, ...], state: dict[str, object]) -> MeshError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class RefusedError(MeshError):
    """The request was not taken. `field` names the part at fault, if there is one."""

    code = "refused"
    http_status = 400
    exit_code = 3

    def __init__(self, reason: str, *, field: str | None = None) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}" if field else reason)


class RequestError(RefusedError):
    """The request cannot be served as it is."""

    code = "invalid_request"
    in_result = True


class InvalidRequestError(RequestError):
    code = "invalid_request"


class UnsupportedError(RequestError):
    code = "unsupported"


class TooLargeError(RequestError):
    code = "too_large"
    http_status = 413


class ModelNotFoundError(RequestError):
    code = "model_not_found"
    http_status = 404


class UnauthorizedError(RequestError):
    code = "unauthorized"
    http_status = 401


class QuotaExceededError(RefusedError):
    """`retry_after_ms` says when it may succeed, None if that is not known."""

    code = "quota_exceeded"
    retryable = True
    http_status = 429
    exit_code = 1
    in_result = True

    def __init__(self, reason: str, *, field: str | None = None, retry_after_ms: int | None = None) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__(reason, field=field)


class JobError(MeshError):
    """An accepted job ended without finishing. `result` is its Result, `code` the Result's error code."""

    code = "job_failed"

    def __init__(self, message: str, *, result: object, code: str) -> None:
        self.result = result
        self.code = code  # type: ignore[misc]  # the one error whose code comes from the wire
        super().__init__(message)


class JobFailedError(JobError):
    code = "job_failed"


class JobCancelledError(JobError):
    code = "cancelled"
    http_status = 409
    in_result = True


class JobExpiredError(JobError):
    code = "expired"
    http_status = 504
    in_result = True


class EngineError(MeshError):
    """The engine, not the request, is at fault."""

    code = "engine_error"
    retryable = True
    exit_code = 5
    in_result = True


class EngineFailedError(EngineError):
    code = "engine_error"


class EngineDeadError(EngineError):
    code = "engine_dead"


class BrokerError(MeshError):
    """NATS could not do it. `err_code` is JetStream's number for it, 0 if it gave none."""

    code = "broker"
    retryable = True
    http_status = 503
    exit_code = 4

    def __init__(self, message: str, *, err_code: int = 0) -> None:
        self.err_code = err_code
        super().__init__(message)


class BrokerTimeoutError(BrokerError):
    code = "timeout"


class DisconnectedError(BrokerError):
    code = "disconnected"


class UnavailableError(BrokerError):
    code = "unavailable"


class SequenceError(BrokerError):
    """`last` is the subject's last sequence as the server reported it, 0 if it did not say."""

    code = "conflict"
    retryable = False

    def __init__(self, message: str, *, last: int) -> None:
        self.last = last
        super().__init__(message, err_code=10071)


class TopologyError(BrokerError):
    code = "topology"
    retryable = False
    exit_code = 3


class WaitTimeoutError(MeshError):
    code = "wait_timeout"
    retryable = True
    http_status = 503


class ResultNotFoundError(MeshError):
    code = "result_not_found"
    http_status = 404


class ProtocolError(MeshError):
    code = "protocol"


class VersionError(MeshError):
    """The message names both versions and the command that helps."""

    code = "version"
    exit_code = 3


class ConfigError(MeshError):
    """`key` is the setting at fault; the message says the value and what to do."""

    code = "config"
    exit_code = 3

    def __init__(self, message: str, *, key: str | None = None) -> None:
        self.key = key
        super().__init__(message)
