"""Dead letters on a real server: found, run again under their ids, removed; cut off anywhere, and by two at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mesh as mesh_api
from mesh.broker import topology
from mesh.broker.stores.deadletters import DeadLetter, DeadLetterFilter
from mesh.broker.stores.purge import purge_subject
from mesh.broker.topology import MeshSettings
from mesh.control.deadletters.service import DeadLetterService
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import ConfigError, QuotaExceededError, ResultNotFoundError, TopologyError
from mesh.job_key import JobKey
from mesh.protocol import codec, headers
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Result, Started
from mesh.signals import AttemptStarted
from tests.running import RunningMesh, present, running_mesh, wait_until

FAST = SimulatorSettings(model="simulator", first_token_ms=1, between_tokens_ms=1)
# The fault strikes all three attempts a job has, and then no more: what redriving is for.
MENDED = {"simulate": {"fail": True, "times": 3}}
POISON = {"simulate": {"fail": True}}
STEPS = ("clear_result", "clear_journal", "submit", "drop")


@dataclass
class Scene:
    """A mesh with one worker, and the dead letters of it."""

    mesh: RunningMesh
    dead_letters: DeadLetterService
    forged: int = 0
    signals: list[object] = field(default_factory=list)

    def attempts(self, job: str) -> int:
        """How often the worker began a job since it started."""
        return sum(1 for each in self.signals if isinstance(each, AttemptStarted) and each.job == job)

    async def letters(self, selection: DeadLetterFilter | None = None) -> list[DeadLetter]:
        return [each async for page in self.dead_letters.pages(selection or DeadLetterFilter()) for each in page]

    async def bury(
        self, job: str, metadata: dict[str, Any] = MENDED, tenant: str = "default", **fields: Any
    ) -> DeadLetter:
        """Have a job fail on all its attempts; its letter, once the worker let go of it."""
        encoding = fields.pop("encoding", "json")
        async with mesh_api.connect(self.mesh.url, tenant=tenant, encoding=encoding) as client:
            result = await client.generate("simulator", "A story", id=job, metadata=metadata, max_tokens=5, **fields)
        assert result.error is not None
        assert result.error.code == "attempts_exhausted"
        await self.mesh.wait_queue_empty()
        return (await self.dead_letters.find([job], DeadLetterFilter(tenant=tenant)))[-1]

    async def forge(self, body: bytes, at: str = "simulator.standard.default.0", **given: str | int) -> DeadLetter:
        """A letter that no worker of this mesh wrote; `given` are its headers."""
        self.forged += 1
        fields: dict[str, str | int] = {
            "Mesh-Job": "forged",
            "Nats-Msg-Id": f"dead-{self.forged}",
            "Mesh-Stored-Unix-Ms": 1,
        }
        fields |= {name.replace("_", "-"): value for name, value in given.items()}
        header = headers.block(*fields.items())
        _, payload = await self.mesh.connection.request(f"mesh.dead.{at}", body, header)
        found = await self.letters()
        return next(each for each in found if each.sequence == json.loads(payload)["seq"])

    async def wait_status(self, job: str, status: str, tenant: str = "default") -> Result:
        async def there() -> bool:
            found = await self.mesh.result(job, tenant)
            return found is not None and found.status == status

        await wait_until(there)
        await self.mesh.wait_queue_empty()
        return present(await self.mesh.result(job, tenant))

    async def state(self) -> list[tuple[int, int]]:
        """What changes with any write and any removal."""
        names = self.mesh.names
        streams = (names.requests_stream, names.events_stream, names.dead_stream, f"KV_{names.results_bucket}")
        found = [await topology.stream_state(self.mesh.connection, each) for each in streams]
        return [(each["messages"], each["last_seq"]) for each in found]


@pytest.fixture
async def still(tmp_path: Path) -> AsyncIterator[Scene]:
    """A mesh without a worker."""
    async with running_mesh(tmp_path / "nats") as running:
        yield Scene(running, DeadLetterService(running.broker))


@pytest.fixture
async def scene(still: Scene) -> Scene:
    await still.mesh.start_worker(FAST, observer=still.signals.append)
    return still


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_a_redriven_job_runs_again_under_its_id(scene: Scene, stream: bool, encoding: Encoding) -> None:
    letter = await scene.bury("j", stream=stream, encoding=encoding, tenant="acme")
    assert (letter.job, letter.attempts, letter.code) == ("j", 3, "attempts_exhausted")
    assert letter.stored_unix_ms <= letter.buried_unix_ms
    assert (await scene.dead_letters.redrive(letter)).verb == "redrive"
    result = await scene.wait_status("j", "finished", "acme")
    assert (result.attempts, result.usage.completion_tokens) == (1, 5)
    history = await scene.mesh.history("j", "acme")
    assert isinstance(history[-1], Result)
    if stream:
        assert isinstance(history[0], Started)
        assert history[0].attempt == 1
    assert await scene.letters() == []
    assert scene.attempts("j") == 4


async def test_the_request_is_stored_again_as_it_was_submitted(still: Scene) -> None:
    body = b'{ "prompt": "Hello",  "id":"forged", "unknown": 1}'
    letter = await still.forge(body, traceparent="00-ab-cd-01")
    await still.dead_letters.redrive(letter)
    queue = still.mesh.names.requests_stream
    _, payload = await still.mesh.connection.request(f"$JS.API.STREAM.MSG.GET.{queue}", b'{"seq": 1}')
    message = msgspec.json.decode(payload)["message"]
    assert codec.decode_json(payload)["message"]["subject"].startswith("mesh.req.simulator.standard.default.")
    assert msgspec.convert(message["data"], bytes, strict=False) == body
    header = headers.parse(msgspec.convert(message["hdrs"], bytes, strict=False))
    assert header == {"Nats-Msg-Id": "redrive-1", "traceparent": "00-ab-cd-01", "Mesh-Protocol": "1.0"}


async def test_looking_changes_nothing(scene: Scene) -> None:
    letter = await scene.bury("j")
    before = await scene.state()
    assert (await scene.dead_letters.plan(letter)).verb == "redrive"
    story = await scene.dead_letters.tell(letter)
    assert [each.number for each in story.attempts] == [1, 2, 3]
    assert all("simulated failure" in each.outcome for each in story.attempts)
    assert story.result is not None
    assert story.result.status == "failed"
    assert await scene.state() == before


@pytest.mark.parametrize("cut", range(len(STEPS) + 1))
@pytest.mark.parametrize("is_prompt", [True, False], ids=["at-once", "after-it-ended"])
async def test_a_redrive_that_was_cut_off_is_completed_by_the_next(scene: Scene, cut: int, is_prompt: bool) -> None:
    letter = await scene.bury("j")
    dead_letters, decision = scene.dead_letters, await scene.dead_letters.plan(letter)
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "clear_result": lambda: dead_letters.clear_result(letter, decision),
        "clear_journal": lambda: dead_letters.clear_journal(letter, decision),
        "submit": lambda: dead_letters.submit(letter, None),
        "drop": lambda: dead_letters.drop(letter),
    }
    for name in STEPS[:cut]:
        await steps[name]()
    is_submitted = "submit" in STEPS[:cut]
    assert len(await scene.letters()) == (0 if "drop" in STEPS[:cut] else 1)
    if is_submitted and not is_prompt:
        await scene.wait_status("j", "finished")
    await dead_letters.redrive(letter)
    result = await scene.wait_status("j", "finished")
    assert result.attempts == 1
    assert scene.attempts("j") == 4
    assert await scene.letters() == []


async def test_many_who_redrive_the_same_letter_at_once_run_it_once(scene: Scene) -> None:
    letter = await scene.bury("j")
    others = [DeadLetterService(scene.mesh.broker) for _ in range(8)]
    await asyncio.gather(*(dead_letters.redrive(letter) for dead_letters in others))
    await scene.wait_status("j", "finished")
    assert scene.attempts("j") == 4
    assert await scene.letters() == []


@pytest.mark.parametrize("is_poison", [False, True], ids=["finished", "buried-again"])
async def test_an_operator_who_acts_on_an_old_look_takes_nothing_from_the_later_run(
    scene: Scene, is_poison: bool
) -> None:
    letter = await scene.bury("j", POISON if is_poison else MENDED)
    old = await scene.dead_letters.plan(letter)
    await scene.dead_letters.redrive(letter)
    result = await scene.wait_status("j", "failed" if is_poison else "finished")
    history = await scene.mesh.history("j")
    await scene.dead_letters.clear_result(letter, old)
    await scene.dead_letters.clear_journal(letter, old)
    await scene.dead_letters.submit(letter, None)
    await scene.dead_letters.drop(letter)
    await scene.mesh.wait_queue_empty()
    assert await scene.mesh.result("j") == result
    assert await scene.mesh.history("j") == history
    assert len(await scene.letters()) == (1 if is_poison else 0)


async def test_a_job_that_is_queued_again_already_runs_once(still: Scene) -> None:
    """Somebody redrove it, no worker came, and the duplicate window is over."""
    letter = await still.forge(b'{"id": "forged", "prompt": "Hello", "max_tokens": 2}')
    other = (letter.body, headers.block(("Nats-Msg-Id", "other")))
    await still.mesh.connection.request("mesh.req.simulator.standard.default.x", *other)
    await still.mesh.connection.request("mesh.req.simulator.standard.default.y", b"{}")
    assert (await still.dead_letters.redrive(letter)).verb == "skip"  # sequence 1 is the forged letter's own request
    letter = await still.forge(letter.body, Nats_Msg_Id="dead-77")
    assert (await still.dead_letters.redrive(letter)).verb == "redrive"
    await still.mesh.start_worker(FAST, observer=still.signals.append)
    await still.wait_status("forged", "finished")
    assert still.attempts("forged") == 1


async def test_a_job_that_ran_again_since_loses_its_letter_and_keeps_its_result(scene: Scene) -> None:
    """Whoever redrove it died before the letter went, and the duplicate window may be over."""
    first = await scene.bury("j", POISON)
    decision = await scene.dead_letters.plan(first)
    await scene.dead_letters.clear_result(first, decision)
    await scene.dead_letters.clear_journal(first, decision)
    await scene.dead_letters.submit(first, None)
    result = await scene.wait_status("j", "failed")
    assert scene.attempts("j") == 6
    assert (await scene.dead_letters.redrive(first)).verb == "settle"
    assert await scene.mesh.result("j") == result
    (second,) = await scene.letters()
    assert second.request_sequence > first.request_sequence
    assert (await scene.dead_letters.plan(second)).verb == "redrive"


async def test_redriving_all_ends_though_every_job_fails_again(scene: Scene) -> None:
    await asyncio.gather(*(scene.bury(f"j{number}", POISON) for number in range(5)))
    treated = [letter.job for letter in await scene.letters() if await scene.dead_letters.redrive(letter)]
    assert sorted(treated) == [f"j{number}" for number in range(5)]

    async def all_are_back() -> bool:
        return len(await scene.letters()) == 5

    await wait_until(all_are_back)


async def test_letters_that_come_while_pages_are_read_are_not_read(still: Scene) -> None:
    request, subject = still.mesh.connection.request, "mesh.dead.simulator.standard.default.0"
    for number in range(300):
        await request(subject, b"{}", headers.block(("Mesh-Job", f"j{number}")))
    seen = []
    async for page in still.dead_letters.pages(DeadLetterFilter()):
        seen += page
        await request(subject, b"{}", headers.block(("Mesh-Job", "late")))
    assert [each.job for each in seen] == [f"j{number}" for number in range(300)]


async def test_a_job_without_an_id_keeps_the_one_it_was_given(scene: Scene) -> None:
    body = codec.encode({"prompt": "A story", "metadata": MENDED, "max_tokens": 5})
    await scene.mesh.connection.request("mesh.req.simulator.standard.default.x", body)
    await scene.wait_status("s1", "failed")
    (letter,) = await scene.dead_letters.find(["s1"], DeadLetterFilter())
    await scene.dead_letters.redrive(letter)
    assert (await scene.wait_status("s1", "finished")).attempts == 1
    assert await scene.mesh.result("s2") is None


async def test_a_job_past_its_deadline_is_skipped_unless_it_gets_a_new_one(scene: Scene) -> None:
    body = codec.encode(
        {"id": "forged", "prompt": "Hi", "max_tokens": 2, "deadline_unix_ms": 1, "extra": [1]}, "msgpack"
    )
    letter = await scene.forge(body, Content_Type=headers.MSGPACK)
    decision = await scene.dead_letters.redrive(letter)
    assert decision.verb == "skip"
    assert "--deadline" in decision.why
    assert len(await scene.letters()) == 1
    assert (await scene.dead_letters.redrive(letter, 60)).verb == "redrive"
    assert (await scene.wait_status("forged", "finished")).usage.completion_tokens == 2


async def test_a_job_its_worker_still_ends_is_skipped(still: Scene) -> None:
    """Buried, and the worker died before it stored the Result: the next delivery does that."""
    _, payload = await still.mesh.connection.request("mesh.req.simulator.standard.default.x", b'{"id": "forged"}')
    letter = await still.forge(b'{"id": "forged"}', Nats_Msg_Id=f"dead-{json.loads(payload)['seq']}")
    before = await still.state()
    decision = await still.dead_letters.redrive(letter)
    assert (decision.verb, "try again" in decision.why) == ("skip", True)
    assert await still.state() == before


async def test_a_job_for_a_model_nobody_deployed_is_skipped(still: Scene) -> None:
    letter = await still.forge(b'{"id": "forged", "prompt": "Hi"}', "nobody.standard.default.0")
    assert (await still.dead_letters.redrive(letter)).verb == "skip"
    assert len(await still.letters()) == 1


async def test_a_job_that_finished_after_all_is_not_run_again(still: Scene) -> None:
    letter = await still.forge(b'{"id": "forged", "prompt": "Hi"}')
    finished = Result(id="forged", tenant="default", model="m", status="finished", text="!", created_unix_ms=1)
    store = still.mesh.broker.results
    await store.create(JobKey("default", "forged"), codec.encode(finished), 60_000)
    assert (await still.dead_letters.redrive(letter)).verb == "settle"
    assert await still.mesh.result("forged") == finished
    assert await still.letters() == []
    assert await still.mesh.queued() == 0


async def test_the_marker_of_a_deleted_result_does_not_stop_the_next(scene: Scene) -> None:
    letter = await scene.bury("j")
    key = scene.mesh.names.result_key(JobKey("default", "j"))
    await scene.mesh.connection.request(key, b"", headers.block(("KV-Operation", "DEL")))
    assert (await scene.dead_letters.redrive(letter)).verb == "redrive"
    await scene.wait_status("j", "finished")


async def test_a_body_that_is_no_request_is_refused_under_its_own_id(scene: Scene) -> None:
    letter = await scene.forge(b"\xff\x00", Mesh_Job="broken")
    decision = await scene.dead_letters.redrive(letter)
    assert (decision.verb, "refused" in decision.why) == ("redrive", True)
    result = await scene.wait_status("broken", "failed")
    assert result.error is not None
    assert result.error.code == "invalid_request"


async def test_names_that_are_no_tokens_reach_no_subject(still: Scene) -> None:
    await still.mesh.connection.request("mesh.out.default.j", b"{}")
    for at, job in (("simulator.standard.*.0", "j"), ("simulator.standard.default.0", "*")):
        letter = await still.forge(b'{"prompt": "Hi"}', at, Mesh_Job=job)
        before = await still.state()
        assert (await still.dead_letters.redrive(letter, 60)).verb == "skip"
        assert (await still.dead_letters.tell(letter)).attempts == []
        assert await still.state() == before
    with pytest.raises(ValueError, match="more than one subject"):
        await purge_subject(still.mesh.connection, still.mesh.names.events_stream, "mesh.out.*.j", 9)


async def test_a_letter_without_our_headers_is_listed_and_can_be_dropped(still: Scene) -> None:
    await still.mesh.connection.request("mesh.dead.simulator.standard.default.0", b"?")
    (letter,) = await still.letters()
    assert (letter.job, letter.attempts, letter.request_sequence, letter.reason) == ("", 0, 0, "")
    assert (await still.dead_letters.redrive(letter)).verb == "skip"
    assert await still.dead_letters.drop(letter)
    assert not await still.dead_letters.drop(letter)
    assert await still.letters() == []
    assert (await still.dead_letters.redrive(letter)).verb == "skip"


async def test_dropping_keeps_the_result(scene: Scene) -> None:
    letter = await scene.bury("j")
    assert await scene.dead_letters.drop(letter)
    assert present(await scene.mesh.result("j")).status == "failed"
    assert (await scene.dead_letters.redrive(letter)).verb == "gone"


async def test_a_full_queue_refuses_and_the_letter_stays(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1, queue_limit=1)) as running:
        scene = Scene(running, DeadLetterService(running.broker))
        await running.connection.request("mesh.req.simulator.standard.default.x", b'{"id": "other", "prompt": "Hi"}')
        letter = await scene.forge(b'{"id": "forged", "prompt": "Hi"}', Nats_Msg_Id="dead-9")
        with pytest.raises(QuotaExceededError):
            await scene.dead_letters.redrive(letter)
        assert len(await scene.letters()) == 1
        await running.start_worker(FAST)
        await running.wait_queue_empty()
        assert (await scene.dead_letters.redrive(letter)).verb == "redrive"
        await scene.wait_status("forged", "finished")


async def test_letters_are_selected_by_what_they_are_of(still: Scene) -> None:
    await still.forge(b"{}", "a.batch.t.0", Mesh_Job="j1", Mesh_Error_Code="engine_error")
    await still.forge(b"{}", "a.standard.t.3", Mesh_Job="j2")
    last = await still.forge(b"{}", "b.standard.u.0", Mesh_Job="j2", Mesh_Error_Code="engine_error")

    async def jobs(**selected: Any) -> list[str]:
        return [each.job for each in await still.letters(DeadLetterFilter(**selected))]

    assert await jobs(model="a") == ["j1", "j2"]
    assert await jobs(model="a", tier="batch") == ["j1"]
    assert await jobs(tenant="u") == ["j2"]
    assert await jobs(code="engine_error") == ["j1", "j2"]
    assert await jobs(code="nothing") == []
    assert await jobs(since_unix_ms=last.buried_unix_ms + 60_000) == []
    assert await jobs(since_unix_ms=last.buried_unix_ms - 60_000) == ["j1", "j2", "j2"]
    with pytest.raises(ConfigError, match="several tenants"):
        await still.dead_letters.find(["j2"], DeadLetterFilter())
    assert [each.sequence for each in await still.dead_letters.find(["j2"], DeadLetterFilter(tenant="u"))] == [
        last.sequence
    ]
    with pytest.raises(ResultNotFoundError, match="no dead letter of job j9"):
        await still.dead_letters.find(["j1", "j9"], DeadLetterFilter())


async def test_without_the_stream_it_says_how_to_make_one(still: Scene) -> None:
    await still.mesh.connection.request(f"$JS.API.STREAM.DELETE.{still.mesh.names.dead_stream}")
    with pytest.raises(TopologyError, match="mesh init"):
        await still.letters()
