"""Two hostile tenants against one that works: everything they try is refused or stays their own, and it is unharmed.

Real servers on nats/tenants.conf. In every test the victim has one job that runs and one that waits behind it; when
the attackers are done, both must finish with the text that the victim's first, undisturbed job had.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh import errors
from mesh.broker import topology
from mesh.broker.transport.connection import Connection, connect
from mesh.client.client import Client
from mesh.client.internal import core_of
from mesh.client.job import Job
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.protocol import headers
from mesh.protocol.messages import Result
from tests.running import MODEL, wait_until
from tests.tenancy import Tenancy, running_tenancy

VICTIM, HOSTILE = "acme", ("evil", "mallory")
RUNS, WAITS = "job-that-runs", "job-that-waits"
ASKED: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 60, "temperature": 0}
QUEUE = f"{MODEL}-standard-0"


@dataclass
class Field:
    """The mesh, the victim's two jobs, and its attackers' connections."""

    tenancy: Tenancy
    operator: Connection
    victim: Client
    attackers: dict[str, Connection]
    calm: Result  # what ASKED comes to
    running: Job
    waiting: Job

    async def check_unharmed(self) -> None:
        """Both jobs of the victim finish with the right text, read live and as it is stored."""
        streamed = "".join([delta.text async for delta in self.running])
        for job in (self.running, self.waiting):
            result = await job.result(20)
            assert (result.status, result.text, result.attempts) == ("finished", self.calm.text, 1)
            assert (await self.victim.result(job.id)).text == self.calm.text
        assert streamed == self.calm.text
        again = await self.victim.generate(MODEL, **ASKED, timeout=20)
        assert (again.status, again.text) == ("finished", self.calm.text)
        assert await self.stored(f"$KV.mesh_results.{VICTIM}.>", "KV_mesh_results") == 4
        assert await self.stored("mesh.dead.>", "MESH_DEAD") == 0

    async def stored(self, subjects: str, stream: str) -> int:
        """Messages that a stream has on these subjects."""
        ask = json.dumps({"subjects_filter": subjects}).encode()
        _, answer = await self.operator.request(f"$JS.API.STREAM.INFO.{stream}", ask)
        return sum((json.loads(answer)["state"].get("subjects") or {}).values())

    def has_refused_to_reload(self, times: int) -> bool:
        return self.tenancy.log.count("Failed to reload server configuration") > times

    async def log_has(self, text: str) -> None:
        await wait_until(lambda: text in self.tenancy.log)


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Field]:
    async with contextlib.AsyncExitStack() as stack:
        tenancy = await stack.enter_async_context(running_tenancy(tmp_path, [VICTIM, *HOSTILE]))
        await tenancy.start_worker(SimulatorSettings(model=MODEL, between_tokens_ms=3), capacity=1)
        operator = await stack.enter_async_context(connect(tenancy.role("operator")))
        attackers = {name: await stack.enter_async_context(connect(tenancy.tenant(name))) for name in HOSTILE}
        opened = mesh_api.connect(options=tenancy.tenant(VICTIM), tenant=VICTIM)
        victim = await stack.enter_async_context(opened)
        calm = await victim.generate(MODEL, **ASKED, id="calm")
        running = await victim.submit(MODEL, **ASKED, id=RUNS)
        waiting = await victim.submit(MODEL, **ASKED, id=WAITS)
        yield Field(tenancy, operator, victim, attackers, calm, running, waiting)


FOREIGN_SUBJECTS = [
    # Another tenant's queue, front door, control and Results.
    f"mesh.req.{MODEL}.standard.{VICTIM}.x",
    f"mesh.req.{MODEL}.standard.*.x",
    f"mesh.rpc.{VICTIM}.{MODEL}",
    *(f"mesh.ctl.{VICTIM}.{verb}.{RUNS}" for verb in ("status", "cancel", "replay", "output")),
    f"mesh.ctl.*.cancel.{RUNS}",
    f"$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.{VICTIM}.calm",
    "$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.*.calm",
    "$JS.API.DIRECT.GET.KV_mesh_results",
    "$JS.API.DIRECT.GET.MESH_EVENTS",
    "$JS.API.DIRECT.GET.MESH_REQUESTS",
    *(f"$JS.API.STREAM.MSG.GET.{stream}" for stream in ("MESH_REQUESTS", "MESH_EVENTS", "KV_mesh_results")),
    # What workers write.
    f"mesh.out.{VICTIM}.{RUNS}",
    f"mesh.live.{VICTIM}.{RUNS}",
    f"$KV.mesh_results.{VICTIM}.{RUNS}",
    "$KV.mesh_workers.w",
    f"mesh.dead.{MODEL}.standard.{VICTIM}.0",
    f"mesh.audit.{VICTIM}.ended",
    f"mesh.sys.cancel.{VICTIM}.{RUNS}",
    "mesh.sys.drain.w",
    "mesh.sys.liveness.w",
    f"mesh.sys.queued.{MODEL}.standard.{VICTIM}.0",
    # JetStream, and the server itself.
    *(f"$JS.API.STREAM.{verb}.MESH_REQUESTS" for verb in ("DELETE", "PURGE", "UPDATE", "INFO", "SNAPSHOT", "RESTORE")),
    "$JS.API.STREAM.MSG.DELETE.MESH_REQUESTS",
    "$JS.API.STREAM.CREATE.MINE",
    f"$JS.API.CONSUMER.CREATE.MESH_REQUESTS.spy.mesh.req.{MODEL}.standard.{VICTIM}.*",
    f"$JS.API.CONSUMER.MSG.NEXT.MESH_REQUESTS.{QUEUE}",
    f"$JS.API.CONSUMER.DELETE.MESH_REQUESTS.{QUEUE}",
    f"$JS.API.CONSUMER.PAUSE.MESH_REQUESTS.{QUEUE}",
    "$SYS.REQ.SERVER.PING",
    f"$SYS.REQ.ACCOUNT.{VICTIM}.CONNZ",
    "$SRV.PING",
]
# Where a tenant may publish nothing though its own name is in the subject.
OWN_BUT_PRIVATE = ["mesh.out.{}.x", "mesh.live.{}.x", "$KV.mesh_results.{}.x", "mesh.audit.{}.x", "mesh.sys.notes.{}.x"]


async def test_what_is_not_a_tenants_own_it_cannot_publish_to(field: Field) -> None:
    for name, attacker in field.attackers.items():
        for subject in [*FOREIGN_SUBJECTS, *(each.format(name) for each in OWN_BUT_PRIVATE)]:
            with pytest.raises(errors.UnauthorizedError):
                await attacker.request(subject, b'{"prompt": "x", "max_tokens": 1}', timeout_s=2)
    await field.check_unharmed()


@pytest.mark.parametrize("verb", ["+ACK", "-NAK", "+TERM", "+WPI", "+NXT"])
async def test_nobody_acknowledges_for_a_worker(field: Field, verb: str) -> None:
    """JetStream honours an acknowledgement from whoever may publish it, and its subject is easy to guess."""
    for attacker in field.attackers.values():
        for sequence in range(1, 5):
            for subject in (
                f"$JS.ACK.MESH_REQUESTS.{QUEUE}.1.{sequence}.{sequence}.1.0",
                f"$JS.ACK._.hash.MESH_REQUESTS.{QUEUE}.1.{sequence}.{sequence}.1.0",
            ):
                with pytest.raises(errors.UnauthorizedError):
                    await attacker.request(subject, verb.encode(), timeout_s=2)
    assert await field.stored(f"mesh.req.*.*.{VICTIM}.*", "MESH_REQUESTS") == 2
    await field.check_unharmed()


FOREIGN_INTEREST = [
    ">",
    "*.>",
    "mesh.>",
    "mesh.live.>",
    f"mesh.live.{VICTIM}.>",
    f"mesh.live.{VICTIM}.{RUNS}",
    f"mesh.live.*.{RUNS}",
    f"mesh.out.{VICTIM}.*",
    "mesh.out.>",
    "mesh.req.>",
    f"mesh.rpc.{VICTIM}.>",
    "mesh.ctl.>",
    "mesh.sys.>",
    "mesh.audit.>",
    "$JS.>",
    "$KV.>",
    f"$KV.mesh_results.{VICTIM}.>",
    "$SYS.>",
    "$SRV.>",
    "_R_.>",
]


async def test_nobody_hears_what_is_not_his(field: Field) -> None:
    """`_INBOX.>` is a tenant's own: its account has inboxes of nobody else."""
    heard = []
    for attacker in field.attackers.values():
        for subject in [*FOREIGN_INTEREST, "_INBOX.>"]:
            attacker.subscribe(subject, lambda *message: heard.append(message))
    for subject in FOREIGN_INTEREST:
        await field.log_has(f'Subscription Violation - Subject "{subject}"')
    await field.check_unharmed()
    assert heard == []


