"""The manifests: whole by the published schemas where those are installed, and one with what `mesh` and NATS do here.

The values for KEDA come from a real server.
"""

import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mesh.server import find_binary
from tests.cli.conftest import Cli, cli, wait_until
from tests.deploy.options import click_accepts
from tests.deploy.pki import Authority
from tests.deploy.servers import PASSWORDS, ConfServer, free_port, running

__all__ = ["cli"]  # the fixture

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
OBJECTS: list[dict[str, Any]] = [each for file in FILES for each in yaml.safe_load_all(file.read_text())]
CONTROLLERS = [each for each in OBJECTS if each["kind"] in ("Deployment", "StatefulSet", "Job")]
PODS = {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in CONTROLLERS}
CONTAINERS = {name: pod["containers"][0] for name, pod in PODS.items()}
OF_MESH = {name: each for name, each in CONTAINERS.items() if each["image"].startswith("mesh:")}
SCALED = next(each for each in OBJECTS if each["kind"] == "ScaledObject")


def named(kind: str, name: str) -> dict[str, Any]:
    return next(each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name))


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Return the environment of a container, with a placeholder for secrets and fields."""
    found = {each["name"]: each.get("value", "filled-in") for each in container.get("env", ())}
    for each in container.get("envFrom", ()):
        found |= named("ConfigMap", each["configMapRef"]["name"])["data"]
    return found


def parsed(name: str) -> click.Context:
    """The container's command line and environment, as `mesh` parses them."""
    container = OF_MESH[name]
    env = environment(container)
    arguments = [re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], each) for each in container["args"]]
    return click_accepts(arguments, {key: value for key, value in env.items() if key.startswith("MESH_")})


@pytest.mark.parametrize("name", sorted(OF_MESH))
def test_every_argument_and_setting_is_one_that_mesh_has(name: str) -> None:
    given = parsed(name).params
    assert given["nats"] == ("tls://mesh-nats:4222",)
    assert given["password"] == "filled-in"
    assert str(given["tls_ca"]) == "/etc/mesh/tls/ca.crt"


@pytest.mark.skipif(shutil.which("kubernetes-validate") is None, reason="kubernetes-validate is not installed")
@pytest.mark.parametrize("file", [file for file in FILES if file.name != "keda.yaml"], ids=lambda file: file.name)
def test_the_schemas_of_kubernetes_are_kept(file: Path) -> None:
    checked = subprocess.run(
        ["kubernetes-validate", "--strict", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("controller", CONTROLLERS, ids=lambda each: str(each["metadata"]["name"]))
def test_every_selector_selects_its_own_pods(controller: dict[str, Any]) -> None:
    labels = controller["spec"]["template"]["metadata"]["labels"]
    selector = controller["spec"].get("selector", {"matchLabels": {}})["matchLabels"]
    assert selector.items() <= labels.items()


@pytest.mark.parametrize("name", sorted(PODS))
def test_no_pod_has_more_rights_than_it_needs(name: str) -> None:
    pod, container = PODS[name], CONTAINERS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"]
    assert container["resources"]["limits"]["memory"]
    assert not re.search(r"(:latest|^[^:]+)$", container["image"])


@pytest.mark.parametrize("name", sorted(PODS))
def test_what_is_mounted_is_there(name: str) -> None:
    controller = next(each for each in CONTROLLERS if each["metadata"]["name"] == name)
    claims = {each["metadata"]["name"] for each in controller["spec"].get("volumeClaimTemplates", ())}
    volumes = {each["name"] for each in PODS[name]["volumes"]} | claims
    assert {each["name"] for each in CONTAINERS[name]["volumeMounts"]} == volumes


def test_only_nats_has_the_servers_key() -> None:
    for name, pod in PODS.items():
        tls = next(each["secret"] for each in pod["volumes"] if each["name"] == "tls")
        keys = [each["key"] for each in tls.get("items", ())]
        assert keys == ([] if name == "mesh-nats" else ["ca.crt"])


@pytest.mark.parametrize("name", [name for name in OF_MESH if name != "mesh-init"])
def test_probes_ask_the_port_that_answers(name: str) -> None:
    container = OF_MESH[name]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    probes = {kind: container[kind]["httpGet"] for kind in ("readinessProbe", "livenessProbe")}
    assert probes["readinessProbe"]["path"] == "/readyz"
    assert probes["livenessProbe"]["path"] == "/livez"
    given = parsed(name).params
    assert {ports[each["port"]] for each in probes.values()} == {given["telemetry_port"]}
    assert given["telemetry_host"] == "0.0.0.0"


def test_a_worker_has_drained_before_it_is_killed() -> None:
    pod, container = PODS["mesh-worker-chat"], OF_MESH["mesh-worker-chat"]
    assert pod["terminationGracePeriodSeconds"] >= parsed("mesh-worker-chat").params["grace"] + 20
    shell, flag, script = container["lifecycle"]["preStop"]["exec"]["command"]
    assert (shell, flag) == ("/bin/sh", "-c")
    program, *arguments = script.removeprefix("exec ").replace('"', "").split()
    env = environment(container)
    drained = click_accepts(
        [each.replace("$POD_NAME", env["POD_NAME"]) for each in arguments],
        {key: value for key, value in env.items() if key in ("MESH_NATS", "MESH_TLS_CA", "MESH_USER", "MESH_PASSWORD")},
    )
    assert program == "mesh"
    assert drained.params["worker"] == (parsed("mesh-worker-chat").params["worker_id"],)
    assert "MESH_MODEL" not in env  # `mesh drain` would read it, and drain every worker of the model
    assert drained.params["is_waiting"]


def test_the_servers_find_the_configuration_they_include() -> None:
    volume = next(each for each in PODS["mesh-nats"]["volumes"] if each["name"] == "configuration")
    laid_out = {each["path"]: each["key"] for each in volume["configMap"]["items"]}
    for path, key in laid_out.items():
        assert (ROOT / "nats" / path).is_file()
        assert Path(path).name == key  # `kubectl create configmap --from-file` takes the name alone
        text = (ROOT / "nats" / path).read_text()
        for included in re.findall(r'(?m)^include "(.*)"', text):
            assert os.path.normpath(Path(path).parent / included) in laid_out


def test_a_server_starts_as_its_pod_would(tmp_path: Path) -> None:
    """The container's own script, in folders that stand for its mounts."""
    container = CONTAINERS["mesh-nats"]
    pair, authority = (made := Authority(tmp_path / "pki")).issue("mesh-nats-1.mesh-nats"), made.ca
    etc, tmp, port, monitor = tmp_path / "etc", tmp_path / "tmp", free_port(), free_port()
    shutil.copytree(ROOT / "nats", etc / "nats")
    tmp.mkdir()
    script = container["args"][0].replace("/tmp/", f"{tmp}/").replace("0.0.0.0:8222", f"127.0.0.1:{monitor}")
    script = script.replace("exec nats-server", f"exec {find_binary()} -p {port}")
    env = {each["name"]: str(each.get("value", PASSWORDS.get(each["name"]))) for each in container["env"]}
    env |= {"MESH_NATS_STORE": str(tmp_path / "data"), "MESH_CLUSTER_LISTEN": f"127.0.0.1:{free_port()}"}
    env |= {"MESH_NATS_CERT": str(pair.cert), "MESH_NATS_KEY": str(pair.key), "MESH_NATS_CA": str(authority)}
    env = {key: re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], value) for key, value in env.items()}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script], env={**os.environ, **env, "HOSTNAME": "mesh-nats-1"}, stdout=log, stderr=log
        )
    try:

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return bool(monitored(monitor, "varz")["server_name"] == "n2")
            except OSError:
                return False

        wait_until(answers, "the server answers")
        urls = monitored(monitor, "varz")["cluster"]["urls"]
        assert sorted(urls) == [f"mesh-nats-{number}.mesh-nats:6222" for number in range(3)]
    finally:
        process.kill()
        process.wait()


