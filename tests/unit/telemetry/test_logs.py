"""Structured logs have one line for each record, with only the fields of the mesh."""

import json
import logging
import sys
from typing import Literal

import pytest

from mesh.telemetry.logs import MOST_CHARS, formatter


def record(message: str = "job %s ended", *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("mesh.worker", logging.INFO, "file.py", 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


def test_json_has_the_message_and_what_it_is_about() -> None:
    shown = json.loads(
        formatter("json", "w-1").format(record("job %s ended", "j1", event="ended", job="j1", attempt=2))
    )
    assert shown["message"] == "job j1 ended"
    assert (shown["level"], shown["logger"], shown["worker"]) == ("info", "mesh.worker", "w-1")
    assert (shown["event"], shown["job"], shown["attempt"]) == ("ended", "j1", 2)
    assert shown["time"].endswith("Z")


def test_a_record_that_names_a_worker_means_another() -> None:
    assert json.loads(formatter("json", "w-1").format(record("gone", worker="w-2")))["worker"] == "w-2"


def test_what_others_attach_to_a_record_is_left_out() -> None:
    for how in ("json", "kv"):
        assert "PROMPT" not in formatter(how).format(record("hello", prompt="PROMPT", args_of_request={"x": "PROMPT"}))


@pytest.mark.parametrize("how", ["kv", "json"])
def test_a_line_stays_one_line(how: Literal["kv", "json"]) -> None:
    assert "\n" not in formatter(how).format(record("two\nlines\u2028here", reason="a\r\nb"))


def test_key_value_quotes_only_what_needs_it() -> None:
    line = formatter("kv").format(record("it is here", event="plain", reason='a "b"', code=""))
    assert " event=plain " in line
    assert 'message="it is here"' in line
    assert 'reason="a \\"b\\""' in line
    assert 'code=""' in line


def test_an_error_is_told_with_its_traceback_on_the_same_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        made = record("it failed")
        made.exc_info = sys.exc_info()
    shown = json.loads(formatter("json").format(made))
    assert shown["error"] == "ValueError"
    assert "broken" in shown["traceback"]


def test_a_long_text_is_cut() -> None:
    assert len(json.loads(formatter("json").format(record("x" * 100_000)))["message"]) == MOST_CHARS


def test_text_is_what_people_read() -> None:
    assert formatter("text").format(record("job %s ended", "j1")).endswith(" INFO mesh.worker: job j1 ended")