async def test_answers_go_nowhere_but_into_the_askers_own_account(field: Field) -> None:
    """The server itself publishes to a request's reply subject, without asking whether its sender might."""
    targets = [
        f"$KV.mesh_results.{VICTIM}.forged",
        f"mesh.out.{VICTIM}.{RUNS}",
        f"mesh.req.{MODEL}.standard.{VICTIM}.x",
        f"mesh.sys.cancel.{VICTIM}.{RUNS}",
        f"mesh.ctl.{VICTIM}.cancel.{RUNS}",
        "$JS.API.STREAM.DELETE.MESH_REQUESTS",
        "$JS.API.STREAM.PURGE.MESH_EVENTS",
        f"$JS.ACK.MESH_REQUESTS.{QUEUE}.1.2.2.1.0",
    ]
    journal = await field.stored(f"mesh.out.{VICTIM}.*", "MESH_EVENTS")
    for name, attacker in field.attackers.items():
        services = [
            f"mesh.req.{MODEL}.batch.{name}.x",
            f"mesh.rpc.{name}.{MODEL}",
            f"mesh.ctl.{name}.status.x",
            f"mesh.ctl.{name}.replay.x",
            f"$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.{name}.x",
        ]
        for service in services:
            for target in targets:
                attacker.publish(service, b'{"prompt": "x", "max_tokens": 1}', reply=target)
            attacker.publish(service, b'{"prompt": "x", "max_tokens": 1}', reply=f"mesh.req.{MODEL}.batch.{name}.x")
        await attacker.request(f"mesh.ctl.{name}.status.x")  # the others came before it
    assert await field.stored(f"mesh.req.*.*.{VICTIM}.*", "MESH_REQUESTS") <= 2
    assert await field.stored(f"mesh.out.{VICTIM}.*", "MESH_EVENTS") >= journal
    await field.check_unharmed()


