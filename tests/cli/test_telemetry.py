"""The telemetry port of real processes, and what they say when they are not well."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

import mesh as library
from mesh.broker.transport.connection import connect
from mesh.broker.transport.options import ConnectOptions
from tests.cli.collector import collecting
from tests.cli.conftest import Cli, Running, wait_until
from tests.cli.monitored import get, log_of, port_of, readiness, series

WATCHED = ("--telemetry-port", "0", "--log-format", "json")
pytestmark = pytest.mark.timeout(120)


def worker(mesh: Cli, name: str, *more: str, env: dict[str, str] | None = None) -> Running:
    """A simulator that serves under `name`, once it pulls."""
    running = mesh.spawn("worker", "--engine", "simulator", "--name", name, *WATCHED, *more, env=env)
    running.wait_for(" ready: ")
    return running


def two_free_ports() -> int:
    """The first of two ports in a row that nobody has."""
    while True:
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError, OverflowError):
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            second.bind(("127.0.0.1", port + 1))
            return port


def test_a_worker_is_alive_while_it_loads_and_ready_once_it_pulls(mesh: Cli) -> None:
    slow = mesh.spawn("worker", "--engine", "simulator", *WATCHED, "--engine-arg", "start_ms=3000")
    port = port_of(slow)
    assert get(port, "/livez")[0] == 200
    assert readiness(port) == (503, ["it is starting"])
    assert get(port, "/metrics")[0] == 200
    slow.wait_for(" ready: ")
    wait_until(lambda: readiness(port) == (200, []), "it is ready")


def test_a_hung_engine_is_not_ready_and_its_process_alive(mesh: Cli) -> None:
    running = worker(mesh, "hung", "--stall-timeout", "16")
    port = port_of(running)
    assert readiness(port) == (200, [])
    with library.blocking.connect(mesh.url) as client:
        client.submit("hung", "hi", max_tokens=100, metadata={"simulate": {"hang_engine_after": 3}})
        wait_until(lambda: readiness(port)[0] == 503, "it says that it gets nowhere")
    assert "has made no token" in readiness(port)[1][0]
    assert get(port, "/livez")[0] == 200
    assert series(port, "mesh_worker_ready") == 0
    wait_until(lambda: series(port, "mesh_engine_deaths_total") >= 1, "the engine is replaced")
    wait_until(lambda: readiness(port) == (200, []) or series(port, "mesh_engine_deaths_total") > 1, "it is back")


def test_a_draining_worker_is_not_ready_and_alive(mesh: Cli) -> None:
    running = worker(mesh, "drained", "--engine-arg", "between_tokens_ms=50")
    port = port_of(running)
    with library.blocking.connect(mesh.url) as client:
        job = client.submit("drained", "hi", max_tokens=60, ignore_eos=True)
        next(iter(job))
        running.send(signal.SIGTERM)
        wait_until(lambda: readiness(port) == (503, ["it is draining"]), "it says that it drains")
        assert get(port, "/livez")[0] == 200
        assert job.result(20).status == "finished"
    assert running.wait() == 0


def test_a_process_without_a_worker_is_ready_as_long_as_nats_is_there(mesh: Cli) -> None:
    for command in ("reconcile", "frontdoor"):
        running = mesh.spawn(command, *WATCHED)
        running.wait_for(" ready: ")
        port = port_of(running)
        assert readiness(port) == (200, [])
        series(port, "mesh_queue_waiting_jobs")
        running.send(signal.SIGTERM)
        assert running.wait() == 0


def test_jobs_are_counted_and_the_queue_is_shown_by_one_process(mesh: Cli) -> None:
    port = port_of(worker(mesh, "counted"))
    other = mesh.spawn("reconcile", *WATCHED)
    other.wait_for(" ready: ")
    assert mesh.run("generate", "--model", "counted", "--max-tokens", "9", "hello").returncode == 0
    wait_until(lambda: series(port, "mesh_jobs_total") == 1, "the job is counted")
    assert series(port, "mesh_output_tokens_total") == 9
    ports = (port, port_of(other))
    wait_until(lambda: sum("mesh_polled_timestamp" in get(each, "/metrics")[1] for each in ports) == 1, "one shows it")


def test_the_front_door_counts_what_it_takes_and_what_it_refuses(mesh: Cli) -> None:
    worker(mesh, "asked", "--no-frontdoor")
    door = mesh.spawn("frontdoor", *WATCHED)
    door.wait_for(" ready: ")
    port = port_of(door)

    async def ask() -> None:
        async with connect(ConnectOptions(servers=(mesh.url,))) as connection:
            for body in (b'{"prompt": "hi", "max_tokens": 2}', b'{"prompt": 7}'):
                await connection.request("mesh.rpc.default.asked", body, timeout_s=20)

    asyncio.run(ask())
    wait_until(lambda: series(port, "mesh_frontdoor_accepted_total") == 1, "one is counted")
    assert series(port, "mesh_frontdoor_refused_total") == 1


def test_a_job_that_expires_unseen_is_counted_by_who_ends_it(mesh: Cli) -> None:
    ended = worker(mesh, "expiring")
    watch = mesh.spawn("reconcile", *WATCHED)
    watch.wait_for(" ready: ")
    port = port_of(watch)
    ended.send(signal.SIGTERM)
    assert ended.wait() == 0
    with library.blocking.connect(mesh.url) as client:
        deadline = time.time_ns() // 1_000_000 + 500
        assert client.submit("expiring", "hi", deadline_unix_ms=deadline).result(60).status == "expired"
    wait_until(lambda: series(port, "mesh_jobs_total") >= 1, "it is counted")
    assert 'status="expired"' in get(port, "/metrics")[1]


def test_a_mesh_up_answers_for_itself_and_its_workers(cli: Cli) -> None:
    base = two_free_ports()
    watched = ("--telemetry-port", str(base), "--log-format", "json")
    running = cli.spawn("up", "--engine", "simulator", "--port", "0", "--workers", "1", *watched)
    running.wait_for("ready: model simulator")
    assert readiness(base) == (200, [])
    assert readiness(base + 1) == (200, [])
    assert series(base + 1, "mesh_worker_ready") == 1

    def shown() -> str:
        return get(base, "/metrics")[1] + get(base + 1, "/metrics")[1]  # one of them

    wait_until(lambda: 'mesh_workers{model="simulator",state="ready"}' in shown(), "the mesh is shown")
    running.send(signal.SIGTERM)
    assert running.wait() == 0


def test_a_port_that_is_taken_is_one_line_and_exit_3(mesh: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = mesh.run("worker", "--engine", "simulator", "--telemetry-port", port)
    assert ended.returncode == 3
    assert f"--telemetry-port {port} on 127.0.0.1 cannot be listened on" in ended.stderr


@pytest.mark.parametrize(
    ("option", "module", "extra"),
    [(("--telemetry-port", "0"), "prometheus_client", "metrics"), (("--otlp", "http://x"), "opentelemetry", "tracing")],
)
def test_an_extra_that_is_missing_is_named(mesh: Cli, option: tuple[str, str], module: str, extra: str) -> None:
    (mesh.folder / "sitecustomize.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
    path = f"{mesh.folder}:{mesh.environment()['PYTHONPATH']}"
    ended = mesh.run("worker", "--engine", "simulator", *option, env={"PYTHONPATH": path})
    assert ended.returncode == 3
    assert f"pip install 'inference-mesh[{extra}]'" in ended.stderr
    assert option[0] in ended.stderr


def test_without_telemetry_none_of_its_libraries_is_loaded(mesh: Cli) -> None:
    code = (
        "import sys, mesh.cli.serve.worker_action, mesh.cli.serve.service_process, mesh.client.client\n"
        "import mesh.worker.worker\n"
        "print(*{each.split('.')[0] for each in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"prometheus_client", "opentelemetry", "pynvml"} & set(loaded)


def test_one_trace_from_a_command_through_a_killed_worker_to_the_result(mesh: Cli) -> None:
    with collecting() as collector:
        slow = ("--engine-arg", "between_tokens_ms=30", "--otlp", collector.url)
        workers = {name: worker(mesh, "traced", "--worker-id", name, *slow) for name in ("w-one", "w-two")}
        ports = {name: port_of(each) for name, each in workers.items()}
        sends = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        asking = mesh.spawn("generate", "--model", "traced", "--max-tokens", "90", "hi", env=sends)
        asking.wait_for(" ")
        (first,) = [name for name, port in ports.items() if series(port, "mesh_worker_running_jobs")]
        workers[first].send(signal.SIGKILL)
        assert asking.wait() == 0

        def names() -> set[tuple[str, str]]:
            return {(service, span.name) for service, span in collector.spans}

        wait_until(lambda: ("mesh-worker", "process traced") in names() and len(names()) >= 5, "the spans arrive")
        spans = collector.spans
    assert {
        ("mesh-client", "chat traced"),
        ("mesh-client", "send traced"),
        ("mesh-worker", "process traced"),
        ("mesh-worker", "chat traced"),
        ("mesh-worker", "end traced"),
    } <= {(service, span.name) for service, span in spans}
    assert len({span.trace_id for _, span in spans}) == 1
    (send,) = [span for _, span in spans if span.name == "send traced"]
    (process,) = [span for _, span in spans if span.name == "process traced"]
    known = {each.key: each.value for each in process.attributes}
    assert process.parent_span_id == send.span_id
    assert known["mesh.attempt"].int_value == 2
    assert known["mesh.takeover.from"].string_value == first
    assert known["mesh.takeover.cause"].string_value == "worker_lost"


def test_a_collector_that_never_answers_costs_nobody_anything(mesh: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        running = worker(mesh, "unheard", "--otlp", url)
        with library.blocking.connect(mesh.url) as client:
            for number in range(20):
                assert client.generate("unheard", f"{number}", max_tokens=3, timeout=10).status == "finished"
        running.send(signal.SIGTERM)
        assert running.wait(15) == 0


def test_the_log_says_what_happened_to_which_job(mesh: Cli) -> None:
    running = worker(mesh, "logged", "--log-level", "debug", "--worker-id", "w-logged")
    with library.blocking.connect(mesh.url) as client:
        job = client.submit("logged", "hi", max_tokens=3)
        assert job.result(20).status == "finished"
    wait_until(lambda: any(line.get("event") == "job_ended" for line in log_of(running)), "it is logged")
    (line,) = [line for line in log_of(running) if line.get("event") == "job_ended"]
    assert (line["job"], line["tenant"], line["model"], line["status"]) == (job.id, "default", "logged", "finished")
    assert {each["worker"] for each in log_of(running)} == {"w-logged"}
    assert all({"time", "level", "logger", "message"} <= set(each) for each in log_of(running))
    assert json.dumps(log_of(running))
