"""Calls that wait for an answer: each is answered exactly once."""

from collections.abc import AsyncIterator

import pytest

from mesh.broker.transport.calls import Calls
from mesh.broker.transport.options import ConnectOptions
from mesh.errors import BrokerTimeoutError, DisconnectedError, MeshError, UnavailableError
from tests.running import wait_until


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    made = Calls("_INBOX.x.")
    yield made
    made.close()


class Answers(list[tuple[MeshError | None, bytes, bytes]]):
    def __call__(self, error: MeshError | None, header: bytes, payload: bytes) -> None:
        self.append((error, header, payload))


async def test_an_answer_reaches_its_caller_once(calls: Calls) -> None:
    answers = Answers()
    inbox = calls.enter("a", answers, 5.0)
    assert inbox.startswith("_INBOX.x.")
    calls.heard(inbox.encode(), b"", b"payload", b"header")
    calls.heard(inbox.encode(), b"", b"again", b"")
    assert answers == [(None, b"header", b"payload")]
    assert len(calls) == 0


async def test_nobody_there_is_said_by_the_server(calls: Calls) -> None:
    answers = Answers()
    calls.heard(calls.enter("a.b", answers, 5.0).encode(), b"", b"", b"NATS/1.0 503\r\n\r\n")
    assert isinstance(answers[0][0], UnavailableError)
    assert "a.b" in str(answers[0][0])


async def test_a_503_with_a_body_is_an_answer(calls: Calls) -> None:
    answers = Answers()
    calls.heard(calls.enter("a", answers, 5.0).encode(), b"", b"{}", b"NATS/1.0 503\r\n\r\n")
    assert answers == [(None, b"NATS/1.0 503\r\n\r\n", b"{}")]


async def test_a_call_without_an_answer_times_out(calls: Calls) -> None:
    late, early = Answers(), Answers()
    calls.enter("late", late, 0.05)
    calls.enter("early", early, 60.0)
    await wait_until(lambda: late, 2.0)
    assert isinstance(late[0][0], BrokerTimeoutError)
    assert early == []
    assert len(calls) == 1


async def test_a_call_for_many_hears_them_all_until_it_is_left(calls: Calls) -> None:
    answers = Answers()
    inbox = calls.enter("a", answers, 5.0, many=True)
    for payload in (b"1", b"2"):
        calls.heard(inbox.encode(), b"", payload, b"")
    calls.leave(inbox)
    calls.heard(inbox.encode(), b"", b"3", b"")
    assert [payload for _, _, payload in answers] == [b"1", b"2"]


async def test_only_the_calls_that_are_meant_fail(calls: Calls) -> None:
    one, two = Answers(), Answers()
    calls.enter("a", one, 5.0)
    calls.enter("b", two, 5.0)
    calls.fail(lambda subject: DisconnectedError(subject), only=lambda subject: subject == "a")
    assert (str(one[0][0]), two) == ("a", [])


async def test_one_callers_fault_does_not_keep_the_others_waiting(
    calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    answers = Answers()

    def broken(error: MeshError | None, header: bytes, payload: bytes) -> None:
        raise RuntimeError("a caller's own fault")

    calls.enter("a", broken, 5.0)
    calls.enter("b", answers, 5.0)
    calls.fail(lambda subject: DisconnectedError(subject))
    assert len(answers) == 1
    assert "a reply handler failed" in caplog.text


async def test_an_answer_to_nobody_is_ignored(calls: Calls) -> None:
    calls.heard(b"_INBOX.x.ffff", b"", b"", b"")
    calls.heard(b"", b"", b"", b"")


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://me:secret@host:4222", "nats://host:4222"),
        ("tls://token@host", "tls://host"),
        ("me:secret@host:4222", "host:4222"),
        ("nats://me:p@ss@host", "nats://host"),
    ],
)
def test_no_secret_is_shown_in_an_address(server: str, shown: str) -> None:
    options = ConnectOptions(servers=(server,), user="me", password="hunter2", token="hunter2")
    assert repr(options) == f"ConnectOptions({shown})"