HOSTILE_HEADERS = [
    [("Nats-Rollup", "all")],
    [("Nats-Rollup", "sub")],
    [("Nats-TTL", "1s")],
    [("Nats-TTL", "never")],
    [("Nats-Expected-Last-Sequence", "0")],
    [("Nats-Expected-Last-Subject-Sequence", "7")],
    [
        ("Nats-Expected-Last-Subject-Sequence", "0"),
        ("Nats-Expected-Last-Subject-Sequence-Subject", f"mesh.req.*.*.{VICTIM}.*"),
    ],
    [("Nats-Expected-Stream", "MESH_EVENTS")],
    [("Nats-Expected-Last-Msg-Id", f"{VICTIM}.{RUNS}")],
    [("Nats-Schedule", "@every 1s"), ("Nats-Schedule-Target", f"mesh.req.{MODEL}.standard.{VICTIM}.x")],
    [("Nats-Schedule", "@at 2000-01-01T00:00:00Z"), ("Nats-Schedule-Target", f"$KV.mesh_results.{VICTIM}.x")],
    [("Nats-Scheduler", "x"), ("Nats-Schedule-Next", "purge")],
    [("Nats-Incr", "+1")],
    [("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1"), ("Nats-Batch-Commit", "1")],
    [("Nats-Marker-Reason", "MaxAge")],
    [("KV-Operation", "PURGE")],
    *([("Status", status)] for status in ("100", "404", "408", "409", "503")),
    [("Nats-Trace-Dest", f"mesh.req.{MODEL}.standard.{VICTIM}.x")],
    [("Nats-Trace-Dest", f"$KV.mesh_results.{VICTIM}.x"), ("Nats-Trace-Only", "true")],
    [("Nats-Request-Info", json.dumps({"acc": VICTIM}))],
    [("Nats-Subject", f"mesh.req.{MODEL}.standard.{VICTIM}.0"), ("Nats-Sequence", "2"), ("Nats-Stream", "X")],
    [("Nats-Service-Error", "forged"), ("Nats-Service-Error-Code", "500")],
    [("Nats-Msg-Id", f"{VICTIM}.{RUNS}")],
    [("Nats-Msg-Id", f"{VICTIM}.{WAITS}")],
    [("Mesh-Tenant", VICTIM), ("Mesh-Job", RUNS), ("Tenant", VICTIM)],
    [("Content-Type", "application/x-python-pickle")],
]


