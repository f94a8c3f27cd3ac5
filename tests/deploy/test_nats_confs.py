"""Each configuration in `nats/`, on real servers, with a mesh on them that `mesh` itself declares, serves and asks."""

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Running, _cli, wait_until
from tests.deploy.pki import Authority
from tests.deploy.servers import NATS, PASSWORDS, ConfServer, cluster, free_port, running

CONFS = sorted(NATS.rglob("*.conf"))
PROMPT = ("--model", "demo", "--max-tokens", "12", "--temperature", "0", "Once upon a time")
ANSWER = "The shore waits, and sings gladly."


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Cli]:
    (tmp_path / "here").mkdir()
    yield from _cli(tmp_path / "here", "")


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, str]:
    """The variables of tls.conf, with a certificate of an authority of the test's own."""
    authority = Authority(tmp_path / "pki")
    pair = authority.issue("nats.test")
    return {"MESH_NATS_CERT": str(pair.cert), "MESH_NATS_KEY": str(pair.key), "MESH_NATS_CA": str(authority.ca)}


def as_user(name: str, *servers: ConfServer, ca: str = "") -> dict[str, str]:
    """The environment in which `mesh` is this user."""
    found = {
        "MESH_NATS": ",".join(each.url for each in servers),
        "MESH_USER": name,
        "MESH_PASSWORD": PASSWORDS[f"MESH_{name.upper()}_PASSWORD"],
    }
    return found | ({"MESH_TLS_CA": ca} if ca else {})


def declare(mesh: Cli, *servers: ConfServer, ca: str = "", replicas: int = 1) -> None:
    """Declare the mesh, as soon as the servers have found each other."""

    def done() -> bool:
        env = as_user("operator", *servers, ca=ca)
        return mesh.run("init", "--apply", "--replicas", str(replicas), "--lanes", "1", env=env).returncode == 0

    wait_until(done, "the mesh is declared", 60)


def serve(mesh: Cli, *servers: ConfServer, ca: str = "") -> Running:
    worker = mesh.spawn("worker", "--engine", "simulator", "--name", "demo", env=as_user("worker", *servers, ca=ca))
    worker.wait_for(" ready: ")
    return worker


def ask(mesh: Cli, *servers: ConfServer, ca: str = "") -> None:
    answered = mesh.run("generate", *PROMPT, env=as_user("client", *servers, ca=ca))
    assert answered.stdout.startswith(ANSWER), answered.stderr
    assert answered.returncode == 0


def no_violation(*servers: ConfServer) -> bool:
    """Whether nobody was refused anything."""
    return not any("Violation" in each.log for each in servers)


def test_single(mesh: Cli, tmp_path: Path) -> None:
    server = ConfServer("single.conf", tmp_path / "nats", PASSWORDS)
    with running(server):
        declare(mesh, server)
        worker = serve(mesh, server)
        ask(mesh, server)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert no_violation(server)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_strict_keeps_events_in_memory_and_a_worker_brings_them_back(mesh: Cli, tmp_path: Path) -> None:
    """Their stream is gone with a server that restarts; the worker's user may declare that one again."""
    server = ConfServer("single.conf", tmp_path / "nats", {**PASSWORDS, "MESH_NATS_SYNC": "always"})
    with running(server):
        operator = as_user("operator", server)
        applied = mesh.run("init", "--apply", "--profile", "strict", "--lanes", "1", env=operator)
        assert applied.returncode == 0, applied.stderr
        assert _monitor(server, "varz")["jetstream"]["config"]["sync_always"]
        serve(mesh, server)
        ask(mesh, server)
        server.stop(signal.SIGKILL)
        server.start()
        wait_until(lambda: "MESH_EVENTS" in _streams(server), "the stream is there again")
        ask(mesh, server)