def monitored(port: int, page: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def lag_as_keda_reads_it(server: ConfServer, trigger: dict[str, str]) -> int:
    """Of one trigger. Source: pkg/scalers/nats_jetstream_scaler.go of KEDA."""
    query = f"acc={urllib.parse.quote(trigger['account'])}&consumers=true&config=true"
    accounts = monitored(server.monitor, f"jsz?{query}").get("account_details") or []
    [account] = [each for each in accounts if each["name"] == trigger["account"]]
    [stream] = [each for each in account["stream_detail"] if each["name"] == trigger["stream"]]
    [consumer] = [each for each in stream["consumer_detail"] if each["name"] == trigger["consumer"]]
    return int(consumer["num_pending"] + consumer["num_ack_pending"])


def test_keda_scales_what_there_is_by_what_waits(tmp_path: Path, cli: Cli) -> None:
    """Zero with an empty queue, and what was submitted otherwise, with no worker alive."""
    spec = SCALED["spec"]
    assert spec["scaleTargetRef"]["name"] in PODS
    assert spec["minReplicaCount"] == 0
    triggers = {each["name"]: each["metadata"] for each in spec["triggers"]}
    assert sorted(spec["advanced"]["scalingModifiers"]["formula"].replace("+", " ").split()) == sorted(triggers)
    server = ConfServer("single.conf", tmp_path / "nats", PASSWORDS)
    init = [each for each in OF_MESH["mesh-init"]["args"] if each not in ("--replicas", "3")]
    env = {"MESH_NATS": server.url, "MESH_USER": "operator", "MESH_PASSWORD": PASSWORDS["MESH_OPERATOR_PASSWORD"]}
    with running(server):
        applied = cli.run(*init, env=env)
        assert applied.returncode == 0, applied.stderr
        declared = json.loads(cli.run(*init, "--json", env=env).stdout)["changes"]
        consumers = {each["name"] for each in declared if each["kind"] == "consumer"}
        assert {each["consumer"] for each in triggers.values()} == consumers
        assert sum(lag_as_keda_reads_it(server, each) for each in triggers.values()) == 0
        for number, tier in enumerate(("interactive", "standard", "batch")):
            sent = cli.run("submit", "--model", "chat", "--tier", tier, f"Question {number}", env=env)
            assert sent.returncode == 0, sent.stderr
        assert sum(lag_as_keda_reads_it(server, each) for each in triggers.values()) == 3
