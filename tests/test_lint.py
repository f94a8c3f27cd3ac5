"""Format, lint and types of the whole repository: the package, its tests and the examples.

`pyproject.toml` has the rules. Each command can be run by hand from the root, as it stands in COMMANDS.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "ruff check": ["ruff", "check", "--no-fix", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy", "--no-color-output"],
}
DEADLINE_S = 600  # mypy without its cache, on a machine that runs all the other tests


@pytest.mark.slow
@pytest.mark.timeout(DEADLINE_S + 30)
@pytest.mark.parametrize("name", COMMANDS)
def test_the_repository_passes(name: str, request: pytest.FixtureRequest) -> None:
    command = [sys.executable, "-m", *COMMANDS[name]]
    if name == "mypy":  # a cache of its own: whoever runs mypy by hand meanwhile is not in its way
        command += ["--cache-dir", str(request.config.cache.mkdir("mypy"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if done.returncode:
        pytest.fail(
            f"{' '.join(COMMANDS[name])}: exit code {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False
        )
