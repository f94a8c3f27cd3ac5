"""What a test may ask for: a real nats-server of its own, a connection, a whole mesh, a client of it.

Property tests try 100 random examples. `CI=true pytest` tries the same 100 on every run, so a red test is a change.
`HYPOTHESIS_PROFILE=thorough pytest tests/property` tries 2000 random ones; do that before a release.
"""

import fcntl
import os
from collections.abc import AsyncIterator, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import mesh as mesh_api
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.client.client import Client
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from tests.running import MODEL, RunningMesh, running_mesh

# None fails for being slow: a busy machine is no reason for a property to fail.
PROFILES: dict[str, dict[str, Any]] = {
    "ci": {"derandomize": True, "max_examples": 100, "database": None},
    "developer": {"max_examples": 100, "print_blob": True},
    "thorough": {"max_examples": 2000, "print_blob": True},
}


def profile_of(environment: Mapping[str, str]) -> str:
    """The profile of hypothesis that the environment asks for: by its name, or because this is CI."""
    return environment.get("HYPOTHESIS_PROFILE") or ("ci" if environment.get("CI") else "developer")


for name, profile in PROFILES.items():
    settings.register_profile(name, deadline=None, suppress_health_check=[HealthCheck.too_slow], **profile)
settings.load_profile(profile_of(os.environ))

# Small, so that a test's server starts with little to declare; one lane, so that an affinity token decides nothing.
SMALL = MeshSettings(lanes=1)


def needs_the_machine(item: pytest.Item) -> bool:
    """A soak judges how soon a mesh recovers: beside other tests it would judge the machine."""
    return item.nodeid.startswith("tests/chaos/test_soak.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that run alone come last, when nobody waits for them; twenty times the examples have time to run."""
    items.sort(key=needs_the_machine)
    if profile_of(os.environ) == "thorough":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.timeout(1200))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """With `-n`, who needs the machine waits for the others to end, before its timeout begins to count."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with Path(__file__).open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX if needs_the_machine(item) else fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            fcntl.flock(turn, fcntl.LOCK_UN)  # a forked engine has the file open still


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With `-n`: who runs beside whom. Most tests wait for processes and clocks, and compute little.

    A module stays together, for it may share a server; but where each test has its own, and takes long, any process
    takes the next one. All that needs vLLM stays together: one engine is loaded, and two would starve each other.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Shared(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            if module.rpartition("/")[2].startswith("test_vllm"):
                return "vllm"
            return nodeid if module.startswith(("tests/chaos/", "tests/integration/")) else module

    return Shared(config, log)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A nats-server with nothing on it."""
    running = EmbeddedServer(tmp_path / "nats")
    await running.start()
    yield running
    await running.stop(kill=True)


@pytest.fixture
async def connection(server: EmbeddedServer) -> AsyncIterator[Connection]:
    """A connection to `server`."""
    async with connect(ConnectOptions(servers=(server.url,), name="test")) as connected:
        yield connected


@pytest.fixture
async def mesh_server(server: EmbeddedServer, connection: Connection) -> EmbeddedServer:
    """`server` with the topology of one model applied: one lane per tier."""
    await topology.apply(connection, await topology.plan(Broker(connection, Names()), SMALL, [MODEL]))
    return server


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """Server, topology and one simulator worker in this process; `mesh.start_worker()` starts more."""
    async with running_mesh(tmp_path / "nats") as running:
        await running.start_worker()
        yield running


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[Client]:
    """A client of `mesh`."""
    async with mesh_api.connect(mesh.url) as connected:
        yield connected
