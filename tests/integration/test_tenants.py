"""Tenants in accounts of their own: the client works there as anywhere, and each role has what it needs."""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

import mesh as mesh_api
from mesh import errors
from mesh.broker.broker import Broker
from mesh.broker.transport.connection import connect
from mesh.client.client import Client
from mesh.client.internal import core_of, handle_of
from mesh.client.job import Job
from mesh.control.tenants.account_file import AccountLimits
from mesh.control.tenants.accounts import Accounts
from mesh.control.tenants.limits import limit
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.hosting.services import doors
from mesh.protocol import headers
from mesh.protocol.subjects import Names
from tests.running import MODEL, wait_until
from tests.tenancy import Tenancy, running_tenancy

REFUSED_S = 2.5  # half of the shortest timeout: what is refused is not waited for


@pytest.fixture
async def tenancy(tmp_path: Path) -> AsyncIterator[Tenancy]:
    async with running_tenancy(tmp_path, ["acme", "other"]) as running:
        yield running


@pytest.fixture
async def served(tenancy: Tenancy) -> Tenancy:
    await tenancy.start_worker()
    return tenancy


@pytest.fixture
async def client(served: Tenancy) -> AsyncIterator[Client]:
    async with mesh_api.connect(options=served.tenant("acme"), tenant="acme") as connected:
        yield connected


async def read(job: Job) -> str:
    return "".join([delta.text async for delta in job])


async def test_a_tenant_submits_streams_and_reads_as_in_a_mesh_of_its_own(served: Tenancy, client: Client) -> None:
    job = await client.submit(MODEL, "Once upon a time", max_tokens=40, id="mine")
    live = await read(job)
    result = await job
    assert (result.status, result.tenant, result.usage.completion_tokens) == ("finished", "acme", 40)
    assert live == result.text == (await client.result("mine")).text
    assert (await client.generate(MODEL, "Hello", max_tokens=3)).status == "finished"
    assert len(await client.embed(MODEL, ["one", "two"])) == 2
    assert served.refused("worker") == []


async def test_a_late_reader_gets_what_the_journal_has_from_the_service(client: Client) -> None:
    job = await client.submit(MODEL, "A long one", max_tokens=900, id="long")
    async for _ in job:
        break
    late = await read(client.job("long"))
    assert late == (await job).text
    resumed = [delta async for delta in client.job("long", index=890)]
    # Under load a delta holds several tokens: the first may begin before index 890 and reach beyond it.
    ends = [delta.index + len(delta.token_ids) for delta in resumed]
    assert sum(end - max(890, delta.index) for end, delta in zip(ends, resumed, strict=True)) == 10
    assert late == await read(client.job("long"))


async def test_a_tenant_asks_and_cancels(client: Client) -> None:
    job = await client.submit(MODEL, "Too long", max_tokens=5000)
    async for _ in job:
        break
    assert (await job.status()).status == "running"
    assert await job.cancel() == "cancelled"
    assert (await job).status == "cancelled"


async def test_what_is_not_there_is_said_at_once(client: Client) -> None:
    began = time.monotonic()
    with pytest.raises(errors.ModelNotFoundError, match=f"no model 'no-such' is deployed; there are: {MODEL}"):
        await client.submit("no-such", "Hello")
    with pytest.raises(errors.TooLargeError):
        await client.submit(MODEL, prompt_token_ids=[1] * 9000)
    with pytest.raises(errors.ResultNotFoundError):
        await client.result("never")
    with pytest.raises(errors.ResultNotFoundError):
        await client.job("never").result(5)
    assert time.monotonic() - began < 2


async def test_the_same_id_is_one_job_for_a_tenant_too(client: Client) -> None:
    first = await client.submit(MODEL, "Twice", max_tokens=300, id="twice")
    again = await client.submit(MODEL, "Twice", max_tokens=300, id="twice")
    assert await read(first) == await read(again)
    after = await client.submit(MODEL, "Twice", max_tokens=300, id="twice")
    assert handle_of(after).is_closed
    with pytest.raises(errors.InvalidRequestError, match="another metadata"):
        await client.submit(MODEL, "Twice", max_tokens=300, id="twice", metadata={"a": 1})


async def test_a_request_that_waits_for_a_worker_is_not_called_unknown(tenancy: Tenancy) -> None:
    """Nobody can say what is in the queue; the client goes on asking until somebody can."""
    async with mesh_api.connect(options=tenancy.tenant("acme"), tenant="acme") as client:
        await client.submit(MODEL, "Patience", max_tokens=5, id="waits")
        job = client.job("waits")
        with pytest.raises(errors.WaitTimeoutError):
            await job.result(3)
        await tenancy.start_worker()
        assert (await job.result(20)).status == "finished"


