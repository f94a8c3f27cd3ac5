"""How subjects are built and read, and what may become part of one."""

from typing import Any

import pytest

from mesh.errors import InvalidRequestError
from mesh.job_key import JobKey
from mesh.protocol.subjects import (
    MAX_REPLY_BYTES,
    Names,
    RequestAddress,
    check_tier,
    check_token,
    is_token,
    to_token,
)

GOOD = ["a", "A-z_09", "-", "_", "0", "j" * 64, "w-3f"]
BAD: list[Any] = [
    "",
    " ",
    "a b",
    "a.b",
    ".",
    "..",
    "*",
    ">",
    "a*",
    "a>",
    "$JS",
    "a\n",
    "\n",
    "a\r\nPUB x 0",
    "a\x00",
    "\x7f",
    "é",
    "\uff41",
    "٣",
    "\u200b",
    "🦜",
    "\ud800",
    "j" * 65,
    "a/b",
    "a:b",
    "a,b",
    "{{wildcard(1)}}",
    None,
    7,
    True,
    b"a",
    ["a"],
    {},
]


@pytest.mark.parametrize("value", GOOD)
def test_a_token_is_letters_digits_dash_and_underscore(value: str) -> None:
    assert is_token(value)
    assert check_token("id", value) == value


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_anything_else_is_no_token(value: object) -> None:
    assert not is_token(value)
    with pytest.raises(InvalidRequestError) as refused:
        check_token("id", value)
    assert refused.value.field == "id"
    assert len(str(refused.value)) < 200


def test_a_refusal_shows_the_start_of_what_was_given() -> None:
    with pytest.raises(InvalidRequestError, match=r"'x{70,76}…"):
        check_token("id", "x" * 100_000)


@pytest.mark.parametrize("value", ["interactive", "standard", "batch"])
def test_there_are_three_tiers(value: str) -> None:
    assert check_tier(value) == value


@pytest.mark.parametrize("value", ["", "Standard", "urgent", None, 1])
def test_any_other_tier_is_refused(value: int | str | None) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        check_tier(value)
    assert refused.value.field == "tier"
    assert "interactive, standard, batch" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("Qwen/Qwen2.5-0.5B", "Qwen2-5-0-5B"),
        ("demo", "demo"),
        ("/models/My Model/", "My-Model"),
        ("модель", "model"),
        ("", "model"),
        ("///", "model"),
        ("x" * 100, "x" * 64),
        ("a..b", "a-b"),
    ],
)
def test_a_token_is_made_of_any_name(name: str, token: str) -> None:
    assert to_token(name) == token
    assert is_token(token)


@pytest.mark.parametrize("namespace", ["", "a.b", "*", "mesh ", "n" * 65])
def test_a_namespace_is_a_token(namespace: str) -> None:
    with pytest.raises(InvalidRequestError, match="namespace"):
        Names(namespace)


def test_the_subjects_are_those_of_the_protocol() -> None:
    names = Names()
    assert names.request("demo", "standard", "default", "x") == "mesh.req.demo.standard.default.x"
    assert names.events(JobKey("default", "job-1")) == "mesh.out.default.job-1"
    assert names.dead(RequestAddress("demo", "batch", "t", "3")) == "mesh.dead.demo.batch.t.3"
    assert names.control("t", "cancel", "j") == "mesh.ctl.t.cancel.j"
    assert names.system("cancel", "t", "j") == "mesh.sys.cancel.t.j"
    assert names.attempts(JobKey("t", "j")) == "mesh.sys.attempts.t.j"
    assert names.result_key(JobKey("t", "j")) == "$KV.mesh_results.t.j"
    assert names.worker_key("w") == "$KV.mesh_workers.w"
    assert names.consumer("demo", "batch", 2) == "demo-batch-2"


def test_the_streams_and_buckets_are_those_of_the_protocol() -> None:
    names = Names()
    assert [names.requests_stream, names.events_stream, names.dead_stream, names.audit_stream] == [
        "MESH_REQUESTS",
        "MESH_EVENTS",
        "MESH_DEAD",
        "MESH_AUDIT",
    ]
    assert [names.results_bucket, names.workers_bucket, names.objects_bucket] == [
        "mesh_results",
        "mesh_workers",
        "mesh_objects",
    ]


def test_a_namespace_names_everything() -> None:
    names = Names("lab")
    assert names.requests_stream == "LAB_REQUESTS"
    assert names.results_bucket == "lab_results"
    assert names.events(JobKey("t", "j")) == "lab.out.t.j"


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "mesh",
        "mesh.req.demo.standard.default",
        "mesh.req.demo.standard.default.0.more",
        "mesh.out.demo.standard.default.0",
        "lab.req.demo.standard.default.0",
        "MESH.req.demo.standard.default.0",
    ],
)
def test_a_subject_of_another_form_is_no_request(subject: str) -> None:
    assert Names().read_request(subject) is None


@pytest.mark.parametrize(
    "reply",
    [
        "_INBOX.abc.1",
        "answers.for.me",
        "meshed.up",
        "other.mesh.out.t.j",
        "é",
        "r" * MAX_REPLY_BYTES,
    ],
)
def test_a_requester_is_answered_where_it_may_listen(reply: str) -> None:
    assert Names().may_answer(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "mesh.out.t.j",
        "mesh.req.m.standard.t.x",
        "mesh.sys.drain.w",
        "mesh.",
        "$JS.API.STREAM.DELETE.MESH_EVENTS",
        "$JS.ACK.MESH_REQUESTS.c.1.1.1.1.0",
        "$KV.mesh_results.t.j",
        "$SYS.REQ.SERVER.PING",
        "$O.mesh_objects.M.x",
        "$",
        "r" * (MAX_REPLY_BYTES + 1),
        "é" * (MAX_REPLY_BYTES // 2 + 1),
    ],
)
def test_nobody_is_answered_into_the_mesh_or_into_nats_itself(reply: str) -> None:
    assert not Names().may_answer(reply)


def test_what_is_the_mesh_depends_on_its_namespace() -> None:
    assert Names("lab").may_answer("mesh.out.t.j")
    assert not Names("lab").may_answer("lab.out.t.j")
