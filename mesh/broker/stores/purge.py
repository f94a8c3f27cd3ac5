"""Removes the messages of one subject up to a sequence, such as those of a job's earlier run."""

import msgspec

from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mapping import read_api


async def purge_subject(connection: Connection, stream: str, subject: str, last: int) -> int:
    """Remove the messages of `subject` up to stream sequence `last`, that one included; how many there were.

    Later messages stay, so a caller that read the subject before removes nothing that was written since. No marker is
    left: without later messages, the subject's last sequence is 0 again.

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
