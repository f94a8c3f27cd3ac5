"""`compose.yaml` and what it mounts: it hangs together, and every query of it means something to a real Prometheus.

No docker engine is needed: the servers, the scripts, Prometheus and the mesh run here as they would there.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.server import EmbeddedServer, find_binary
from tests.cli.conftest import Cli, _cli, wait_until
from tests.deploy.options import click_accepts, settings_of
from tests.deploy.servers import free_port

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/compose"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FOLDER / "grafana/dashboards/mesh.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]] + [rule["expr"] for rule in RULES]
NOT_OURS = {"up", "process_resident_memory_bytes"}


def compose_command() -> list[str] | None:
    """Docker's compose, version 2 or later, however it is installed."""
    for command in (["docker-compose"], ["docker", "compose"]):
        if shutil.which(command[0]) is not None:
            told = subprocess.run([*command, "version"], capture_output=True, text=True, check=False).stdout
            if re.search(r"version v?[2-9]", told):
                return command
    return None


COMPOSE_COMMAND = compose_command()
needs_compose = pytest.mark.skipif(COMPOSE_COMMAND is None, reason="docker compose is not installed")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed")


def mounts(service: dict[str, Any]) -> list[str]:
    return [each.split(":")[0] for each in service.get("volumes", ())]


def test_every_file_that_is_mounted_is_there() -> None:
    named = set(COMPOSE["volumes"])
    for name, service in SERVICES.items():
        for source in mounts(service):
            assert (ROOT / source).exists() if source.startswith("./") else source in named, (name, source)
        if "build" in service:
            build = service["build"]
            dockerfile = (ROOT / build["context"] / build["dockerfile"]).read_text()
            assert re.search(rf"(?m)^FROM .* AS {build['target']}$", dockerfile), name


def test_nothing_is_open_to_other_machines() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_no_service_of_ours_has_more_rights_than_it_needs() -> None:
    ours = [name for name, each in SERVICES.items() if each["image"].startswith(("mesh:", "nats:")) and name != "setup"]
    assert len(ours) > 8
    for name in ours:
        service = SERVICES[name]
        assert service["read_only"], name
        assert service["user"] == "10001:10001", name
        assert service["cap_drop"] == ["ALL"], name


def test_no_image_is_whatever_is_newest() -> None:
    assert [each["image"] for each in SERVICES.values() if not re.search(r":[a-z]*v?\d|^mesh:", each["image"])] == []


def test_every_worker_gets_longer_to_stop_than_it_takes() -> None:
    """Compose kills what has not ended by then; a worker hands back what it could not finish within --grace."""
    for name in ("worker", "worker-gpu"):
        grace_s = float(SERVICES[name]["environment"].get("MESH_GRACE", 30))
        assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= grace_s + 10


@pytest.mark.parametrize("name", [name for name, each in SERVICES.items() if each["image"].startswith("mesh:")])
def test_every_setting_and_command_is_one_that_mesh_has(name: str) -> None:
    service = SERVICES[name]
    command = service.get("command") or []
    if name == "init":
        text = (FOLDER / "declare.sh").read_text()
        command = shlex.split(re.search(r"until mesh (.*);", text)[1])  # type: ignore[index]
    if name in ("mesh", "setup"):
        command = ["generate", "x"]
    environment = {key: settings_of(str(value)) for key, value in service.get("environment", {}).items()}
    click_accepts(command, {key: value for key, value in environment.items() if key.startswith("MESH_")})


def test_prometheus_asks_every_process_that_answers() -> None:
    asked = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"][0]["dns_sd_configs"][0]
    telling = [name for name, each in SERVICES.items() if "MESH_TELEMETRY_PORT" in each.get("environment", {})]
    assert sorted(asked["names"]) == sorted(telling)
    assert {str(asked["port"])} == {SERVICES[name]["environment"]["MESH_TELEMETRY_PORT"] for name in telling}


