"""The faces of `Client` and `Job`: what programs may call and nothing else, alike with and without a loop."""

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh.blocking import BlockingClient, BlockingJob
from mesh.broker.stores.journal import Entry
from mesh.client import internal
from mesh.client.client import Client
from mesh.client.job import Job
from mesh.job_key import JobKey
from mesh.protocol.messages import JobStatus, Result

ROOT = Path(__file__).parents[2]

CLIENT = {"submit", "generate", "embed", "job", "result", "workers", "protocol"}
FACTS = {"id", "tenant", "model", "sequence"}
JOB = FACTS | {"result", "deltas", "status", "cancel", "close"}
FACES: dict[type, set[str]] = {
    mesh.Client: CLIENT | {"protocol", "aclose"},
    mesh.Job: JOB,
    BlockingClient: CLIENT | {"protocol", "close"},
    BlockingJob: JOB,
}
TWINS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    (mesh.connect, mesh.blocking.connect),
    *(
        (getattr(mesh.Client, name), getattr(BlockingClient, name))
        for name in sorted(CLIENT)
        if callable(getattr(mesh.Client, name))
    ),
    (mesh.Client.aclose, BlockingClient.close),
    *(
        (getattr(mesh.Job, name), getattr(BlockingJob, name))
        for name in sorted(JOB)
        if callable(getattr(mesh.Job, name))
    ),
]

# An annotation of the asynchronous face, as the blocking one says it.
AS_BLOCKING = {
    "Connecting": "BlockingClient",
    "Job": "BlockingJob",
    "AsyncGenerator[Delta | Restarted, None]": "Generator[Delta | Restarted, None, None]",
}

REACHING = r"\b(client|job)\._(core|resources|handle|loop|client|job)$"

each_face = pytest.mark.parametrize("face", FACES, ids=[face.__name__ for face in FACES])
each_twin = pytest.mark.parametrize(("ours", "twin"), TWINS, ids=[f"{twin.__qualname__}" for _, twin in TWINS])


def public_names(face: object) -> set[str]:
    return {name for name in dir(face) if not name.startswith("_")}


@each_face
def test_a_face_shows_what_programs_may_call_and_nothing_else(
    face: type[BlockingClient] | type[BlockingJob] | type[Client] | type[Job],
) -> None:
    assert public_names(face) == FACES[face]


async def test_neither_has_an_instance_anything_more() -> None:
    class Answers:
        async def read_journal(self, job: str, after: int, limit: int) -> list[Entry]:
            return []

        async def load_result(self, result: Result) -> Result:
            return result

        async def cancel_job(self, job: str, timeout_s: float) -> str:
            return ""

        async def job_status(self, job: str, timeout_s: float) -> JobStatus:
            raise AssertionError("nothing here asks")

        def outlook(self) -> str:
            return ""

        def forget(self, job: object) -> None: ...

    handle = internal.JobHandle(Answers(), JobKey("t", "j"), 60, is_new=True)
    job = mesh.Job(handle)
    assert public_names(job) == JOB
    assert internal.handle_of(job) is handle
    job.close()


@each_face
def test_each_of_them_says_what_it_does(
    face: type[BlockingClient] | type[BlockingJob] | type[Client] | type[Job],
) -> None:
    for name in public_names(face):
        text = inspect.getdoc(getattr(face, name)) or ""
        assert len(text) > 20, name
        assert not text.startswith("As `"), f"{face.__name__}.{name} only points elsewhere"


@each_twin
def test_the_blocking_twin_takes_the_same_and_returns_the_same(
    ours: Callable[..., Any], twin: Callable[..., Any]
) -> None:
    asked, offered = inspect.signature(ours), inspect.signature(twin)
    assert list(asked.parameters.values()) == list(offered.parameters.values())
    assert shown(offered.return_annotation) == AS_BLOCKING.get(
        shown(asked.return_annotation), shown(asked.return_annotation)
    )
    assert not inspect.iscoroutinefunction(twin)


@each_twin
def test_no_parameter_of_them_is_untyped(ours: Callable[..., Any], twin: Callable[..., Any]) -> None:
    for function in (ours, twin):
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name != "self":
                assert parameter.annotation not in (inspect.Parameter.empty, Any), parameter


def test_properties_are_the_same_with_and_without_a_loop() -> None:
    pairs = [(getattr(mesh.Job, name), getattr(BlockingJob, name)) for name in sorted(FACTS)]
    for ours, twin in [(mesh.Client.protocol, BlockingClient.protocol), *pairs]:
        assert inspect.signature(ours.fget) == inspect.signature(twin.fget)


def shown(annotation: Any) -> str:
    """An annotation without the modules of its names."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def python_files() -> list[Path]:
    return [path for room in ("mesh", "tests", "examples") for path in sorted((ROOT / room).rglob("*.py"))]


def test_there_is_one_door_to_what_is_behind_the_faces() -> None:
    """Other rooms, and tests, import `mesh.client.internal`; nobody reaches into a client or a job."""
    faults = []
    for path in python_files():
        if path.is_relative_to(ROOT / "mesh" / "client"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mesh.client._"):
                faults.append(f"{path}:{node.lineno} imports {node.module}")
            elif isinstance(node, ast.Attribute) and re.search(REACHING, ast.unparse(node)):
                faults.append(f"{path}:{node.lineno} reaches into {ast.unparse(node)}")
    assert faults == []
