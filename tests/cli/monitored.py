"""A `mesh` process seen from outside: its log as values, and its telemetry port."""

import json
import urllib.error
import urllib.request
from typing import Any

from tests.cli.conftest import Running, wait_until


def log_of(running: Running) -> list[dict[str, Any]]:
    """The lines of a JSON log; what other libraries and the command itself print is left out."""
    return [json.loads(line) for line in running.err.splitlines() if line.startswith("{") and line.endswith("}")]


def port_of(running: Running) -> int:
    """Where it answers, once it does."""

    def ports() -> list[int]:
        return [line["port"] for line in log_of(running) if line.get("event") == "telemetry_ready"]

    wait_until(lambda: ports() or running.process.poll() is not None, "it says where its telemetry is")
    assert ports(), running.err
    return ports()[0]


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def readiness(port: int) -> tuple[int, list[str]]:
    """Whether it is ready, and why not."""
    status, body = get(port, "/readyz")
    return status, json.loads(body)["reasons"]


def series(port: int, name: str) -> float:
    """The sum of a metric's series, 0 where there are none."""
    lines = [line for line in get(port, "/metrics")[1].splitlines() if line.startswith((name + "{", name + " "))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