async def test_an_account_that_lists_no_permissions_is_as_good(tenancy: Tenancy) -> None:
    """Imports alone, as an operator may write them: nobody answers there, where else the server refuses."""
    await tenancy.start_worker()
    file = tenancy.folder / "nats" / "tenants.d" / "acme.conf"
    file.write_text(re.sub(r"default_permissions \{.*?\}", "", file.read_text(), flags=re.DOTALL))
    await tenancy.reload()
    async with mesh_api.connect(options=tenancy.tenant("acme"), tenant="acme") as client:
        job = await client.submit(MODEL, "Once upon a time", max_tokens=40, id="mine")
        assert await read(job) == (await job).text == await read(client.job("mine"))
        with pytest.raises(errors.ResultNotFoundError):
            await client.job("never").result(5)
        with pytest.raises(errors.ModelNotFoundError):
            await client.submit("no-such", "Hello")


async def test_a_result_too_large_for_a_message_reaches_its_tenant(tenancy: Tenancy) -> None:
    await tenancy.start_worker(SimulatorSettings(model=MODEL, embedding_dim=4096))
    async with mesh_api.connect(options=tenancy.tenant("acme"), tenant="acme") as client:
        vectors = await client.embed(MODEL, [f"text {number}" for number in range(40)], id="large")
        assert [len(vector) for vector in vectors] == [4096] * 40
        stored = await client.job("large")
        assert stored.embeddings == vectors
        with pytest.raises(errors.UnauthorizedError):
            await core_of(client).connection.request("$JS.API.STREAM.INFO.OBJ_mesh_objects")
    assert tenancy.refused("worker") == []


async def test_the_front_door_answers_across_accounts(served: Tenancy, client: Client) -> None:
    ask = json.dumps({"prompt": "Hello", "max_tokens": 30, "stream": True}).encode()
    answers = await core_of(client).connection.collect(
        f"mesh.rpc.acme.{MODEL}", ask, lambda header, payload: not payload, 20
    )
    kinds = [json.loads(payload)["type"] for _, payload in answers[:-1]]
    assert (kinds[0], kinds[-1]) == ("started", "result")
    header, _ = await core_of(client).connection.request("mesh.rpc.acme.no-such", b'{"prompt": "Hello"}')
    assert headers.parse(header)["Nats-Service-Error-Code"] == "404"


async def test_every_refusal_is_an_error_of_ours_long_before_a_timeout(served: Tenancy) -> None:
    async with mesh_api.connect(options=served.tenant("other"), tenant="acme") as thief:
        attempts: dict[str, Callable[[], Awaitable[object]]] = {
            "submit": lambda: thief.submit(MODEL, "For acme", id="x"),
            "generate": lambda: thief.generate(MODEL, "For acme"),
            "result": lambda: thief.result("x"),
            "wait": lambda: thief.job("x").result(5),
            "read": lambda: read(thief.job("x")),
            "cancel": lambda: thief.job("x").cancel(),
            "status": lambda: thief.job("x").status(),
            "workers": thief.workers,
        }
        for name, attempt in attempts.items():
            began = time.monotonic()
            with pytest.raises(errors.UnauthorizedError):
                await attempt()
            assert time.monotonic() - began < REFUSED_S, name


async def test_a_tenant_is_added_and_removed_while_another_streams(served: Tenancy, client: Client) -> None:
    job = await client.submit(MODEL, "Do not disturb", max_tokens=2000)
    streaming = asyncio.create_task(read(job))
    served.add("newcomer")
    await served.reload()
    async with mesh_api.connect(options=served.tenant("newcomer"), tenant="newcomer") as newcomer:
        assert (await newcomer.generate(MODEL, "Hello", max_tokens=3)).status == "finished"
    served.accounts.remove("newcomer")
    await served.reload()
    with pytest.raises(errors.UnauthorizedError):
        async with mesh_api.connect(options=served.tenant("newcomer"), tenant="newcomer"):
            pass
    assert not handle_of(job).is_closed, "it must still stream, or nothing was shown"
    assert await streaming == (await job).text
    assert core_of(client).connection.reconnects == 0


async def test_the_front_door_has_what_its_role_allows(tenancy: Tenancy) -> None:
    """A worker without a front door, and a front door alone."""
    await tenancy.start_worker(SimulatorSettings(model=MODEL, between_tokens_ms=20))
    async with (
        connect(tenancy.role("frontdoor")) as host,
        doors(Broker(host, Names()), "door", has_frontdoor=True),
        mesh_api.connect(options=tenancy.tenant("acme"), tenant="acme") as client,
    ):
        ask = json.dumps({"prompt": "Hello", "max_tokens": 5}).encode()
        for _ in range(8):  # each answered by one of the two
            _, answer = await core_of(client).connection.request(f"mesh.rpc.acme.{MODEL}", ask, timeout_s=10)
            assert json.loads(answer)["status"] == "finished"
            job = await client.submit(MODEL, "Hello", max_tokens=500)
            async for _ in job:
                break
            assert (await job.status()).status == "running"
            assert await job.cancel() == "cancelled"
    assert tenancy.refused("frontdoor") == tenancy.refused("worker") == []


