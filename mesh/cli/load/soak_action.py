"""`mesh soak`: run it, show how it goes, print what it came to."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mesh.cli.terminal import render
from mesh.errors import ConfigError
from mesh.verify.soak import report
from mesh.verify.soak import run as stage


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """The option values of `mesh soak`."""

    requests: int
    seed: int
    workers: int
    servers: int
    ack_wait_s: float | None
    data: Path | None
    json_file: Path | None


async def run(order: SoakOptions) -> bool:
    """Runs the whole soak. Returns whether every promise was kept.

    Raises:
        ConfigError: the folder cannot be used, or a server does not start.
        EngineDeadError, BrokerError: the mesh does not get up.
    """
    with _folder(order.data) as folder:
        outcome = await stage.soak(
            stage.SoakSettings(
                folder=folder,
                requests=order.requests,
                seed=order.seed,
                workers=order.workers,
                servers=order.servers,
                ack_wait_s=order.ack_wait_s,
            ),
            render.event,
        )
    for line in report.lines_of(outcome.figures):
        render.say(line)
    if outcome.violations:
        render.say()
        for line in report.lines_of_violations(outcome.violations):
            render.say(render.harmless(line))
    if order.json_file is not None:
        _write(order.json_file, outcome)
    return not outcome.violations


@contextlib.contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    """Where the run keeps its files.

    Raises:
        ConfigError: it is not empty, or cannot be made.
    """
    if data is None:
        with tempfile.TemporaryDirectory(prefix="mesh-soak-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    try:
        data.mkdir(parents=True, exist_ok=True)
        is_empty = not any(data.iterdir())
    except OSError as error:
        raise ConfigError(f"--data {data} cannot be used: {error.strerror}", key="data") from None
    if not is_empty:
        raise ConfigError(f"--data {data} is not empty; give a new or empty folder", key="data")
    yield data.resolve()


def _write(file: Path, outcome: stage.SoakOutcome) -> None:
    body = msgspec.json.format(
        msgspec.json.encode({"schema": render.SCHEMA, **report.as_json(outcome.figures, outcome.violations)}), indent=1
    )
    try:
        file.write_bytes(body + b"\n")
    except OSError as error:
        raise ConfigError(f"--json {file} cannot be written: {error.strerror}", key="json") from None
