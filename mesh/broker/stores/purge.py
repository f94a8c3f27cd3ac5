"""Removing what a subject holds, up to one message: how what an earlier run of a job left is cleared away.

Used by broker/stores/results and broker/stores/journal, for control/deadletters/service.
"""

import msgspec

from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mapping import read_api


async def purge_subject(connection: Connection, stream: str, subject: str, last: int) -> int:
    """Remove the messages of `subject` up to stream sequence `last`, that one included; how many there were.

    What was written after `last` stays, so a caller that looked a moment ago takes nothing from anybody who wrote
    since. No marker is left: with nothing after `last`, the subject's last sequence is 0 again.

    Raises:
        ValueError: `subject` is not one subject.
        BrokerError: JetStream refused, or did not answer.
    Source: JetStream API, STREAM.PURGE ("seq: purge up to but not including this sequence").
    """
    if {"*", ">"} & set(subject.split(".")):
        raise ValueError(f"{subject!r} names more than one subject")
    body = msgspec.json.encode({"filter": subject, "seq": last + 1})
    _, payload = await connection.request(f"$JS.API.STREAM.PURGE.{stream}", body, timeout_s=10.0)
    return int(read_api(payload, f"purge {subject}").get("purged", 0))
