"""`mesh top` in a terminal: what it shows, what its keys do, and that the terminal is given back."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from subprocess import Popen

import pyte
import pytest

import mesh as library
from mesh.cli.top.keys import Drain, Pause, Quit, Resume, State, press, read_keys
from mesh.cli.top.tables import Column, Row, Table
from mesh.server import EmbeddedServer
from tests.cli.conftest import Cli, Running, wait_until

# The keys, without a terminal.

QUEUES = Table("queues", (Column("NAME"), Column("JOBS", 5, True)), (), 1)
ROWS = [Row(f"chat/{tier}", (tier, "1"), (tier, 1), "chat") for tier in ("interactive", "standard", "batch")]


def pressed(state: State, *keys: str, table: Table = QUEUES) -> tuple[State, object]:
    action: object = None
    for key in keys:
        state, action = press(state, key, table, ROWS)
    return state, action


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("q", ["q"]),
        ("\x1b[A\x1b[B", ["up", "down"]),
        ("\x1bOA", ["up"]),
        ("\x1b", ["escape"]),
        ("/é\r", ["/", "é", "enter"]),
        ("\x1b[200~", []),
        ("\x1b[1;5Aj", ["j"]),
        ("\t\x1b[Z\x7f", ["tab", "backtab", "backspace"]),
        ("\x00\x01", []),
    ],
)
def test_keys_are_read_from_what_a_terminal_sends(text: str, keys: list[str]) -> None:
    assert read_keys(text) == keys


def test_a_deed_is_asked_first_and_done_after_a_yes() -> None:
    asked, action = pressed(State(), "down", "p")
    assert (asked.mode, asked.pending, action) == ("confirm", Pause("chat/standard"), None)
    assert pressed(asked, "y")[1] == Pause("chat/standard")
    refused, action = pressed(asked, "q")
    assert (refused.mode, refused.pending, action) == ("look", None, None)
    assert pressed(State(), "U", "y")[1] == Resume("chat")
    workers = State(view="workers")
    assert pressed(workers, "d", "y")[1] == Drain("chat/interactive")
    assert pressed(State(), "q")[1] == Quit()


def test_a_deed_that_the_view_has_no_row_for_says_where_there_is_one() -> None:
    state, _ = pressed(State(), "d")
    assert state.mode == "look"
    assert "workers" in state.note
    state, action = press(State(), "p", QUEUES, [])
    assert (state.mode, action) == ("look", None)


def test_what_is_typed_into_the_filter_is_no_command() -> None:
    typing, action = pressed(State(), "/", "q", "p", "backspace", "d")
    assert (typing.pattern, typing.mode, action) == ("qd", "filter", None)
    kept, _ = pressed(typing, "enter")
    assert (kept.pattern, kept.mode) == ("qd", "look")
    assert pressed(kept, "escape")[0].pattern == ""


def test_each_view_keeps_its_own_order() -> None:
    state, _ = pressed(State(), ">", "r")
    assert state.order(QUEUES).is_reversed
    workers = Table("workers", QUEUES.columns, (), 0)
    other, _ = pressed(state, "tab")
    assert (other.view, other.order(workers).is_reversed, other.picked) == ("workers", False, "")


# In a terminal.


@dataclass
class Terminal:
    """A terminal with `mesh top` in it; what it shows is kept by an emulator."""

    process: Popen[bytes]
    master: int
    slave: int
    screen: pyte.Screen
    raw: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        """In a thread: whatever comes, until the terminal closes."""
        stream = pyte.ByteStream(self.screen)
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65536):
                self.raw += data
                stream.feed(data)

    @property
    def lines(self) -> list[str]:
        return list(self.screen.display)

    def send(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        size(self.slave, columns, lines)

    def wait_for(self, text: str) -> list[str]:
        wait_until(lambda: any(text in line for line in self.lines), f"{text!r} in\n" + "\n".join(self.lines))
        return self.lines

    def wait_row(self, *words: str) -> None:
        """Until a line begins with these words, but for those given as ""."""

        def is_there() -> bool:
            found = [line.split() for line in self.lines]
            return any(
                len(row) >= len(words) and all(w in ("", r) for w, r in zip(words, row, strict=False)) for row in found
            )

        wait_until(is_there, f"{words} in\n" + "\n".join(self.lines))

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def wait_given_back(self) -> int:
        """Its exit code; the terminal is as it was before."""
        code = self.process.wait(30)
        wait_until(lambda: b"\x1b[?1049l" in self.raw, "the screen is given back")
        assert self.raw.count(b"\x1b[?1049h") == self.raw.count(b"\x1b[?1049l") == 1
        assert self.raw.rindex(b"\x1b[?25h") > self.raw.rindex(b"\x1b[?25l")
        assert self.echoes
        return code


def size(descriptor: int, columns: int, lines: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextlib.contextmanager
def in_terminal(cli: Cli, *arguments: str) -> Iterator[Terminal]:
    """`mesh top` in a terminal of 80 by 24."""
    master, slave = pty.openpty()
    size(slave, 80, 24)

    def own_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = Popen(
        [sys.executable, "-m", "mesh", "top", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=cli.environment(TERM="xterm-256color"),
        cwd=cli.folder,
        preexec_fn=own_the_terminal,
    )
    terminal = Terminal(process, master, slave, pyte.Screen(80, 24))
    reader = threading.Thread(target=terminal.read, daemon=True)
    reader.start()
    try:
        yield terminal
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        reader.join(10)
        os.close(master)


@pytest.fixture
def worker(mesh: Cli) -> Iterator[Running]:
    """A worker of model `sim`, as slow as a model, called `w-1`."""
    settings = ("--engine", "simulator", "--name", "sim", "--engine-arg", "between_tokens_ms=20")
    running = mesh.spawn("worker", *settings, "--worker-id", "w-1")
    running.wait_for(" ready: ")
    yield running
    running.send(signal.SIGKILL)
    running.wait()
    mesh.call("resume", "sim")


def test_it_shows_the_mesh_and_follows_it(mesh: Cli, worker: Running) -> None:
    with in_terminal(mesh) as terminal, library.blocking.connect(mesh.url, tenant="acme") as client:
        shown = terminal.wait_for("q quit")  # which is drawn last
        assert shown[0].startswith("mesh top  mesh on mesh, nats-server 2.")
        assert shown[5].split()[:3] == ["MODEL/TIER", "*WAITING", "RUNNING"]
        assert "q quit" in shown[23]
        terminal.wait_for("sim/interactive")
        assert not terminal.echoes
        job = client.submit("sim", "Tell me of the sea", max_tokens=2000, tier="batch")
        terminal.wait_row("sim/batch", "0", "1", "-", "", "acme", "1", "open")
        terminal.wait_for("1 running")
        terminal.send("2")
        terminal.wait_row("w-1", "sim", "ready", "[#---------]", "1/64")
        terminal.send("3")
        terminal.wait_row("acme", "1", "100%", "sim/batch", "1")
        job.cancel()
        terminal.wait_for("no tenants")
        terminal.send("q")
        assert terminal.wait_given_back() == 0


def test_it_pauses_resumes_and_drains_after_a_yes(mesh: Cli, worker: Running) -> None:
    with in_terminal(mesh) as terminal:
        terminal.wait_for("sim/interactive")
        terminal.send("/batch\r")
        wait_until(lambda: "sim/interactive" not in "".join(terminal.lines), "the filter holds")
        terminal.send("p")
        terminal.wait_for("pause sim/batch until it is resumed? (y/n)")
        terminal.send("n")
        terminal.wait_for("nothing was done")
        terminal.send("py")
        terminal.wait_for("sim/batch is paused")
        terminal.wait_row("sim/batch", "0", "0", "-", "", "-", "paused")
        terminal.send("uy")
        terminal.wait_for("sim/batch is open")
        assert json.loads(mesh.call("pause", "sim/batch", "--json").stdout)["queues"][0]["was_paused"] is False
        terminal.send("\x1b")
        terminal.send("2")
        terminal.wait_for("w-1")
        terminal.send("dy")
        terminal.wait_for("w-1 takes no more jobs")
        assert worker.wait() == 0
        terminal.wait_for("no workers")


def test_what_was_said_yes_to_is_done_though_the_user_leaves_at_once(mesh: Cli, worker: Running) -> None:
    with in_terminal(mesh) as terminal:
        terminal.wait_for("sim/interactive")
        terminal.send("Pyq")
        assert terminal.wait_given_back() == 0
    queues = json.loads(mesh.call("resume", "sim", "--json").stdout)["queues"]
    assert [each["was_paused"] for each in queues] == [True, True, True]


def test_it_fits_any_size_and_follows_a_resize(mesh: Cli, worker: Running) -> None:
    with in_terminal(mesh) as terminal:
        terminal.wait_for("sim/interactive")
        terminal.resize(120, 40)
        wait_until(lambda: "q quit" in terminal.lines[39], "the last line is the last line")
        assert "sim/batch" in "\n".join(terminal.lines)
        terminal.resize(30, 8)
        wait_until(lambda: terminal.lines[0].startswith("mesh top"), "the first line is the first line")
        wait_until(lambda: "q quit" in terminal.lines[7], "the last line is the last line")
        terminal.send("?")
        terminal.wait_for("any key goes back")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_gives_the_terminal_back(mesh: Cli, number: signal.Signals, code: int) -> None:
    with in_terminal(mesh) as terminal:
        terminal.wait_for("q quit")
        terminal.process.send_signal(number)
        assert terminal.wait_given_back() == code


def test_ctrl_c_leaves(mesh: Cli) -> None:
    with in_terminal(mesh) as terminal:
        terminal.wait_for("q quit")
        terminal.send("\x03")
        assert terminal.wait_given_back() == 130


FAULT = "\n\ndef fault(*given):\n    raise SystemError('planted')\n\n\n"


@pytest.mark.parametrize(("module", "name"), [("mesh.control.status.depth", "rates"), ("mesh.cli.top.keys", "press")])
def test_a_fault_gives_the_terminal_back_and_is_told(mesh: Cli, module: str, name: str) -> None:
    (mesh.folder / "sitecustomize.py").write_text(f"import {module} as broken\n\n{FAULT}broken.{name} = fault\n")
    with in_terminal(with_path(mesh)) as terminal:
        terminal.wait_for("q quit")
        terminal.send("j")
        assert terminal.wait_given_back() == 1
        terminal.wait_for("SystemError: planted")


def with_path(cli: Cli) -> Cli:
    """The same with its folder on Python's path, where a `sitecustomize` is found."""

    class Planted(Cli):
        def environment(self, **more: str) -> dict[str, str]:
            found = super().environment(**more)
            return {**found, "PYTHONPATH": os.pathsep.join((str(self.folder), found["PYTHONPATH"]))}

    return Planted(cli.folder, cli.url, cli.mark)


async def test_it_stays_while_nats_is_away_and_says_so(cli: Cli) -> None:
    server = EmbeddedServer(cli.folder / "nats")
    await server.start()
    cli.url = server.url
    try:
        assert cli.run("init", "--apply", "--model", "sim").returncode == 0
        with in_terminal(cli) as terminal:
            terminal.wait_for("sim/batch")
            await server.stop(kill=True)
            terminal.wait_for("connection")
            assert "sim/batch" in "\n".join(terminal.wait_for("as of "))
            await server.start()
            wait_until(lambda: "as of " not in "".join(terminal.lines), "it is back")
            terminal.send("q")
            assert terminal.wait_given_back() == 0
    finally:
        await server.stop(kill=True)


def test_without_a_terminal_it_names_what_programs_use(mesh: Cli) -> None:
    ended = mesh.run("top")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "`mesh status --json`" in ended.stderr
