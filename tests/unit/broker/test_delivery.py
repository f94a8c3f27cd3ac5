"""A stored request has an identity for its answer, even if its body is invalid."""

import msgspec
import pytest

from mesh.broker.stores.delivery import StoredRequest, read_delivery, read_stored, refusal
from mesh.errors import InvalidRequestError, TooLargeError, UnsupportedError
from mesh.protocol import headers
from mesh.protocol.messages import Request
from mesh.protocol.subjects import Names, RequestAddress

NAMES = Names()
SUBJECT = "mesh.req.demo.batch.acme.3"
ACK = "$JS.ACK.MESH_REQUESTS.demo-batch-3.2.17.4.1790000000123456789.9"


def stored(body: bytes, *pairs: tuple[str, str], subject: str = SUBJECT) -> StoredRequest:
    return read_stored(NAMES, subject, 17, body, headers.block(*pairs) if pairs else b"", 5)


def test_a_good_request_is_decoded() -> None:
    found = stored(b'{"id":"job-1","prompt":"a"}', ("traceparent", "00-ab-cd-01"), ("Nats-Msg-Id", "acme.other"))
    assert found.request == Request(id="job-1", prompt="a")
    assert (found.job, found.error, found.encoding) == ("job-1", None, "json")
    assert found.address == RequestAddress("demo", "batch", "acme", "3")
    assert found.traceparent == "00-ab-cd-01"


@pytest.mark.parametrize("version", ["", "1", "1.0", "1.44"])
def test_a_request_of_our_major_is_decoded(version: str) -> None:
    found = stored(b'{"id":"job-1","prompt":"a","later":1}', ("mesh-protocol", version))
    assert (found.job, found.request, found.error) == ("job-1", Request(id="job-1", prompt="a"), None)


@pytest.mark.parametrize(
    ("version", "kind"), [("2.0", UnsupportedError), ("0.9", UnsupportedError), ("two", InvalidRequestError)]
)
def test_a_request_of_another_major_is_no_request_and_has_its_name(version: str, kind: type[Exception]) -> None:
    found = stored(b'{"id":"job-1","prompt":"a"}', ("Mesh-Protocol", version))
    assert found.error is not None
    assert (found.job, found.request, type(found.error), found.error.field) == ("job-1", None, kind, "Mesh-Protocol")
    nameless = stored(b"what 2.0 sends", ("Mesh-Protocol", version), ("Nats-Msg-Id", "acme.job-9"))
    assert (nameless.job, type(nameless.error)) == ("job-9", kind)


def test_a_packed_request_is_decoded() -> None:
    body = msgspec.msgpack.encode({"id": "job-1", "prompt": "a"})
    found = stored(body, ("content-type", "application/msgpack"))
    assert (found.job, found.encoding, found.error) == ("job-1", "msgpack", None)