def test_tls(mesh: Cli, tmp_path: Path, tls: dict[str, str]) -> None:
    server = ConfServer("tls.conf", tmp_path / "nats", {**PASSWORDS, **tls}, scheme="tls")
    with running(server):
        declare(mesh, server, ca=tls["MESH_NATS_CA"])
        serve(mesh, server, ca=tls["MESH_NATS_CA"])
        ask(mesh, server, ca=tls["MESH_NATS_CA"])
        refused = mesh.run("status", env=as_user("operator", server))
        assert (refused.returncode, refused.stdout) == (3, "")
        assert "--tls-ca" in refused.stderr


def test_clear_text_to_another_machine_is_exit_3(mesh: Cli) -> None:
    refused = mesh.run("status", "--nats", "nats://mesh:hunter2@10.0.0.5:4222")
    assert refused.returncode == 3
    assert "nats://10.0.0.5:4222 is another machine" in refused.stderr
    assert "hunter2" not in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_cluster_goes_on_without_a_node(mesh: Cli, tmp_path: Path, tls: dict[str, str]) -> None:
    servers = cluster(tmp_path, {**PASSWORDS, **tls})
    ca = tls["MESH_NATS_CA"]
    with running(*servers):
        declare(mesh, *servers, ca=ca, replicas=3)
        serve(mesh, *servers, ca=ca)
        ask(mesh, *servers, ca=ca)
        leader = next(each for each in servers if _leads(each, "MESH_REQUESTS"))
        leader.stop(signal.SIGKILL)
        left = [each for each in servers if each is not leader]
        wait_until(
            lambda: mesh.run("generate", *PROMPT, env=as_user("client", *left, ca=ca)).stdout.startswith(ANSWER),
            "the two that are left answer",
            60,
        )
        leader.start()
        wait_until(lambda: "MESH_REQUESTS" in _streams(leader), "the third is back")


@pytest.mark.parametrize("lacks", ["the password", "the certificate"])
def test_a_stranger_joins_no_cluster(tmp_path: Path, tls: dict[str, str], lacks: str) -> None:
    first, second, _ = cluster(tmp_path, {**PASSWORDS, **tls})
    theirs = dict(second.environment)
    if lacks == "the password":
        theirs["MESH_CLUSTER_PASSWORD"] = "a-guess"
        theirs["MESH_CLUSTER_ROUTES"] = theirs["MESH_CLUSTER_ROUTES"].replace("cluster-secret", "a-guess")
    else:
        own = Authority(tmp_path / "other")
        pair = own.issue("nats.test")
        theirs |= {"MESH_NATS_CERT": str(pair.cert), "MESH_NATS_KEY": str(pair.key), "MESH_NATS_CA": str(own.ca)}
    second.environment = theirs
    with running(first, second):
        refusal = "Authorization Violation|authentication error|TLS route handshake error"
        wait_until(lambda: len(re.findall(refusal, first.log)) > 2, "it is refused, again and again")
        # A route that is being refused counts until the refusal has arrived. One that was taken would stay.
        wait_until(lambda: _monitor(first, "routez")["num_routes"] == 0, "no route stays")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_leaf(mesh: Cli, tmp_path: Path, tls: dict[str, str]) -> None:
    """A worker that knows only the server at its edge serves a client that knows only the hub."""
    leaf_port = free_port()
    hub = ConfServer(
        "hub.conf",
        tmp_path / "hub",
        {**PASSWORDS, **tls, "MESH_LEAF_LISTEN": f"127.0.0.1:{leaf_port}"},
        scheme="tls",
    )
    secret = PASSWORDS["MESH_EDGE_PASSWORD"]
    edge = {
        **PASSWORDS,
        "MESH_HUB_URL": f"tls://edge:{secret}@127.0.0.1:{leaf_port}",
        "MESH_NATS_CA": tls["MESH_NATS_CA"],
    }
    leaf = ConfServer("leaf.conf", tmp_path / "leaf", edge)
    ca = tls["MESH_NATS_CA"]
    with running(hub, leaf):
        declare(mesh, hub, ca=ca)
        wait_until(lambda: _monitor(leaf, "leafz")["leafnodes"] == 1, "the edge has found its hub")
        worker = serve(mesh, leaf)
        ask(mesh, hub, ca=ca)
        hub.stop(signal.SIGKILL)
        hub.start()
        wait_until(lambda: _monitor(leaf, "leafz")["leafnodes"] == 1, "it has found it again")
        ask(mesh, hub, ca=ca)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0


