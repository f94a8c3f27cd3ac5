"""nats-servers on the configurations of `nats/`, as an operator starts them: the file itself, the test's own ports."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mesh.server import die_with, find_binary
from tests.cli.conftest import wait_until

NATS = Path(__file__).parents[2] / "nats"
PASSWORDS = {
    "MESH_OPERATOR_PASSWORD": "operator-secret",
    "MESH_WORKER_PASSWORD": "worker-secret",
    "MESH_CLIENT_PASSWORD": "client-secret",
    "MESH_CLUSTER_PASSWORD": "cluster-secret",
    "MESH_EDGE_PASSWORD": "edge-secret",
}

# Below the ports of outgoing connections. Otherwise a client that retries a dead server's port could get that port for
# its own end, and the server could not start again.
PORTS = range(20_000, 32_000)
_given: set[int] = set()  # by this process: a cluster's nine ports are drawn before any is listened on


def free_port() -> int:
    """A TCP port on loopback that nobody listens on just now, and that no connection will take meanwhile."""
    while True:
        port = random.choice(PORTS)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


@dataclass
class ConfServer:
    """One server on one configuration."""

    conf: str  # below nats/
    folder: Path
    environment: Mapping[str, str]
    scheme: str = "nats"
    port: int = field(default_factory=free_port)
    monitor: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def argv(self) -> list[str]:
        ports = ["-p", str(self.port), "--http_port", str(self.monitor)]
        return [str(find_binary()), "-c", str(NATS / self.conf), *ports]

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
        store = {"MESH_NATS_STORE": str(self.folder / "store"), "MESH_NATS_SYNC": "120s"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                env={**own, **store, **self.environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=partial(die_with, os.getpid()),
            )
        wait_until(self._answers, f"{self.conf} accepts connections: {self.log}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.conf} did not start: {self.log}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            return connection.recv(5) == b"INFO "
        return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it. Idempotent."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None


@contextlib.contextmanager
def running(*servers: ConfServer) -> Iterator[None]:
    """All of them, for as long as the context lasts."""
    try:
        for each in servers:
            each.start()
        yield
    finally:
        for each in servers:
            each.stop(signal.SIGKILL)


def cluster(folder: Path, environment: Mapping[str, str]) -> list[ConfServer]:
    """Three servers that find each other on this machine."""
    routes = [free_port() for _ in range(3)]
    password = environment["MESH_CLUSTER_PASSWORD"]
    where = json.dumps([f"nats-route://route:{password}@127.0.0.1:{port}" for port in routes])
    return [
        ConfServer(
            f"cluster/n{number}.conf",
            folder / f"n{number}",
            {**environment, "MESH_CLUSTER_LISTEN": f"127.0.0.1:{port}", "MESH_CLUSTER_ROUTES": where},
            scheme="tls",
        )
        for number, port in enumerate(routes, 1)
    ]
