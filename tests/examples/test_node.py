"""examples/node, with the official packages from npm."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.examples.programs import EXAMPLES, check_front_door, check_output, missing, output_after_a_cut, output_of
from tests.running import RunningMesh

SOURCE = EXAMPLES / "node"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture(scope="session")
def folder(request: pytest.FixtureRequest) -> Path:
    """The example with its packages installed; kept between runs, for as long as its lock file stands."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("there is no node, or no npm", is_promised=True)
    lock = (SOURCE / "package-lock.json").read_bytes()
    made = request.config.cache.mkdir("node") / hashlib.sha256(lock).hexdigest()[:16]
    made.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json", "mesh.js"):
        shutil.copy(SOURCE / name, made)
    if not (made / "node_modules" / ".package-lock.json").exists():
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode:
            missing(f"npm ci: {done.stderr}", is_promised=True)
    return made


async def test_it_streams_reads_the_stored_result_and_cancels(demo: RunningMesh, folder: Path) -> None:
    out = await output_of(["node", "mesh.js", demo.url, "demo"], folder)
    await check_output(demo, out)
    check_front_door(out)
    assert "finished, 40 tokens, all shown: true" in out


async def test_what_it_misses_while_its_connection_breaks_comes_from_the_journal(
    demo: RunningMesh, folder: Path
) -> None:
    out = await output_after_a_cut(demo, ["node", "mesh.js", "URL", "demo"], folder)
    await check_output(demo, out)
    assert "all shown: true" in out


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (SOURCE / "package-lock.json").read_text()