@pytest.mark.parametrize("conf", ["single.conf", "tls.conf", "hub.conf", "leaf.conf", "cluster/n1.conf"])
def test_no_secret_can_be_read_from_outside(tmp_path: Path, tls: dict[str, str], conf: str) -> None:
    """Neither in the process list nor on the monitoring page, which is on this machine only."""
    edge = {"MESH_LEAF_LISTEN": f"127.0.0.1:{free_port()}", "MESH_HUB_URL": "tls://edge:edge-secret@127.0.0.1:1"}
    server = ConfServer(conf, tmp_path / "nats", {**PASSWORDS, **tls, **edge})
    if conf.startswith("cluster"):
        server = cluster(tmp_path, server.environment)[0]
    with running(server):
        assert server.process is not None
        seen = Path(f"/proc/{server.process.pid}/cmdline").read_text()
        shown = json.dumps([_monitor(server, page) for page in ("varz", "connz?auth=1", "routez", "leafz", "jsz")])
        assert _monitor(server, "varz")["http_host"] == "127.0.0.1"
        assert [each for each in PASSWORDS.values() if each in seen + shown + server.log] == []


@pytest.mark.parametrize("conf", CONFS, ids=[str(each.relative_to(NATS)) for each in CONFS])
def test_no_configuration_opens_more_than_it_should(conf: Path) -> None:
    """These settings have made servers insecure before: anonymous users, deny lists, extra listeners, secrets."""
    text = re.sub(r"(?m)#.*$", "", conf.read_text())
    for word in ("no_auth_user", "allow_responses", "websocket", "mqtt", "deny", "no_tls", "insecure", "allow_non_tls"):
        assert word not in text
    assert re.findall(r"(?:password|token)\s*:\s*(?!\$)\S+", text) == []
    assert re.findall(r"(?m)^https?(?:_port)?\s*:(?!\s*\"127\.0\.0\.1:)", text) == []


@pytest.mark.parametrize("conf", ["single.conf", "tls.conf", "leaf.conf", "cluster/n2.conf"])
def test_nobody_comes_in_without_a_password(mesh: Cli, tmp_path: Path, tls: dict[str, str], conf: str) -> None:
    edge = {"MESH_HUB_URL": "tls://edge:edge-secret@127.0.0.1:1"}
    server = ConfServer(conf, tmp_path / "nats", {**PASSWORDS, **tls, **edge})
    if conf.startswith("cluster"):
        server = cluster(tmp_path, server.environment)[1]
    elif conf == "tls.conf":
        server.scheme = "tls"
    with running(server):
        refused = mesh.run("workers", env={"MESH_NATS": server.url} | _trust(server, tls))
        assert refused.returncode == 3
        assert "--user" in refused.stderr


def _trust(server: ConfServer, tls: dict[str, str]) -> dict[str, str]:
    return {"MESH_TLS_CA": tls["MESH_NATS_CA"]} if server.scheme == "tls" else {}


def _monitor(server: ConfServer, page: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.monitor}/{page}", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _accounts(server: ConfServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _monitor(server, "jsz?streams=true").get("account_details") or []
    return found


def _streams(server: ConfServer) -> set[str]:
    return {each["name"] for account in _accounts(server) for each in account.get("stream_detail", ())}


def _leads(server: ConfServer, stream: str) -> bool:
    name = _monitor(server, "varz")["server_name"]
    return any(
        each["name"] == stream and each["cluster"]["leader"] == name
        for account in _accounts(server)
        for each in account.get("stream_detail", ())
    )
