"""Runs `mesh` as users do: as a process, against a real nats-server, with the simulator."""

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
import pytest_asyncio

from mesh.cli.main import main
from mesh.server import EmbeddedServer

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0  # for whatever should happen soon; the machine may be busy
MARK = "CLI_TEST_MARK"  # in the environment of a test's processes, and so of all their descendants


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Until `condition` is true; there is no event to wait for in another process."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Running:
    """A `mesh` process that goes on."""

    process: subprocess.Popen[bytes]
    out_file: Path
    err_file: Path

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    @property
    def err(self) -> str:
        return self.err_file.read_text()

    def wait_for(self, text: str, count: int = 1) -> str:
        """Until stdout holds `text`; returns stdout."""

        def there() -> bool:
            return self.out.count(text) >= count or self.process.poll() is not None

        wait_until(there, f"{text!r} in the output of {self.process.args!r}")
        assert self.out.count(text) >= count, f"it ended with {self.process.returncode}:\n{self.out}\n{self.err}"
        return self.out

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Its exit code."""
        return self.process.wait(deadline_s)


class _Screen(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass
class Cli:
    """Starts `mesh` for one test, and knows every process that came of it."""

    folder: Path
    url: str = ""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[Running] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("MESH_") and name not in ("COLUMNS", "LINES")  # of whoever runs the tests
        }
        address = {"MESH_NATS": self.url} if self.url else {}
        return {**own, **address, "PYTHONPATH": str(ROOT), MARK: self.mark, **more}

    def run(
        self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None, deadline_s: float = DEADLINE_S
    ) -> "subprocess.CompletedProcess[str]":
        """A command that ends by itself."""
        return subprocess.run(
            [sys.executable, "-m", "mesh", *arguments],
            input=stdin,
            env=self.environment(**(env or {})),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )

    def screen(self, *arguments: str, columns: int = 80) -> "Ended":
        """The same as `call` in a terminal of so many columns that knows no colours."""
        return self.call(*arguments, env={"COLUMNS": str(columns), "TERM": "dumb"}, out=_Screen())

    def call(
        self,
        *arguments: str,
        stdin: str = "",
        env: dict[str, str] | None = None,
        out: io.StringIO | None = None,
    ) -> "Ended":
        """The same in this process, where imports are paid once; for what no process boundary changes."""
        out, err = out or io.StringIO(), io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        root = list(logging.getLogger().handlers)
        with (
            mock.patch.dict(os.environ, self.environment(**(env or {})), clear=True),
            mock.patch.object(sys, "argv", ["mesh", *arguments]),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(self.folder),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        logging.getLogger().handlers[:] = root
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out.getvalue(), err.getvalue())

    def spawn(self, *arguments: str, env: dict[str, str] | None = None) -> Running:
        """A command that goes on; ended with the test."""
        number = len(self.started)
        out, err = self.folder / f"out-{number}", self.folder / f"err-{number}"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "mesh", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=self.environment(**(env or {})),
                cwd=self.folder,
                start_new_session=True,
            )
        running = Running(process, out, err)
        self.started.append(running)
        return running

    def processes(self, text: str = "") -> list[int]:
        """The pids of every process that came of this test and has `text` in its command line."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        if text in command:
                            found.append(int(folder.name))
        return found

    def wait_gone(self) -> None:
        """Until no process of the test is left."""
        wait_until(lambda: not self.processes(), "every process is gone")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """`mesh` where no NATS is known."""
    yield from _cli(tmp_path, "")


@pytest.fixture
def mesh(tmp_path: Path, nats_url: str) -> Iterator[Cli]:
    """`mesh` that finds a NATS with a mesh (namespace `mesh`), and no worker."""
    yield from _cli(tmp_path, nats_url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A NATS of this module's tests with a mesh declared on it."""
    server = EmbeddedServer(tmp_path_factory.mktemp("nats"))
    await server.start()
    folder = tmp_path_factory.mktemp("init")
    applied = Cli(folder, server.url).run("init", "--apply")
    assert applied.returncode == 0, applied.stderr
    yield server.url
    await server.stop(kill=True)


def _cli(folder: Path, url: str) -> Iterator[Cli]:
    cli = Cli(folder, url)
    yield cli
    for running in cli.started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()
    for pid in cli.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