# name of the case, body, headers, job, error
IDENTITIES = [
    ("no id", b'{"prompt":"a"}', [], "s17", None),
    ("no id, and a header", b'{"prompt":"a"}', [("Nats-Msg-Id", "acme.job-9")], "s17", None),
    ("broken, with an id", b'{"id":"job-1","prompt":7}', [], "job-1", InvalidRequestError),
    (
        "broken, with an id and a header",
        b'{"id":"job-1","prompt":7}',
        [("Nats-Msg-Id", "acme.job-9")],
        "job-1",
        InvalidRequestError,
    ),
    ("no JSON", b"Hello", [], "s17", InvalidRequestError),
    ("no JSON, and a header", b"Hello", [("Nats-Msg-Id", "acme.job-9")], "job-9", InvalidRequestError),
    ("a header in small letters", b"Hello", [("nats-msg-id", "acme.job-9")], "job-9", InvalidRequestError),
    ("another tenant's header", b"Hello", [("Nats-Msg-Id", "evil.job-9")], "s17", InvalidRequestError),
    ("a header without tenant", b"Hello", [("Nats-Msg-Id", "job-9")], "s17", InvalidRequestError),
    ("a header with more dots", b"Hello", [("Nats-Msg-Id", "acme.job.9")], "s17", InvalidRequestError),
    ("a header with a wildcard", b"Hello", [("Nats-Msg-Id", "acme.>")], "s17", InvalidRequestError),
    ("an id that is a subject", b'{"id":"a.b","prompt":"a"}', [], "s17", InvalidRequestError),
    ("not served", b'{"id":"job-1","prompt":"a","n":2}', [], "job-1", UnsupportedError),
    ("not served, and no id", b'{"prompt":"a","n":2}', [("Nats-Msg-Id", "acme.job-9")], "job-9", UnsupportedError),
    (
        "too large",
        b'{"id":"job-1","prompt":"a","metadata":{"k":"' + b"v" * 20_000 + b'"}}',
        [],
        "job-1",
        TooLargeError,
    ),
    ("empty", b"", [], "s17", InvalidRequestError),
    (
        "another media type",
        b'{"id":"job-1","prompt":"a"}',
        [("Content-Type", "text/plain"), ("Nats-Msg-Id", "acme.job-1")],
        "job-1",
        UnsupportedError,
    ),
]


@pytest.mark.parametrize(("what", "body", "pairs", "job", "error"), IDENTITIES, ids=[each[0] for each in IDENTITIES])
def test_a_request_is_answered_under_the_best_name_it_has(
    what: str, body: bytes, pairs: list[tuple[str, str]], job: str, error: type[Exception] | None
) -> None:
    found = stored(body, *pairs)
    assert found.job == job
    assert type(found.error) is (error or type(None))
    assert (found.request is None) == (error is not None)
    assert found.body == body


def test_a_subject_of_another_form_has_no_address_and_no_identity_from_headers() -> None:
    found = stored(b"Hello", ("Nats-Msg-Id", "acme.job-9"), subject="mesh.req.demo")
    assert (found.address, found.job) == (None, "s17")


def test_a_trace_is_not_trusted_with_any_length() -> None:
    assert len(stored(b'{"prompt":"a"}', ("traceparent", "x" * 5000)).traceparent) == 128


@pytest.mark.parametrize(
    "reply",
    [
        ACK,
        "$JS.ACK.hub.ACCHASH.MESH_REQUESTS.demo-batch-3.2.17.4.1790000000123456789.9",
        "$JS.ACK._.ACCHASH.MESH_REQUESTS.demo-batch-3.2.17.4.1790000000123456789.9.random",
    ],
    ids=["short", "long", "long with a random end"],
)
def test_a_delivery_reads_what_jetstream_says_in_the_reply(reply: str) -> None:
    found = read_delivery(NAMES, SUBJECT.encode(), reply.encode(), b'{"id":"j","prompt":"a"}', b"")
    assert found is not None
    assert (found.consumer, found.delivered, found.pending) == ("demo-batch-3", 2, 9)
    assert found.stored.sequence == 17
    assert found.stored_unix_ms == 1_790_000_000_123
    assert found.ack_subject == reply
    assert found.job == "j"


@pytest.mark.parametrize(
    ("subject", "reply"),
    [
        (SUBJECT, ""),
        (SUBJECT, "_INBOX.x.1"),
        (SUBJECT, "$JS.ACK.S.c.1.2"),
        (SUBJECT, ACK.replace("$JS", "$KV")),
        ("mesh.out.demo.batch.acme.3", ACK),
        ("mesh.req.demo", ACK),
    ],
)
def test_what_is_no_delivery_of_a_request_is_none(subject: str, reply: str) -> None:
    assert read_delivery(NAMES, subject.encode(), reply.encode(), b"{}", b"") is None


def test_the_reason_of_a_refusal_is_the_requests_fault() -> None:
    found = read_delivery(NAMES, SUBJECT.encode(), ACK.encode(), b'{"prompt":7}', b"")
    assert found is not None
    assert refusal(found).field == "prompt"
