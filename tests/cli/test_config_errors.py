"""Every setting that cannot be used ends the command before it does anything: one line with the setting, its value and
what to do instead."""

import json

import pytest

from tests.cli.conftest import Cli

# What is given, the option or variable that must be named, and words of the way out.
CASES = {
    "no address": (["worker", "--engine", "simulator", "--nats", ""], "nats", "give an address"),
    "a scheme of another protocol": (
        ["workers", "--nats", "http://127.0.0.1:4222"],
        "http://127.0.0.1:4222",
        "nats://",
    ),
    "a port that is none": (["workers", "--nats", "nats://127.0.0.1:99999"], "99999", "nats://"),
    "a port of letters": (["workers", "--nats", "nats://127.0.0.1:abc"], "abc", "nats://"),
    "clear text to another machine": (["workers", "--nats", "nats://nats.example:4222"], "nats.example", "tls://"),
    "credentials that are not there": (["workers", "--creds", "nowhere.creds"], "nowhere.creds", "not a file"),
    "a key that is not there": (["workers", "--nkey", "nowhere.nk"], "nowhere.nk", "not a file"),
    "an authority that is not there": (["workers", "--tls-ca", "nowhere.pem"], "nowhere.pem", "file"),
    "a certificate without its key": (["workers", "--tls-cert", "cert.pem"], "cert.pem", ""),
    "a namespace with a dot": (["workers", "--namespace", "a.b"], "a.b", "[A-Za-z0-9_-]"),
    "a namespace with a wildcard": (["init", "--namespace", "*"], "*", "[A-Za-z0-9_-]"),
    "a tenant with a space": (["submit", "--model", "m", "--tenant", "a b", "Hi"], "a b", "[A-Za-z0-9_-]"),
    "a tier that is none": (["submit", "--tier", "gold", "Hi"], "gold", "interactive"),
    "an engine that is none": (["worker", "--engine", "warp"], "warp", "simulator"),
    "an engine of a module that is not there": (["worker", "--engine", "nowhere.at:all"], "nowhere.at", ""),
    "an engine of something that is no engine": (["worker", "--engine", "json:dumps"], "json:dumps", ""),
    "a name with a slash": (["worker", "--engine", "simulator", "--name", "a/b"], "a/b", "[A-Za-z0-9_-]"),
    "a name that is too long": (["worker", "--engine", "simulator", "--name", "n" * 65], "n" * 20, "{1,64}"),
    "a worker id with a dot": (["worker", "--engine", "simulator", "--worker-id", "w.1"], "w.1", "[A-Za-z0-9_-]"),
    "an engine setting without a value": (["worker", "--engine", "simulator", "--engine-arg", "x"], "x", "key=value"),
    "an engine setting that is none": (
        ["worker", "--engine", "simulator", "--engine-arg", "warp_factor=9"],
        "warp_factor",
        "first_token_ms",
    ),
    "an engine setting of the wrong type": (
        ["worker", "--engine", "simulator", "--engine-arg", "first_token_ms=soon"],
        "first_token_ms",
        "",
    ),
    "an engine setting below its range": (
        ["worker", "--engine", "simulator", "--engine-arg", "first_token_ms=-1"],
        "first_token_ms",
        "",
    ),
    "a context of one token": (["worker", "--engine", "simulator", "--max-model-len", "1"], "--max-model-len", "2"),
    "a capacity of nothing": (["worker", "--engine", "simulator", "--capacity", "0"], "--capacity", "1"),
    "weights of no tier": (
        ["worker", "--engine", "simulator", "--tier-weights", "gold=1"],
        "gold",
        "batch",
    ),
    "a weight of nothing": (["worker", "--engine", "simulator", "--tier-weights", "batch=0"], "batch", "more than 0"),
    "a weight that is no number": (["worker", "--engine", "simulator", "--tier-weights", "batch=x"], "batch", ""),
    "no attempts": (["worker", "--engine", "simulator", "--max-attempts", "0"], "--max-attempts", "1"),
    "a stall of no time": (["worker", "--engine", "simulator", "--stall-timeout", "0"], "--stall-timeout", "0"),
    "a grace below zero": (["worker", "--engine", "simulator", "--grace", "-1"], "--grace", "0"),
    "a level of log that is none": (["worker", "--engine", "simulator", "--log-level", "loud"], "loud", "debug"),
    "a format of log that is none": (["worker", "--engine", "simulator", "--log-format", "xml"], "xml", "json"),
    "a telemetry port beyond all": (["worker", "--engine", "simulator", "--telemetry-port", "70000"], "70000", "65535"),
    "a model that is no folder": (["worker", "--model", "./nowhere"], "nowhere", ""),
    "lanes of nothing": (["init", "--lanes", "0"], "lanes", "1"),
    "too many copies": (["init", "--replicas", "9"], "replicas", "5"),
    "a lease of no time": (["init", "--ack-wait", "0"], "ack_wait", "1"),
    "a queue of nothing": (["init", "--queue-limit", "0"], "queue_limit", "1"),
    "too few deliveries": (["init", "--max-deliver", "1"], "max_deliver", "100"),
    "storage that is none": (["init", "--storage", "tape"], "tape", "file"),
    "a profile that is none": (["init", "--profile", "casual"], "casual", "strict"),
    "a port in use": (["up", "--engine", "simulator", "--port", "{port}"], "{port}", "--port"),
    "data where nobody may write": (["up", "--engine", "simulator", "--data", "/proc/mesh"], "/proc/mesh", ""),
    "no workers": (["up", "--engine", "simulator", "--workers", "0"], "--workers", "1"),
    "a temperature beyond its range": (["generate", "--model", "m", "--temperature", "9", "Hi"], "temperature", "2"),
    "no tokens": (["generate", "--model", "m", "--max-tokens", "0", "Hi"], "max_tokens", "1"),
    "a top-p of nothing": (["generate", "--model", "m", "--top-p", "0", "Hi"], "top_p", "0"),
    "a deadline that has passed": (["generate", "--model", "m", "--deadline", "0", "Hi"], "--deadline", "0"),
    "a span that is none": (["dlq", "ls", "--since", "soon"], "soon", "15m"),
    "a pause of no queue": (["pause", "a/b/c"], "a/b/c", "model/tier"),
    "a speed below zero": (["replay", "--speed", "-1"], "-1", ""),
    "a load of no length": (["bench", "--input-len", "0"], "--input-len", "64-256"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_setting_that_cannot_be_used_is_told_in_one_line(mesh: Cli, case: str) -> None:
    port = mesh.url.rpartition(":")[2]
    args, named, way_out = CASES[case]
    args = [each.replace("{port}", port) for each in args]
    (mesh.folder / "cert.pem").write_text("none")
    ended = mesh.run(*args)
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode in (2, 3), ended.stderr
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("mesh: ")
    assert named.replace("{port}", port) in lines[0]
    assert way_out in lines[0]
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_there_are_forty_cases_or_more() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize(
    ("variable", "value", "command", "named"),
    [
        ("MESH_CAPACITY", "none", ["worker", "--engine", "simulator"], "capacity"),
        ("MESH_TELEMETRY_PORT", "x", ["worker", "--engine", "simulator"], "telemetry-port"),
        ("MESH_ACK_WAIT", "long", ["init"], "ack-wait"),
        ("MESH_TIER", "gold", ["submit", "Hi"], "tier"),
        ("MESH_NAMESPACE", "a b", ["workers"], "a b"),
    ],
)
def test_a_variable_that_cannot_be_used_is_told_like_an_option(
    mesh: Cli, variable: str, value: str, command: list[str], named: str
) -> None:
    ended = mesh.run(*command, env={variable: value})
    assert ended.returncode in (2, 3)
    assert len(ended.stderr.strip().splitlines()) == 1
    assert named in ended.stderr
    assert json.dumps(value)[1:-1] in ended.stderr
