"""From an error to one line on stderr and an exit code, which each class in mesh/errors says itself."""

import os
import traceback
from typing import Final

from mesh import errors

OK: Final = 0
JOB: Final = errors.JobError.exit_code  # failed, cancelled, expired; or no such job
USAGE: Final = 2  # click's own
CONFIG: Final = errors.ConfigError.exit_code
NATS: Final = errors.BrokerError.exit_code
ENGINE: Final = errors.EngineError.exit_code
INTERRUPTED: Final = 130  # 128 and SIGINT, as shells have it


class SignalledError(Exception):
    """The command was ended by a signal, after it cleaned up. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"ended by signal {number}")


def exit_code(error: BaseException) -> int:
    """Returns the exit code for an `error` that ends the process."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SignalledError):
        return 128 + error.number
    return error.exit_code if isinstance(error, errors.MeshError) else 1


def message(error: Exception) -> str:
    """One line that says what is wrong and what to do next."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, errors.MeshError):
        return f"{type(error).__name__}: {text}; this is a fault of mesh, MESH_DEBUG=1 shows where"
    return text + _next_step(error, text)


def _next_step(error: errors.MeshError, text: str) -> str:
    """Returns a hint that the error's own message lacks."""
    match error:
        case errors.UnavailableError() if "$JS." in text:
            return "; is JetStream switched on there (nats-server -js), for this account?"
        case errors.UnauthorizedError():
            return "; give credentials with --creds, --nkey, or --user and --password"
        case errors.UnsupportedError(field="messages"):
            return "; --raw-prompt sends it as a bare prompt"
        case errors.BrokerTimeoutError():
            return "; try again, the same job id never runs twice"
        case errors.EngineDeadError():
            return "; its log above says more, --log-level debug more still"
        case _:
            return ""


def is_debugging() -> bool:
    """Whether the user wants tracebacks."""
    return os.environ.get("MESH_DEBUG", "") not in ("", "0")


def trace(error: BaseException) -> str:
    """Returns the traceback as text."""
    return "".join(traceback.format_exception(error))