async def test_limits_hold_with_what_the_roles_allow(tenancy: Tenancy) -> None:
    """At a worker, and at a front door of a role of its own."""
    await tenancy.start_worker()
    async with (
        connect(tenancy.role("operator")) as operator,
        connect(tenancy.role("frontdoor")) as host,
        doors(Broker(host, Names()), "door", has_frontdoor=True),
        mesh_api.connect(options=tenancy.tenant("acme"), tenant="acme") as client,
    ):
        limits: dict[str, int | None] = {
            "max_tokens": 10,
            "requests_per_minute": 500,
            "tokens_per_day": 10_000,
            "running": 2,
            "queued": 50,
        }
        await limit(Broker(operator, Names()), "acme", limits, is_cleared=False)

        async def refused_in_a_row() -> bool:
            for _ in range(8):  # each is answered by one of the two
                body = b'{"prompt": "x", "max_tokens": 11}'
                header, _ = await core_of(client).connection.request(f"mesh.rpc.acme.{MODEL}", body, timeout_s=10)
                if headers.parse(header).get("Nats-Service-Error-Code") != "413":
                    return False
            return True

        await wait_until(refused_in_a_row)
        asked = [client.generate(MODEL, "Hello", max_tokens=10) for _ in range(6)]
        assert {result.status for result in await asyncio.gather(*asked)} == {"finished"}
        straight = await client.generate(MODEL, "Hello", max_tokens=11)
        assert straight.error is not None
        assert (straight.status, straight.error.code) == ("failed", "too_large")
    assert tenancy.refused("frontdoor") == tenancy.refused("worker") == []


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        *(("worker", f"$JS.API.STREAM.{verb}.MESH_REQUESTS") for verb in ("CREATE", "UPDATE", "DELETE", "PURGE")),
        ("worker", "$JS.API.STREAM.RESTORE.MESH_REQUESTS"),
        ("worker", "$JS.API.STREAM.SNAPSHOT.MESH_REQUESTS"),
        ("worker", "$JS.API.STREAM.MSG.DELETE.MESH_EVENTS"),
        ("worker", "$JS.API.STREAM.DELETE.KV_mesh_results"),
        ("worker", "$JS.API.CONSUMER.DELETE.MESH_REQUESTS.simulator-standard-0"),
        ("frontdoor", "$JS.API.CONSUMER.MSG.NEXT.MESH_REQUESTS.simulator-standard-0"),
        ("frontdoor", "$JS.ACK.MESH_REQUESTS.simulator-standard-0.1.1.1.1.0"),
        ("frontdoor", "mesh.sys.drain.w"),
        ("monitor", "mesh.req.simulator.standard.acme.x"),
        ("monitor", "$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.acme.x"),
        ("monitor", "$JS.API.STREAM.MSG.GET.MESH_REQUESTS"),
        ("monitor", "mesh.ctl.acme.cancel.x"),
        ("operator", "$SYS.REQ.SERVER.PING"),
    ],
)
async def test_a_role_cannot_do_what_is_not_its_own(tenancy: Tenancy, user: str, subject: str) -> None:
    async with connect(tenancy.role(user)) as connection:
        with pytest.raises(errors.UnauthorizedError):
            await connection.request(subject, timeout_s=2)


async def test_a_monitor_hears_nobodys_answers(tenancy: Tenancy) -> None:
    async with connect(tenancy.role("monitor")) as monitor:
        assert (await monitor.request("$JS.API.STREAM.INFO.MESH_REQUESTS"))[1]
        monitor.subscribe("_INBOX.>", lambda *message: None)
        await wait_until(lambda: any('Subject "_INBOX.>"' in line for line in tenancy.refused("monitor")))


async def test_nobody_comes_in_without_a_key(tenancy: Tenancy) -> None:
    with pytest.raises(errors.UnauthorizedError):
        async with mesh_api.connect(tenancy.url):
            pass


def test_no_secret_lies_where_the_server_reads(tmp_path: Path) -> None:
    accounts_folder = tmp_path / "tenants.d"
    accounts_folder.mkdir()
    (accounts_folder / "index.conf").write_text("")
    key = tmp_path / "acme.nk"
    Accounts(accounts_folder, Names()).add("acme", key, AccountLimits())
    assert os.stat(key).st_mode & 0o777 == 0o600
    seed = key.read_text().strip()
    assert seed.startswith("SU")
    assert all(seed not in each.read_text() for each in accounts_folder.iterdir())
