"""examples/go and examples/java, where the machine has what they need; they are there to be read."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.examples.programs import EXAMPLES, check_front_door, check_output, missing, output_after_a_cut, output_of
from tests.running import RunningMesh

GO_SOURCES = Path("/usr/share/gocode")  # of Debian's golang-github-nats-io-go-nats-dev
pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go example, compiled with the nats.go of Debian."""
    if shutil.which("go") is None or not (GO_SOURCES / "src/github.com/nats-io/nats.go").exists():
        missing("there is no Go, or no nats.go", is_promised=False)
    path = tmp_path_factory.mktemp("go")
    (path / "src" / "client").mkdir(parents=True)
    shutil.copy(EXAMPLES / "go" / "main.go", path / "src" / "client")
    environment = {"GO111MODULE": "off", "GOPATH": f"{path}:{GO_SOURCES}", "GOFLAGS": ""}
    command = ["go", "build", "-o", str(path / "client"), "client"]
    subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=100)
    return path / "client"


async def test_the_go_client_streams_reads_the_stored_result_and_cancels(demo: RunningMesh, go_client: Path) -> None:
    out = await output_of([str(go_client), demo.url, "demo"], go_client.parent)
    await check_output(demo, out)
    check_front_door(out)


async def test_what_the_go_client_misses_comes_from_the_journal(demo: RunningMesh, go_client: Path) -> None:
    out = await output_after_a_cut(demo, [str(go_client), "URL", "demo"], go_client.parent)
    await check_output(demo, out)


async def test_the_java_client_streams_reads_the_stored_result_and_cancels(demo: RunningMesh) -> None:
    if shutil.which("java") is None:
        missing("there is no Java", is_promised=False)
    out = await output_of(["java", "Mesh.java", "127.0.0.1", str(demo.server.port), "demo"], EXAMPLES / "java")
    await check_output(demo, out)