def metrics_in(query: str) -> set[str]:
    """The metrics that a query names."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|by \([^)]*\)|on \([^)]*\)', " ", query)
    return set(re.findall(r"\b(?:mesh_\w+|up|process_\w+)\b", bare))


def test_every_metric_that_is_asked_for_is_one_that_mesh_has() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "mesh/telemetry").glob("*.py"))
    known = set(re.findall(r'"(mesh_[a-z_]+)"', source))
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_sum", "_count", "_total")}
    asked = set().union(*(metrics_in(query) for query in QUERIES))
    assert len(asked) > 25
    assert asked - known - NOT_OURS == set()


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "action"}


def test_every_panel_says_what_it_shows_and_has_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        taken |= cells
        assert panel["type"] == "row" or panel["description"]


@needs_compose
@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        ([], {"setup", "nats", "init", "worker", "reconcile", "prometheus", "grafana", "otel"}),
        (["--profile", "gpu"], {"worker-gpu", "nats"}),
        (["--env-file", "examples/compose/cluster.env"], {"n1", "n2", "n3", "worker"}),
    ],
)
def test_docker_compose_takes_it(arguments: list[str], runs: set[str]) -> None:
    assert COMPOSE_COMMAND is not None
    read = subprocess.run(
        [*COMPOSE_COMMAND, "-f", "compose.yaml", *arguments, "config", "--format", "json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert read.returncode == 0, read.stderr
    services = json.loads(read.stdout)["services"]
    assert runs <= set(services)
    if "--env-file" in arguments:
        assert services["nats"]["deploy"]["replicas"] == 0
        assert services["init"]["environment"]["MESH_REPLICAS"] == "3"
        assert services["worker"]["environment"]["MESH_NATS"].count("tls://") == 3


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_the_dockerfile_is_in_order() -> None:
    checked = subprocess.run(["hadolint", str(FOLDER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_image_is_made_of_files_that_are_there_and_let_through() -> None:
    """Every copied file exists, and Dockerfile.dockerignore admits it."""
    text = (FOLDER / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", text) for word in line.split()}
    let_through = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    assert copied == let_through
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert len(re.findall(r"(?m)^USER 10001", text)) == 2


def script(name: str, folder: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "MESH_SECRETS": str(folder), "MESH_OWNER": f"{os.getuid()}:{os.getgid()}", **more}
    return subprocess.run(
        ["sh", str(FOLDER / name), *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Return the folder with the secrets of the service `setup`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path / "secrets"
    folder.mkdir()
    made = script("setup.sh", folder)
    assert made.returncode == 0, made.stderr
    return folder


def test_setup_makes_secrets_once_and_keeps_them_to_itself(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert script("setup.sh", secrets).returncode == 0
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
    assert [path.name for path in secrets.iterdir() if path.stat().st_mode & 0o077] == []
    assert "ca.key" not in before
    assert len({before[f"{user}.password"] for user in ("operator", "worker", "client", "cluster")}) == 4


@contextlib.contextmanager
def nats_of_compose(secrets: Path, folder: Path) -> Iterator[str]:
    """The service `nats`, started as compose.yaml starts it but for its ports. Its address."""
    port, monitor = free_port(), free_port()
    binary = folder / "bin"
    binary.mkdir()
    (binary / "nats-server").symlink_to(find_binary())
    (folder / "nats").symlink_to(ROOT / "nats")
    command = [each.replace("/etc/nats", str(folder / "nats")) for each in SERVICES["nats"]["command"]]
    environment = {
        **os.environ,
        "PATH": f"{binary}:{os.environ['PATH']}",
        "MESH_SECRETS": str(secrets),
        "MESH_NATS_STORE": str(folder / "store"),
        "MESH_NATS_SYNC": settings_of(SERVICES["nats"]["environment"]["MESH_NATS_SYNC"]),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", str(FOLDER / "with-secrets.sh"), "nats-server", *command, "-p", str(port), "-m", str(monitor)],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield f"tls://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Cli]:
    (tmp_path / "here").mkdir()
    yield from _cli(tmp_path / "here", "")


def test_the_services_find_each_other(secrets: Path, tmp_path: Path, mesh: Cli) -> None:
    """nats, init, a worker and a client, each with its own password and the certificate that was made."""
    with nats_of_compose(secrets, tmp_path) as url:

        def as_user(name: str) -> dict[str, str]:
            shown = script("with-secrets.sh", secrets, "env", MESH_USER=name)
            found = dict(line.partition("=")[::2] for line in shown.stdout.splitlines())
            keys = [key for key in found if key.startswith("MESH_") and key not in ("MESH_SECRETS", "MESH_OWNER")]
            assert not any("_PASSWORD" in key and key != "MESH_PASSWORD" for key in keys)
            return {"MESH_NATS": url, **{key: found[key] for key in keys}}

        applied = mesh.run("init", "--apply", "--lanes", "1", env=as_user("operator"))
        assert applied.returncode == 0, applied.stderr
        worker = mesh.spawn("worker", "--engine", "simulator", "--name", "demo", env=as_user("worker"))
        worker.wait_for(" ready: ")
        answered = mesh.run("generate", "--max-tokens", "4", "x", env=as_user("client"))
        assert answered.returncode == 0, answered.stderr


@needs_promtool
def test_promtool_takes_rules_and_configuration() -> None:
    for arguments in (["rules", "rules.yml"], ["config", "prometheus.yml"]):
        checked = subprocess.run(["promtool", "check", *arguments], cwd=FOLDER, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """By the history of metrics in rules_test.yml, which lies beside this file."""
    shutil.copy(FOLDER / "rules.yml", tmp_path)
    shutil.copy(Path(__file__).parent / "rules_test.yml", tmp_path)
    tested = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


class Prometheus:
    """A real one, that asks one real process of a mesh."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(FOLDER / "rules.yml")]
        scrape = config["scrape_configs"][0]
        del scrape["dns_sd_configs"]
        scrape["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.log = (folder / "prometheus.log").open("wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def ask(self, path: str, **parameters: str) -> Any:
        where = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(where, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[Any]:
        with contextlib.suppress(OSError):  # it is not up yet
            found: list[Any] = self.ask("query", query=query)["result"]
            return found
        return []

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


# Queries without data on a healthy mesh with the simulator: no GPU, no full cache, no errors, no deaths.
MAY_BE_EMPTY = re.compile("mesh_gpu_|_preemptions|code!=|refused|takeovers|returned|buried|mesh_engine_kv")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
async def test_every_panel_shows_something_of_a_running_mesh(tmp_path: Path, mesh: Cli, server: EmbeddedServer) -> None:
    env = {"MESH_NATS": server.url}
    assert mesh.run("init", "--apply", "--lanes", "1", env=env).returncode == 0
    port = free_port()
    worker = mesh.spawn("worker", "--engine", "simulator", "--name", "demo", "--telemetry-port", str(port), env=env)
    worker.wait_for(" ready: ")
    prometheus = Prometheus(tmp_path, port)
    try:
        wait_until(lambda: prometheus.values("mesh_worker_ready == 1"), "Prometheus has found the worker")
        for tier in ("interactive", "standard"):
            for _ in range(3):  # so that counters rise while they are looked at
                asked = mesh.run("generate", "--tier", tier, "--max-tokens", "20", "x", env=env)
                assert asked.returncode == 0, asked.stderr
        wait_until(lambda: prometheus.values("mesh_polled_timestamp_seconds"), "the queues were read")
        wait_until(lambda: prometheus.values("sum(increase(mesh_jobs_total[30s])) > 0"), "the jobs were counted")
        empty = []
        for panel in PANELS:
            for target in panel["targets"]:
                query = target["expr"].replace("$model", ".*").replace("$__rate_interval", "30s")
                if not prometheus.values(query) and not MAY_BE_EMPTY.search(query):
                    empty.append((panel["title"], query))
        assert empty == []

        def rules() -> list[Any]:
            return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

        assert len(rules()) == len(RULES)
        wait_until(lambda: {rule["health"] for rule in rules()} == {"ok"}, "every rule was evaluated")
        assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []
    finally:
        prometheus.close()
