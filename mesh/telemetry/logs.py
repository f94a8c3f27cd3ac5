"""Formats log lines for people and for machines, with the fields `event`, `job`, `attempt` and `worker`.

The mesh logs no prompt, output or secret at any level. Fields that other libraries attach to a record are left out,
because they may contain one.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Literal

Format = Literal["text", "kv", "json"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# The fields that the mesh attaches to a record; all others are left out.
FIELDS = ("event", "job", "tenant", "model", "tier", "attempt", "worker", "status", "code", "reason", "tokens", "port")
MOST_CHARS = 2000  # of one value; an error from a peer can have any length

Value = str | int | float | bool


def set_up(level: str, how: Format, worker: str = "") -> None:
    """Log to stderr. Every line names `worker`, unless it is empty."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(how, worker))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def formatter(how: Format, worker: str = "") -> logging.Formatter:
    """Return the formatter for a format."""
    match how:
        case "text":
            return logging.Formatter(TEXT)
        case "kv":
            return _KeyValue(worker)
        case "json":
            return _Json(worker)


class _Structured(logging.Formatter):
    """Formats each record as exactly one line."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def pairs(self, record: logging.LogRecord) -> dict[str, Value]:
        """Return the record's fields, in the order of the line."""
        instant = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        found: dict[str, Value] = {
            "time": instant.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MOST_CHARS],
        }
        if self._worker:
            found["worker"] = self._worker
        for name in FIELDS:
            value = getattr(record, name, None)
            if isinstance(value, str | int | float):
                found[name] = value[:MOST_CHARS] if isinstance(value, str) else value
        if record.exc_info and record.exc_info[0] is not None:
            found["error"] = record.exc_info[0].__name__
            found["traceback"] = self.formatException(record.exc_info)
        return found


class _Json(_Structured):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.pairs(record), ensure_ascii=False)


class _KeyValue(_Structured):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_plain(value)}" for key, value in self.pairs(record).items())


def _plain(value: Value) -> str:
    """Return a value in logfmt; quoted if it has spaces, quotes, `=`, `\\` or unprintable characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and not any(char in ' ="\\' or not char.isprintable() for char in text):
        return text
    return json.dumps(text, ensure_ascii=False)