async def test_no_header_reaches_beyond_its_sender(field: Field) -> None:
    """On the queue, at the front door and at a direct get; as a request, and where nobody waits for an answer."""
    waiting = await field.stored(f"mesh.req.*.*.{VICTIM}.*", "MESH_REQUESTS")
    for name, attacker in field.attackers.items():
        for number, pairs in enumerate(HOSTILE_HEADERS):
            header = headers.block(*pairs)
            body = json.dumps({"id": f"h{number}", "prompt": "x", "max_tokens": 1, "tenant": VICTIM}).encode()
            for subject in (
                f"mesh.req.{MODEL}.batch.{name}.x",
                f"mesh.rpc.{name}.{MODEL}",
                f"mesh.ctl.{name}.status.{RUNS}",
                f"$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.{name}.x",
            ):
                attacker.publish(subject, body, header)
        for inline in (
            b"NATS/1.0 404 Not Found\r\n\r\n",
            b"NATS/1.0 503\r\n\r\n",
            b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        ):
            attacker.publish(f"mesh.req.{MODEL}.batch.{name}.x", b"", inline)
        await attacker.request(f"mesh.ctl.{name}.status.x")
        assert attacker.reconnects == 0
    assert await field.stored(f"mesh.req.*.*.{VICTIM}.*", "MESH_REQUESTS") <= waiting
    await field.check_unharmed()


@pytest.mark.parametrize("is_over", [False, True], ids=["while the thief's waits", "after the thief's ended"])
async def test_a_message_id_that_others_used_first_keeps_no_job_out(field: Field, is_over: bool) -> None:
    """NATS remembers message ids of the whole stream: to it the victim's request is a duplicate of the thief's."""
    await field.check_unharmed()
    for name, attacker in field.attackers.items():
        if not is_over:
            block = json.dumps({"prompt": "x", "max_tokens": 400}).encode()
            await attacker.request(f"mesh.req.{MODEL}.interactive.{name}.x", block)
        chosen = f"chosen-by-{name}"
        body = json.dumps({"prompt": "Another text altogether", "max_tokens": 2}).encode()
        header = headers.block(("Nats-Msg-Id", f"{VICTIM}.{chosen}"))
        _, ack = await attacker.request(f"mesh.req.{MODEL}.standard.{name}.x", body, header)
        if is_over:
            await ended(field, name, ack)
        result = await field.victim.generate(MODEL, **ASKED, id=chosen, timeout=20)
        assert (result.status, result.text) == ("finished", field.calm.text)
        again = await field.victim.generate(MODEL, **ASKED, id=chosen, timeout=20)
        assert again.finished_unix_ms == result.finished_unix_ms, "it ran once"


async def test_the_front_door_takes_a_job_whose_message_id_others_used_first(field: Field) -> None:
    await field.check_unharmed()
    for name, attacker in field.attackers.items():
        header = headers.block(("Nats-Msg-Id", f"{VICTIM}.door-{name}"))
        _, ack = await attacker.request(
            f"mesh.req.{MODEL}.standard.{name}.x", b'{"prompt": "x", "max_tokens": 1}', header
        )
        await ended(field, name, ack)
        ask = json.dumps({"id": f"door-{name}", **ASKED}).encode()
        _, answer = await core_of(field.victim).connection.request(f"mesh.rpc.{VICTIM}.{MODEL}", ask, timeout_s=20)
        assert json.loads(answer)["text"] == field.calm.text


async def ended(field: Field, tenant: str, ack: bytes) -> None:
    """Wait for the Result of the request that was acknowledged so."""
    subject = f"$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.{tenant}.s{json.loads(ack)['seq']}"

    async def has_result() -> bool:
        return bool((await field.attackers[tenant].request(subject))[1])

    await wait_until(has_result)


async def test_an_id_belongs_to_its_tenant(field: Field) -> None:
    """The same id at several tenants is several jobs, whatever their bodies claim."""
    texts = {}
    for name in field.attackers:
        async with mesh_api.connect(options=field.tenancy.tenant(name), tenant=name) as client:
            body = {
                "id": RUNS,
                "prompt": f"I am {name}",
                "max_tokens": 10,
                "tenant": VICTIM,
                "metadata": {"tenant": VICTIM},
            }
            await core_of(client).connection.request(f"mesh.req.{MODEL}.standard.{name}.x", json.dumps(body).encode())
            result = await client.job(RUNS).result(20)
            assert result.tenant == name
            texts[name] = result.text
    assert len({*texts.values(), field.calm.text}) == 3
    await field.check_unharmed()


