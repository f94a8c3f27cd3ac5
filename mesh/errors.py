"""Every error the mesh raises or writes into a Result, as one tree.

    MeshError
    ├── RequestError               the request itself cannot be served; asking again changes nothing
    │   ├── InvalidRequestError    a field is missing, of the wrong type, or out of range
    │   ├── UnsupportedError       a valid field that this engine cannot honour
    │   ├── TooLargeError          too many bytes, or too many tokens for the model
    │   ├── ModelNotFoundError     no such model is deployed
    │   ├── UnauthorizedError      NATS refused the subject to this user
    │   └── QuotaExceededError     the queue is full; try later
    ├── JobError                   the job was accepted and ended without finishing (carries the Result)
    │   ├── JobFailedError
    │   ├── JobCancelledError
    │   └── JobExpiredError
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
    """Base of all. `code` is the stable word for it on the wire, over HTTP and in the CLI."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False


class RequestError(MeshError):
    """The request cannot be served as it is. `field` names the part at fault, if there is one."""

    code = "invalid_request"

    def __init__(self, reason: str, *, field: str | None = None) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}" if field else reason)


class InvalidRequestError(RequestError):
    code = "invalid_request"


class UnsupportedError(RequestError):
    code = "unsupported"


class TooLargeError(RequestError):
    code = "too_large"


class ModelNotFoundError(RequestError):
    code = "model_not_found"


class UnauthorizedError(RequestError):
    code = "unauthorized"


class QuotaExceededError(RequestError):
    """`retry_after_ms` says when it may succeed, None if that is not known."""

    code = "quota_exceeded"
    retryable = True

    def __init__(self, reason: str, *, field: str | None = None, retry_after_ms: int | None = None) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__(reason, field=field)


class JobError(MeshError):
    """An accepted job ended without finishing. `result` is its Result, `code` the Result's error code."""

    def __init__(self, message: str, *, result: object, code: str) -> None:
        self.result = result
        self.code = code  # type: ignore[misc]  # the one error whose code comes from the wire
        super().__init__(message)


class JobFailedError(JobError):
    code = "internal"


class JobCancelledError(JobError):
    code = "cancelled"


class JobExpiredError(JobError):
    code = "expired"


class EngineError(MeshError):
    """The engine, not the request, is at fault."""

    code = "engine_error"
    retryable = True


class EngineFailedError(EngineError):
    code = "engine_error"


class EngineDeadError(EngineError):
    code = "engine_dead"


class BrokerError(MeshError):
    """NATS could not do it. `err_code` is JetStream's number for it, 0 if it gave none."""

    code = "internal"
    retryable = True

    def __init__(self, message: str, *, err_code: int = 0) -> None:
        self.err_code = err_code
        super().__init__(message)


class BrokerTimeoutError(BrokerError):
    pass


class DisconnectedError(BrokerError):
    pass


class UnavailableError(BrokerError):
    pass


class SequenceError(BrokerError):
    """`last` is the subject's last sequence as the server reported it, 0 if it did not say."""

    retryable = False

    def __init__(self, message: str, *, last: int) -> None:
        self.last = last
        super().__init__(message, err_code=10071)


class TopologyError(BrokerError):
    retryable = False


class WaitTimeoutError(MeshError):
    retryable = True


class ResultNotFoundError(MeshError):
    pass


class ProtocolError(MeshError):
    pass


class ConfigError(MeshError):
    """`key` is the setting at fault; the message says the value and what to do."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        self.key = key
        super().__init__(message)
