"""`mesh init`: the plan, its application, and what differs."""

import asyncio
import json

import nats

from tests.cli.conftest import Cli

NS = ("--namespace", "initiated")


def plan(mesh: Cli, *arguments: str) -> dict[str, list[str]]:
    shown = mesh.run("init", *NS, "--json", *arguments)
    found: dict[str, list[str]] = {}
    for change in json.loads(shown.stdout)["changes"]:
        found.setdefault(change["verb"], []).append(change["name"])
    return found


def test_a_plan_changes_nothing_and_applying_it_twice_changes_nothing_more(mesh: Cli) -> None:
    first = mesh.call("init", *NS)
    assert first.returncode == 0
    assert "create  stream  INITIATED_REQUESTS" in first.stdout
    assert "Add --apply" in first.stderr
    assert all(len(line) <= 80 for line in first.stdout.splitlines())
    assert len(plan(mesh)["create"]) == 6

    applied = mesh.call("init", *NS, "--apply", "--lanes", "2", "--model", "chat", "--events-storage", "memory")
    assert applied.returncode == 0, applied.stderr
    assert "created 12" in applied.stderr
    # What is not given stays as the mesh has it.
    assert list(plan(mesh, "--model", "chat")) == ["keep"]
    again = mesh.call("init", *NS, "--apply", "--model", "chat")
    assert again.returncode == 0
    assert "created 0" in again.stderr

    drift = mesh.call("init", *NS, "--lanes", "3")
    assert drift.returncode == 0
    assert "differs" in drift.stdout
    refused = mesh.call("init", *NS, "--lanes", "3", "--apply")
    assert refused.returncode == 3
    assert "nats stream edit" in refused.stderr
    assert list(plan(mesh)) == ["keep"]


def test_a_setting_out_of_range_is_refused(mesh: Cli) -> None:
    ended = mesh.call("init", "--replicas", "9")
    assert ended.returncode == 3
    assert "replicas = 9" in ended.stderr


def test_recording_is_turned_on_for_a_mesh_that_exists_and_off_again(mesh: Cli) -> None:
    ns = ("--namespace", "recorded")
    assert mesh.call("init", *ns, "--apply").returncode == 0
    shown = mesh.call("init", *ns, "--record-requests", "--record-days", "3")
    assert shown.returncode == 0
    assert ["change", "stream", "RECORDED_REQUESTS"] in [line.split()[:3] for line in shown.stdout.splitlines()]
    assert "1 to create, 1 to change; nothing was changed. Add --apply to do it." in shown.stderr
    applied = mesh.call("init", *ns, "--record-requests", "--record-days", "3", "--apply")
    assert (applied.returncode, applied.stderr) == (0, "created 1, changed 1.\n")
    assert "change" not in mesh.call("init", *ns).stdout
    off = mesh.call("init", *ns, "--no-record-requests", "--apply")
    assert (off.returncode, off.stderr) == (0, "created 0, changed 2.\n")


def test_for_how_long_is_no_question_where_nothing_is_recorded(mesh: Cli) -> None:
    ended = mesh.call("init", "--record-days", "3")
    assert ended.returncode == 3
    assert "need --record-requests" in ended.stderr


def test_a_mesh_of_another_major_is_refused_by_every_command_with_what_helps(mesh: Cli) -> None:
    ns = ("--namespace", "versioned")
    assert mesh.call("init", *ns, "--apply").returncode == 0
    declare(mesh.url, "VERSIONED_REQUESTS", "2.0")
    commands = (
        ("init", "--apply"),
        ("frontdoor",),
        ("worker", "--engine", "simulator", "--name", "demo"),
        ("workers",),
        ("generate", "--model", "demo", "hello"),
        ("status",),
    )
    for command, *arguments in commands:
        ended = mesh.call(command, *ns, *arguments)
        assert ended.returncode == 3, (command, ended.stderr)
        assert "protocol 2.0, and this program 1.0; upgrade this program: pip install -U inference-mesh" in ended.stderr
    ended = mesh.call("doctor", *ns, "--quick")
    assert ended.returncode == 1
    assert "this mesh speaks protocol 2.0, and this program 1.0" in ended.stdout
    assert "fix: upgrade this program: pip install -U inference-mesh" in ended.stdout


def declare(url: str, stream: str, protocol: str) -> None:
    """Write the version into a mesh's metadata, as `mesh init` of that version does."""

    async def declaring() -> None:
        client = await nats.connect(url)
        info = json.loads((await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=5)).data)
        info["config"]["metadata"]["mesh.protocol"] = protocol
        answer = await client.request(f"$JS.API.STREAM.UPDATE.{stream}", json.dumps(info["config"]).encode(), timeout=5)
        assert "error" not in json.loads(answer.data), answer.data
        await client.close()

    asyncio.run(declaring())