@pytest.mark.parametrize("id", [f"{VICTIM}.{RUNS}", "../x", "*", ">", "a b", "", "x" * 65, "a\r\nNats-Rollup: all"])
async def test_an_id_that_would_reach_into_another_subject_is_refused(field: Field, id: str) -> None:
    for name, attacker in field.attackers.items():
        body = json.dumps({"id": id, "prompt": "x", "max_tokens": 1}).encode()
        header, _ = await attacker.request(f"mesh.rpc.{name}.{MODEL}", body, timeout_s=10)
        assert headers.parse(header)["Nats-Service-Error-Code"] == "400"
        await attacker.request(f"mesh.req.{MODEL}.batch.{name}.x", body)
    await field.check_unharmed()


async def test_a_stolen_id_tells_its_thief_nothing(field: Field) -> None:
    """Whether another tenant has a job of that id or nobody has: the answers are the same."""
    for name, attacker in field.attackers.items():
        for verb in ("status", "cancel", "replay", "output"):
            stolen, invented = [
                await attacker.collect(f"mesh.ctl.{name}.{verb}.{id}", b"", lambda *answer: True, 10)
                for id in (RUNS, "nobody-has-it")
            ]
            assert [
                (h.replace(RUNS.encode(), b"nobody-has-it"), p.replace(RUNS.encode(), b"nobody-has-it"))
                for h, p in stolen
            ] == invented
        own = f"$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.{name}.calm"
        asks = [
            b"",
            json.dumps({"last_by_subj": f"$KV.mesh_results.{VICTIM}.calm"}).encode(),
            json.dumps({"seq": 1}).encode(),
            json.dumps({"seq": 1, "batch": 100}).encode(),
            json.dumps({"multi_last": ["$KV.mesh_results.>"], "batch": 100}).encode(),
            json.dumps({"next_by_subj": "$KV.mesh_results.>", "seq": 1}).encode(),
        ]
        for ask in asks:
            header, payload = await attacker.request(own, ask)
            assert field.calm.text.encode() not in payload
            assert headers.status(header) in (404, 408)
        for wildcard in ("*", ">"):
            _, payload = await attacker.request(own.replace("calm", wildcard))
            assert field.calm.text.encode() not in payload
    await field.check_unharmed()


async def test_subjects_with_wildcards_in_them_address_nobody(field: Field) -> None:
    """NATS takes wildcards in a published subject as they are."""
    for name, attacker in field.attackers.items():
        for subject in (
            f"mesh.req.*.*.{name}.*",
            f"mesh.req.{MODEL}.*.{name}.x",
            f"mesh.req.{MODEL}.standard.{name}.*",
        ):
            await attacker.request(subject, b'{"prompt": "x", "max_tokens": 1}')
        for subject in (f"mesh.ctl.{name}.cancel.*", f"mesh.ctl.{name}.*.{RUNS}", f"mesh.rpc.{name}.*"):
            header, _ = await attacker.request(subject, b'{"prompt": "x"}')
            assert headers.parse(header)["Nats-Service-Error-Code"] in ("400", "404")
    await field.check_unharmed()


async def test_the_server_takes_no_account_that_imports_what_is_anothers(field: Field) -> None:
    """Even whoever writes an account's file gets it no further than its name."""
    file = field.tenancy.folder / "nats" / "tenants.d" / "evil.conf"
    honest = file.read_text()
    for subject in (f"mesh.live.{VICTIM}.*", f"mesh.req.*.*.{VICTIM}.*", f"mesh.ctl.{VICTIM}.*.*"):
        own = subject.replace(VICTIM, "evil")
        assert f'subject: "{own}"' in honest
        file.write_text(honest.replace(f'subject: "{own}"', f'subject: "{subject}"'))
        before = field.tenancy.log.count("Failed to reload server configuration")
        assert field.tenancy.process is not None
        field.tenancy.process.send_signal(signal.SIGHUP)
        await wait_until(partial(field.has_refused_to_reload, before))
    file.write_text(honest)
    await field.check_unharmed()


async def test_a_flood_of_broken_requests_stops_nobody(field: Field) -> None:
    """Bodies of every kind of nonsense, and more requests than the worker has room for."""
    nonsense = [b"", b"{", b"null", b"[" * 5000, b'{"prompt": 5}', b"\xff\xfe", b'{"prompt": "x", "max_tokens": 1e99}']

    async def flood(name: str, attacker: Connection) -> None:
        for _ in range(20):
            await asyncio.gather(
                *(attacker.request(f"mesh.req.{MODEL}.batch.{name}.x", body, timeout_s=10) for body in nonsense)
            )

    await asyncio.gather(*(flood(name, attacker) for name, attacker in field.attackers.items()))
    await field.check_unharmed()
    state = await topology.stream_state(field.operator, "MESH_REQUESTS")
    assert state["last_seq"] >= 280
