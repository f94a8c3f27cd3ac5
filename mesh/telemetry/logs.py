"""Log lines for people and for machines: what happened (`event`), to which `job`, in which `attempt` and `worker`.

Set up by the command line. Nothing in mesh logs a prompt, an output or a secret, at any level; what other libraries
attach to a record is left out here, since nobody can say so of them.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Literal

Format = Literal["text", "kv", "json"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# What mesh gives with a record; anything else attached to it is not ours.
FIELDS = ("event", "job", "tenant", "model", "tier", "attempt", "worker", "status", "code", "reason", "tokens", "port")
MOST_CHARS = 2000  # of one value; an error of a peer may hold anything

Value = str | int | float | bool


def set_up(level: str, how: Format, worker: str = "") -> None:
    """Log to stderr. `worker` is named in every line, where there is one."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(how, worker))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def formatter(how: Format, worker: str = "") -> logging.Formatter:
    """What makes lines of records."""
    match how:
        case "text":
            return logging.Formatter(TEXT)
        case "kv":
            return _KeyValue(worker)
        case "json":
            return _Json(worker)


class _Structured(logging.Formatter):
    """One line for a record, whatever its message holds."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def pairs(self, record: logging.LogRecord) -> dict[str, Value]:
        """What there is to say, in the order in which it is read."""
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
    """A value as logfmt has it: quoted where it would not end at its last character."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and not any(char in ' ="\\' or not char.isprintable() for char in text):
        return text
    return json.dumps(text, ensure_ascii=False)
