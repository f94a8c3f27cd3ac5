"""`mesh pause`, `mesh resume`, `mesh drain`: tables, JSON, exit codes, and what they do."""

import json
from collections.abc import Iterator

import pytest

import mesh as library
from mesh.cli.act.steer import pause_words
from mesh.control.pausing import FOR_EVER_S, Queue
from tests.cli.conftest import Cli


@pytest.fixture
def declared(mesh: Cli) -> Iterator[Cli]:
    """`mesh` with the queue of model `chat`, and nobody who serves it."""
    assert mesh.call("init", "--apply", "--model", "chat").returncode == 0
    yield mesh
    mesh.call("resume", "chat")


def test_a_pause_shows_what_waits_in_every_tier(declared: Cli) -> None:
    with library.blocking.connect(declared.url) as client:
        client.submit("chat", "Hello", tier="batch", deadline_unix_ms=2_000_000_000_000)
    ended = declared.run("pause", "chat", "--for", "10m")
    assert ended.returncode == 0, ended.stderr
    assert [line.split() for line in ended.stdout.splitlines()] == [
        ["queue", "state", "waiting", "running"],
        ["chat/interactive", "paused", "for", "10m", "0", "0"],
        ["chat/standard", "paused", "for", "10m", "0", "0"],
        ["chat/batch", "paused", "for", "10m", "1", "0"],
    ]
    assert "deadlines still count" in ended.stderr

    resumed = declared.call("resume", "chat")
    assert resumed.returncode == 0
    assert resumed.stdout.count(" open ") == 3
    assert "3 of 3 queues had been paused." in resumed.stderr
    assert "none was paused." in declared.call("resume", "chat").stderr


def test_one_tier_is_paused_until_it_is_resumed_and_told_as_json(declared: Cli) -> None:
    paused = json.loads(declared.call("pause", "chat/standard", "--json").stdout)
    (queue,) = paused["queues"]
    assert (queue["model"], queue["tier"], queue["lanes"], queue["paused_lanes"]) == ("chat", "standard", 4, 4)
    assert (queue["is_paused"], queue["was_paused"], queue["goes_on_in_s"]) == (True, False, None)
    again = json.loads(declared.call("pause", "chat/standard", "--for", "90s", "--json").stdout)
    assert again["queues"][0]["was_paused"]
    assert 80 < again["queues"][0]["goes_on_in_s"] <= 90
    resumed = json.loads(declared.call("resume", "chat", "--json").stdout)
    assert [each["was_paused"] for each in resumed["queues"]] == [False, True, False]
    assert not any(each["is_paused"] for each in resumed["queues"])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["pause", "other"], 3, "no queue of other is declared; there are models: chat"),
        (["resume", "other/batch"], 3, "there are models: chat"),
        (["pause", "chat/urgent"], 3, "interactive, standard, batch"),
        (["pause", "chat", "--for", "soon"], 2, "not a span of time"),
        (["pause", "chat", "--for", "0"], 2, "no time"),
        (["pause", "chat", "--namespace", "void"], 3, "mesh init"),
    ],
)
def test_what_cannot_be_paused_is_one_line_and_a_code(
    declared: Cli, arguments: list[str], code: int, text: str
) -> None:
    ended = declared.call(*arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert text in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("lanes", "pause_s", "words"),
    [
        (0, 0.0, "open"),
        (4, FOR_EVER_S, "paused"),
        (4, 89.7, "paused for 1m"),
        (1, 42.0, "paused for 42s (1 of 4 lanes)"),
    ],
)
def test_a_pause_in_words(lanes: int, pause_s: float, words: str) -> None:
    assert pause_words(Queue("m", "batch", 0, 0, 4, lanes, pause_s)) == words
