"""`mesh top`: its keys, its screen against a real mesh, and that a real terminal is given back."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import pyte
import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from mesh.cli.top.app import TopApp
from mesh.cli.top.deeds import Deeds
from mesh.cli.top.feed import Feed
from mesh.cli.top.keys import Cancel, Drain, Pause, Quit, Resume, State, hints, press
from mesh.cli.top.sight import HELP
from mesh.cli.top.tables import Column, Row, Table
from mesh.client.client import Client, connect
from mesh.control.status import snapshot as status
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.job_key import JobKey
from mesh.server import EmbeddedServer
from mesh.worker.options import WorkerOptions
from tests.cli.conftest import Cli, Running, wait_until
from tests.running import MODEL, RunningMesh, running_mesh

# The keys, without a terminal.

QUEUES = Table("queues", (Column("NAME"), Column("JOBS", 5, True)), (), 1)
ROWS = [Row(f"chat/{tier}", (tier, "1"), (tier, 1), "chat") for tier in ("interactive", "standard", "batch")]
JOBS = [Row("acme/j1", ("j1", "1"), ("j1", 1), "chat")]


def pressed(state: State, *keys: str, rows: list[Row] = ROWS) -> tuple[State, object]:
    action: object = None
    for key in keys:
        state, action = press(state, key, QUEUES, rows)
    return state, action


def test_a_deed_is_asked_first_and_done_after_a_yes() -> None:
    asked, action = pressed(State(), "down", "p")
    assert (asked.mode, asked.pending, action) == ("confirm", Pause("chat/standard"), None)
    assert pressed(asked, "y")[1] == Pause("chat/standard")
    refused, action = pressed(asked, "q")
    assert (refused.mode, refused.pending, action) == ("look", None, None)
    assert pressed(State(), "U", "y")[1] == Resume("chat")
    workers = State(view="workers")
    assert pressed(workers, "d", "y")[1] == Drain("chat/interactive")
    assert pressed(State(view="jobs"), "c", "y", rows=JOBS)[1] == Cancel(JobKey("acme", "j1"))
    assert pressed(State(), "q")[1] == Quit()


def test_a_deed_that_the_view_has_no_row_for_says_where_there_is_one() -> None:
    for key, word in (("d", "workers"), ("c", "Enter on a queue")):
        state, _ = pressed(State(), key)
        assert state.mode == "look"
        assert word in state.note
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


def test_enter_opens_the_jobs_of_a_queue_and_one_of_them_and_escape_goes_back() -> None:
    listed, _ = pressed(State(), "down", "enter")
    assert (listed.view, listed.scope.model, listed.scope.tier) == ("jobs", "chat", "standard")
    one, _ = pressed(listed, "enter", rows=JOBS)
    assert (one.view, one.job) == ("job", JobKey("acme", "j1"))
    assert pressed(one, "c", "y")[1] == Cancel(JobKey("acme", "j1"))
    back, _ = pressed(one, "escape", "escape")
    assert (back.view, back.picked) == ("queues", "chat/standard")
    tenant, _ = pressed(State(view="tenants"), "enter", rows=[Row("acme", ("acme", "1"), ("acme", 1))])
    assert (tenant.scope.tenant, tenant.scope.model) == ("acme", None)


def test_the_footer_names_every_key_that_asks_for_something() -> None:
    shown = {view: " ".join(key for key, _ in hints(State(view=view))) for view in ("queues", "workers", "jobs", "job")}
    for view, keys in {"queues": "pPuU", "workers": "dPU", "jobs": "c", "job": "c"}.items():
        assert set(keys) <= set(shown[view])
    assert all({"?", "q"} <= set(keys.split()) for keys in shown.values())


# The screen, against a mesh with a simulator.


@dataclass
class Watched:
    """A mesh with a worker `w-1`, a client of tenant `acme`, and `mesh top` on a screen of 120 by 40."""

    mesh: RunningMesh
    client: Client
    app: TopApp
    pilot: Pilot[BaseException | None]

    def text(self, name: str) -> str:
        """What a part of the screen says; "" if it is hidden."""
        part = self.app.query_one(f"#{name}", Static)
        return str(part.content) if part.display else ""

    def rows(self) -> list[list[str]]:
        table = self.app.query_one("#rows", DataTable)
        return [[str(cell).strip() for cell in table.get_row_at(at)] for at in range(table.row_count)]

    def style(self, row: int, column: int) -> str:
        return str(self.app.query_one("#rows", DataTable).get_row_at(row)[column].style)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def wait_for(self, *texts: str, where: str = "rows") -> None:
        """Until all of them are shown there."""
        try:
            async with asyncio.timeout(30):
                while not all(text in self.seen(where) for text in texts):
                    await self.pilot.pause(0.05)
        except TimeoutError:
            raise AssertionError(f"{texts} not in {where}:\n{self.seen(where)}\n{self.text('trouble')}") from None

    def seen(self, where: str) -> str:
        return "\n".join("  ".join(row) for row in self.rows()) if where == "rows" else self.text(where)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    async with running_mesh(tmp_path / "nats") as mesh:
        settings = SimulatorSettings(model=MODEL, between_tokens_ms=10)
        await mesh.start_worker(settings, WorkerOptions(model=MODEL, name="w-1", grace_s=1))
        async with connect(mesh.url, tenant="acme") as client:
            feed = Feed(mesh.broker, await status.snapshot(mesh.broker))

            async def cancel_job(key: JobKey) -> str:
                return await client.job(key.id).cancel()

            deeds = Deeds(mesh.broker, cancel_job)
            app = TopApp(feed, deeds)
            async with feed.running(), app.run_test(size=(120, 40)) as pilot:
                yield Watched(mesh, client, app, pilot)
                await deeds.finish()


LONG: dict[str, Any] = {"max_tokens": 8000, "ignore_eos": True, "stream": True}


async def test_the_views_show_the_mesh_and_follow_it(watched: Watched) -> None:
    await watched.wait_for(f"{MODEL}/interactive", f"{MODEL}/batch")
    assert watched.text("head").startswith("mesh top  mesh on ")
    job = await watched.client.submit(MODEL, "Tell me of the sea", tier="batch", max_tokens=4000, ignore_eos=True)
    await watched.wait_for("acme 1")
    await watched.wait_for("1 running", where="head")
    await watched.press("2")
    await watched.wait_for("w-1", "[#---------]", "1/64")
    await watched.press("3")
    await watched.wait_for("acme  1  100%")
    await job.cancel()
    await watched.wait_for("no tenants", where="nothing")
    assert watched.rows() == []


async def test_a_queue_leads_to_its_jobs_and_a_job_is_shown_live_and_cancelled(watched: Watched) -> None:
    job = await watched.client.submit(MODEL, "Tell me of the sea", id="long-1", **LONG)
    await watched.wait_for("acme 1")
    await watched.press("slash", *"standard", "enter", "enter")
    await watched.wait_for("long-1", "running", "w-1")
    assert "1 job of simulator/standard" in watched.text("tabs")
    await watched.press("enter")
    await watched.wait_for("state     running, attempt 1 on w-1", "attempts:", "attempt 1 began on w-1", where="detail")
    before = watched.text("output")
    async with asyncio.timeout(30):
        while watched.text("output") in ("", before):
            await watched.pilot.pause(0.05)
    await watched.press("c")
    assert watched.text("foot") == "cancel job long-1 of tenant acme? (y/n)"
    await watched.press("n")
    assert "nothing was done" in watched.text("trouble")
    await watched.press("c", "y")
    assert (await job).status == "cancelled"
    await watched.wait_for("job long-1 is cancelled", where="trouble")
    await watched.wait_for("state     cancelled", where="detail")
    await watched.press("escape")
    await watched.wait_for("no jobs of simulator/standard wait or run", where="nothing")


async def test_models_show_their_last_hour_and_the_time_to_first_token(watched: Watched) -> None:
    for number in range(3):
        await watched.client.generate(MODEL, f"{number}", max_tokens=5)
    await watched.press("4")

    def cells() -> list[str]:
        return next(iter(watched.rows()), [""] * 10)

    async with asyncio.timeout(30):
        while cells()[6] != "3":
            await watched.pilot.pause(0.05)
    titles = ["MODEL", "*WAITING", "RUNNING", "WORKERS", "TOKENS/S", "LAST HOUR", "ENDED", "FAILED", "FIRST", "P95"]
    assert [str(each.label) for each in watched.app.query_one("#rows", DataTable).ordered_columns] == titles
    assert cells()[5] in ("█", "▄█", "█▄", "▃█", "█▃", "▂█", "█▂")  # one bar, or two where two minutes meet
    assert cells()[8].endswith("ms")
    assert any("audit" in line for line in HELP)  # the source is told


async def test_it_pauses_resumes_and_drains_after_a_yes(watched: Watched) -> None:
    await watched.wait_for(f"{MODEL}/batch")
    await watched.press("slash", *"batch", "enter", "p")
    assert watched.text("foot") == f"pause {MODEL}/batch until it is resumed? (y/n)"
    await watched.press("n", "p", "y")
    await watched.wait_for(f"{MODEL}/batch is paused", where="trouble")
    await watched.wait_for("paused")
    assert watched.style(0, 6) == "yellow"
    await watched.press("u", "y")
    await watched.wait_for(f"{MODEL}/batch is open", where="trouble")
    await watched.wait_for("open")
    assert watched.style(0, 6) == ""
    await watched.press("escape", "2", "d", "y")
    await watched.wait_for("w-1 takes no more jobs", where="trouble")
    await watched.wait_for("no workers", where="nothing")
    await watched.client.submit(MODEL, "nobody runs it", **LONG)
    await watched.press("1")
    async with asyncio.timeout(30):
        while "bold red" not in [watched.style(row, 1) for row in range(3)]:
            await watched.pilot.pause(0.05)


async def test_it_fits_any_size_and_the_footer_has_all_keys(watched: Watched) -> None:
    await watched.wait_for(f"{MODEL}/batch")
    for columns, lines in ((200, 60), (80, 24), (30, 10)):
        await watched.pilot.resize_terminal(columns, lines)
        await watched.pilot.pause(0.2)
        foot = watched.app.query_one("#foot", Static)
        assert foot.region.bottom == lines
        table = watched.app.query_one("#rows", DataTable)
        assert table.virtual_size.width <= columns
        assert "q quit" in watched.text("foot")
    await watched.press("question_mark")
    assert watched.text("foot") == "any key back"


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

    def wait_for(self, text: str) -> list[str]:
        wait_until(lambda: any(text in line for line in self.lines), f"{text!r} in\n" + "\n".join(self.lines))
        return self.lines

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
def in_terminal(cli: Cli, **variables: str) -> Iterator[Terminal]:
    """`mesh top` in a terminal of 80 by 24."""
    master, slave = pty.openpty()
    size(slave, 80, 24)

    def own_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = Popen(
        [sys.executable, "-m", "mesh", "top"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=cli.environment(**{"TERM": "xterm-256color", **variables}),
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


def test_what_was_said_yes_to_is_done_though_the_user_leaves_at_once(mesh: Cli, worker: Running) -> None:
    with in_terminal(mesh) as terminal:
        terminal.wait_for("sim/interactive")
        terminal.send("Pyq")
        assert terminal.wait_given_back() == 0
    queues = json.loads(mesh.call("resume", "sim", "--json").stdout)["queues"]
    assert [each["was_paused"] for each in queues] == [True, True, True]


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


def test_colours_are_those_of_the_terminal_and_NO_COLOR_leaves_them_out(mesh: Cli, worker: Running) -> None:
    assert mesh.call("pause", "sim/batch").returncode == 0
    colour = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-7]|38;[25];[\d;]+)(?:;\d+)*m")
    for is_wanted in (True, False):
        variables = {} if is_wanted else {"NO_COLOR": "1"}
        with in_terminal(mesh, **variables) as terminal:
            terminal.wait_for("paused")
            assert bool(colour.search(bytes(terminal.raw))) is is_wanted
            assert b"38;2;" not in terminal.raw
            terminal.send("q")
            assert terminal.wait_given_back() == 0


def test_without_textual_it_names_the_extra_before_it_takes_the_terminal(mesh: Cli) -> None:
    (mesh.folder / "sitecustomize.py").write_text("import sys\nsys.modules['textual'] = None\n")
    with in_terminal(with_path(mesh)) as terminal:
        assert terminal.process.wait(30) == 3
        wait_until(lambda: "pip install 'inference-mesh[top]'" in "".join(terminal.lines), "the extra is named")
        assert b"\x1b[?1049h" not in terminal.raw


def test_without_a_terminal_it_names_what_programs_use(mesh: Cli) -> None:
    ended = mesh.run("top")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "`mesh status --json`" in ended.stderr
