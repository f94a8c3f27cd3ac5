"""The wheel alone, in an environment of its own: its types are found, right programs pass, and mistakes are shown."""

import asyncio
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.engines.simulator.settings import SimulatorSettings
from mesh.worker.worker import WorkerOptions
from tests.running import running_mesh
from tests.types import wrong

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("program.py")
SOURCE, PLACES = wrong.program()
Errors = dict[str, dict[int, str]]  # by file and line, the last one there

CHECK_S = 240  # for one checker, on a machine with more to do

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * CHECK_S)]


def run(*command: str, cwd: Path = ROOT, fails: bool = False) -> str:
    """The output of a command that sees neither this checkout nor settings of the one who runs the tests."""
    hidden = ("PYTHONPATH", "MYPYPATH", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"  # it would ask the network for a newer version
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_S, check=False, cwd=cwd, env=env)
    assert fails or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    return next(folder.glob("inference_mesh-*.whl"))


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in `env` with the wheel in it, and the two programs. Dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "env", with_pip=False)
    site = next((folder / "env" / "lib").glob("python3.*")) / "site-packages"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(site), str(wheel))
    others = [each for each in sys.path if Path(each).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(others) + "\n")
    (folder / "right.py").write_text(PROGRAM.read_text())
    (folder / "wrong.py").write_text(SOURCE)
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "exclude": ["env"]}')
    return folder


def python_of(place: Path) -> str:
    return str(place / "env" / "bin" / "python")


def errors_of_mypy(place: Path) -> Errors:
    files = ("right.py", "wrong.py")
    options = ("--strict", "--python-executable", python_of(place), "--cache-dir", str(place / "cache"))
    text = run(sys.executable, "-m", "mypy", *options, *files, cwd=place, fails=True)
    found: Errors = {}
    for line in text.splitlines():
        if match := re.match(r"(?P<file>[^:]+):(?P<line>\d+): error: (?P<text>.*)", line):
            found.setdefault(match["file"], {})[int(match["line"])] = match["text"]
    assert "Found" in text or "Success" in text, text
    return found


def errors_of_pyright(place: Path) -> Errors:
    text = run(sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", python_of(place), cwd=place, fails=True)
    report = json.loads(text)
    assert report["summary"]["filesAnalyzed"] == 2, text
    found: Errors = {}
    for each in report["generalDiagnostics"]:
        if each["severity"] == "error":
            line = each["range"]["start"]["line"] + 1
            found.setdefault(Path(each["file"]).name, {})[line] = each["message"]
    return found


CHECKERS: dict[str, Callable[[Path], Errors]] = {"mypy": errors_of_mypy, "pyright": errors_of_pyright}


@pytest.fixture(scope="module", params=CHECKERS)
def found(request: pytest.FixtureRequest, place: Path) -> Errors:
    """What one checker says of both programs."""
    return CHECKERS[request.param](place)


def test_the_wheel_says_that_it_is_typed(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "mesh/py.typed" in names
    assert not [name for name in names if name.startswith("tests/")]


def test_what_is_imported_is_the_wheel(place: Path) -> None:
    shown = run(python_of(place), "-c", "import mesh; print(mesh.__file__)", cwd=place)
    assert Path(shown.strip()).is_relative_to(place)


def test_a_right_program_has_no_error(found: Errors) -> None:
    assert found.get("right.py", {}) == {}


@pytest.mark.parametrize("line", PLACES, ids=PLACES.values())
def test_a_mistake_is_shown_where_it_stands(found: Errors, line: int) -> None:
    assert line in found["wrong.py"], SOURCE.splitlines()[line - 1]


def test_nothing_else_is_wrong(found: Errors) -> None:
    assert {line: text for line, text in found["wrong.py"].items() if line not in PLACES} == {}


async def test_the_right_program_runs(place: Path, tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as running:
        settings = SimulatorSettings(model="demo", first_token_ms=1, between_tokens_ms=1)
        await running.start_worker(settings, WorkerOptions(model="demo", grace_s=5))
        shown = await asyncio.to_thread(run, python_of(place), "-W", "error", "right.py", running.url, cwd=place)
    assert "FINISHED" in shown
