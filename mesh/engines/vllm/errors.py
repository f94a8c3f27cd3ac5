"""Maps vLLM's exceptions to the mesh's errors.

Their base classes changed between versions. Up to 0.24 a bad request is a ValueError. From 0.28 it is a
VLLMClientError, which is no ValueError. So the classes are looked up by name, after vLLM was imported.
"""

import importlib
from dataclasses import dataclass

from mesh.engines.vllm.params import checked_fields
from mesh.errors import EngineDeadError, EngineFailedError, InvalidRequestError, MeshError, TooLargeError

_TOO_LONG = ("input_tokens", "input_text", "max_total_tokens")  # vLLM's words for a prompt that does not fit
_MAX_REASON_CHARS = 500  # vLLM quotes the refused value, which can be a whole grammar

# Raised inside vLLM by a request's value of an unexpected kind.
_MOSTLY_CLIENT: tuple[type[Exception], ...] = (ArithmeticError, AttributeError, LookupError)


@dataclass(frozen=True, slots=True)
class VllmErrors:
    """The exception classes of the installed vLLM."""

    client: tuple[type[Exception], ...]  # the request is at fault
    busy: tuple[type[Exception], ...]  # vLLM's admission control refused; the exception has an HTTP status
    generate: tuple[type[Exception], ...]  # one request failed; the cause is chained
    dead: tuple[type[Exception], ...]  # the engine core is gone

    @classmethod
    def load(cls) -> "VllmErrors":
        """Look the classes up; vLLM must have been imported."""
        template = _classes("jinja2.exceptions", "TemplateError")
        return cls(
            client=(*_classes("vllm.exceptions", "VLLMClientError"), *template, ValueError, TypeError),
            busy=_classes("vllm.exceptions", "GracefulHTTPError"),
            generate=_classes("vllm.v1.engine.exceptions", "EngineGenerateError"),
            dead=_classes("vllm.v1.engine.exceptions", "EngineDeadError"),
        )

    @property
    def all(self) -> tuple[type[Exception], ...]:
        """Every class that a call of the engine may raise."""
        return (*self.dead, *self.generate, *self.busy, *self.client)

    def mapped(self, error: Exception, *, field: str, has_output: bool) -> MeshError:
        """Return the mesh's error for an exception of vLLM's.

        Args:
            field: the field to name where vLLM names none.
            has_output: the request has produced output, so it is not at fault.
        """
        if isinstance(error, self.dead):
            return EngineDeadError("vLLM's engine core died")
        if isinstance(error, self.generate):
            cause = error.__cause__
            if not isinstance(cause, self.client + _MOSTLY_CLIENT):
                return EngineFailedError(f"vLLM failed: {cause or error!r}"[:_MAX_REASON_CHARS])
            error = cause
        if isinstance(error, self.busy) and getattr(error, "http_status", 500) >= 500:
            return EngineFailedError(f"vLLM refused for now: {error}")
        if has_output:
            return EngineFailedError(f"vLLM failed: {error!r}"[:_MAX_REASON_CHARS])
        return _refusal(error, field)


def _refusal(error: Exception, field: str) -> MeshError:
    parameter = getattr(error, "parameter", None)
    reason = str(error.args[0] if error.args else error)[:_MAX_REASON_CHARS]
    if parameter in _TOO_LONG:
        return TooLargeError(reason, field=field)
    return InvalidRequestError(reason, field=parameter if parameter in checked_fields() else field)


def _classes(module: str, name: str) -> tuple[type[Exception], ...]:
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return ()
    return (found,) if isinstance(found, type) and issubclass(found, Exception) else ()
