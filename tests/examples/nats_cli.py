"""A stand-in for the stock `nats` CLI where that is not installed: the commands of our documentation, and no other.

Each sends what natscli sends, request by request, and prints what it prints of the payload. Whatever it does not know
is an error, so that a line in our documentation cannot pass by being ignored.
Source: natscli (cli/pub_command.go, sub_command.go, req_command.go, kv_command.go, consumer_command.go,
stream_command.go, service_command.go), jsm.go (streams.go, consumers.go) and nats.go (jetstream/kv.go, stream.go), of
July 2026.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

TIMEOUT_S = 5.0  # --timeout of natscli
CHUNK_BYTES = 128 * 1024  # of a backup


def main(arguments: list[str]) -> None:
    """One command line."""
    options = parser().parse_args(arguments)
    asyncio.run(run(options))


def parser() -> argparse.ArgumentParser:
    """The flags that our documentation uses."""
    top = argparse.ArgumentParser("nats", allow_abbrev=False)
    commands = top.add_subparsers(required=True)

    def command(
        group: "argparse._SubParsersAction[argparse.ArgumentParser]",
        name: str,
        does: Callable[..., Awaitable[None]],
        *positional: str,
    ) -> argparse.ArgumentParser:
        made = group.add_parser(name, allow_abbrev=False)
        made.set_defaults(does=does)
        for each in positional:
            made.add_argument(each)
        return made

    pub = command(commands, "pub", publish, "subject", "body")
    pub.add_argument("-J", "--jetstream", action="store_true")
    pub.add_argument("-H", "--header", action="append", default=[])
    sub = command(commands, "sub", subscribe, "subject")
    sub.add_argument("--stream")
    sub.add_argument("--all", action="store_true")
    sub.add_argument("--raw", action="store_true")
    sub.add_argument("--wait", type=duration)
    req = command(commands, "req", request, "subject", "body")
    req.add_argument("--raw", action="store_true")
    req.add_argument("--wait-for-empty", action="store_true")
    req.add_argument("--reply-timeout", type=duration, default=0.3)
    req.add_argument("--timeout", type=duration, default=TIMEOUT_S)
    kv = commands.add_parser("kv").add_subparsers(required=True)
    command(kv, "get", kv_get, "bucket", "key").add_argument("--raw", action="store_true", required=True)
    consumer = commands.add_parser("consumer").add_subparsers(required=True)
    command(consumer, "report", consumer_report, "stream")
    stream = commands.add_parser("stream").add_subparsers(required=True)
    command(stream, "report", stream_report)
    command(stream, "subjects", stream_subjects, "stream").add_argument("filter", nargs="?", default=">")
    command(stream, "backup", stream_backup, "stream", "target")
    command(stream, "restore", stream_restore, "file")
    command(stream, "get", stream_get, "stream").add_argument("--last-for", "-S", required=True)
    micro = commands.add_parser("micro").add_subparsers(required=True)
    command(micro, "ls", micro_list)
    command(micro, "info", micro_info, "service")
    command(micro, "stats", micro_stats, "service")
    return top


def duration(text: str) -> float:
    """Seconds of a duration such as 3s or 500ms, as Go writes it."""
    unit = "ms" if text.endswith("ms") else text[-1]
    return float(text.removesuffix(unit)) * {"ms": 0.001, "s": 1, "m": 60}[unit]


async def run(options: argparse.Namespace) -> None:
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    try:
        await options.does(client, options)
    finally:
        await client.close()


def log(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def show(body: bytes) -> None:
    """A payload as natscli's `outPutMSGBodyCompact` shows it."""
    print(body.decode() if body else "nil body", flush=True)


def headers_of(options: argparse.Namespace) -> dict[str, str] | None:
    """`K:V` pairs, with the blanks around them removed."""
    pairs = (each.split(":", 1) for each in options.header)
    return {name.strip(): value.strip() for name, value in pairs} or None


async def ask(client: Client, subject: str, body: object = None) -> dict[str, Any]:
    """One request of the JetStream API."""
    payload = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{subject}", payload, timeout=TIMEOUT_S)).data)
    if "error" in answer:
        sys.exit(f"nats: error: {answer['error']['description']}")
    return answer


async def publish(client: Client, options: argparse.Namespace) -> None:
    headers, body = headers_of(options), options.body.encode()
    log(f'Published {len(body)} bytes to "{options.subject}"')
    if not options.jetstream:
        await client.publish(options.subject, body, headers=headers)
        return
    answer: dict[str, Any] = json.loads(
        (await client.request(options.subject, body, timeout=TIMEOUT_S, headers=headers)).data
    )
    if "error" in answer:
        sys.exit(f"nats: error: {answer['error']['description']}")
    log(f"Stored in Stream: {answer['stream']} Sequence: {answer['seq']}")


async def subscribe(client: Client, options: argparse.Namespace) -> None:
    inbox = client.new_inbox() if options.stream else options.subject
    messages = await client.subscribe(inbox)
    if options.stream:
        await consume(client, options, inbox)
    log(f"Subscribing on {options.subject}")
    count = 0
    with contextlib.suppress(TimeoutError, nats.errors.TimeoutError):
        while True:
            message = await messages.next_msg(timeout=options.wait)
            if message.header and "Status" in message.header:
                continue  # of the pull
            count += 1
            if not options.raw:
                print(f'[#{count}] Received on "{message.subject}"')
            show(message.data)


async def consume(client: Client, options: argparse.Namespace, inbox: str) -> None:
    """An ephemeral consumer of one subject, from its first message, and a pull on it."""
    await ask(client, f"STREAM.INFO.{options.stream}")
    name = uuid.uuid4().hex[:8]
    policy = "all" if options.all else "last"
    config = {"ack_policy": "none", "deliver_policy": policy, "filter_subject": options.subject}
    wanted = {"stream_name": options.stream, "config": {**config, "replay_policy": "instant"}, "action": "create"}
    await ask(client, f"CONSUMER.CREATE.{options.stream}.{name}.{options.subject}", wanted)
    pull = {"batch": 500, "expires": 30_000_000_000, "idle_heartbeat": 14_000_000_000}  # nanoseconds
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{options.stream}.{name}"
    await client.publish(subject, json.dumps(pull).encode(), reply=inbox)


async def request(client: Client, options: argparse.Namespace) -> None:
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    await client.publish(options.subject, options.body.encode(), reply=inbox)
    began, total_s, count, timeout_s = time.monotonic(), 0.0, 0, options.timeout
    with contextlib.suppress(nats.errors.TimeoutError):
        while True:
            reply = await replies.next_msg(timeout=timeout_s)
            if is_no_responders(reply):
                log("No responders are available")
                return
            for name, value in (reply.header or {}).items() if not options.raw else ():
                log(f"{name}: {value}")
            show(reply.data)
            print()
            if not options.wait_for_empty or not reply.data:
                return
            total_s, count = total_s + time.monotonic() - began, count + 1
            timeout_s = total_s / count + options.reply_timeout


def is_no_responders(reply: Msg) -> bool:
    return not reply.data and (reply.header or {}).get("Status") == "503"


async def kv_get(client: Client, options: argparse.Namespace) -> None:
    stream = f"KV_{options.bucket}"
    info = await ask(client, f"STREAM.INFO.{stream}")
    if info["config"]["max_msgs_per_subject"] < 1 or not info["config"]["allow_direct"]:
        sys.exit("nats: error: invalid bucket")
    subject = f"$JS.API.DIRECT.GET.{stream}.$KV.{options.bucket}.{options.key}"
    found = await client.request(subject, b"", timeout=TIMEOUT_S)
    if "Status" in (found.header or {}):
        sys.exit("nats: error: nats: key not found")
    print(found.data.decode(), end="")


async def consumer_report(client: Client, options: argparse.Namespace) -> None:
    await ask(client, f"STREAM.INFO.{options.stream}")
    page = await ask(client, f"CONSUMER.LIST.{options.stream}", {"offset": 0})
    print(f"Consumer report for {options.stream} with {page['total']} consumers")
    for each in page["consumers"]:
        print(each["name"], each["config"]["ack_policy"], each["num_ack_pending"], each["num_pending"])


async def stream_report(client: Client, options: argparse.Namespace) -> None:
    page = await ask(client, "STREAM.LIST", {"offset": 0})
    for each in page["streams"]:
        config, state = each["config"], each["state"]
        print(config["name"], config["storage"], state["consumer_count"], state["messages"], state["bytes"])


async def stream_subjects(client: Client, options: argparse.Namespace) -> None:
    found = await ask(client, f"STREAM.INFO.{options.stream}", {"subjects_filter": options.filter, "offset": 0})
    subjects = found["state"].get("subjects", {})
    for subject, count in subjects.items():
        print(subject, count)
    if not subjects:
        print(f"No subjects found matching {options.filter}")


async def stream_get(client: Client, options: argparse.Namespace) -> None:
    await ask(client, f"STREAM.INFO.{options.stream}")
    found = await ask(client, f"STREAM.MSG.GET.{options.stream}", {"last_by_subj": options.last_for})
    print(f"Item: {options.stream}#{found['message']['seq']} on Subject {found['message']['subject']}\n")
    print(base64.b64decode(found["message"]["data"]).decode())


async def stream_backup(client: Client, options: argparse.Namespace) -> None:
    """A snapshot of a stream and its consumers, in chunks."""
    inbox = client.new_inbox()
    chunks = await client.subscribe(inbox)
    wanted = {"deliver_subject": inbox, "no_consumers": False, "chunk_size": CHUNK_BYTES}
    answer = await ask(client, f"STREAM.SNAPSHOT.{options.stream}", wanted)
    data = b""
    while (chunk := await chunks.next_msg(timeout=TIMEOUT_S)).data:
        data += chunk.data
        if chunk.reply:
            await chunk.respond(b"")
    if chunk.header and chunk.header.get("Status", "204") != "204":
        sys.exit(f"nats: error: {chunk.header}")
    write_backup(Path(options.target), {"config": answer["config"], "state": answer["state"]}, data)
    log(f"Received {len(data)} bytes")


def write_backup(folder: Path, what: dict[str, Any], data: bytes) -> None:
    """The two files of a backup."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "backup.json").write_text(json.dumps(what))
    (folder / "stream.tar.s2").write_bytes(data)


def read_backup(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The same, read back."""
    return json.loads((folder / "backup.json").read_text()), (folder / "stream.tar.s2").read_bytes()


async def stream_restore(client: Client, options: argparse.Namespace) -> None:
    """The way back: each chunk is a request, and an empty one ends them."""
    backup, data = read_backup(Path(options.file))
    name = backup["config"]["name"]
    target = (await ask(client, f"STREAM.RESTORE.{name}", backup))["deliver_subject"]
    for start in range(0, len(data), CHUNK_BYTES):
        await client.request(target, data[start : start + CHUNK_BYTES], timeout=TIMEOUT_S)
    answer = json.loads((await client.request(target, b"", timeout=TIMEOUT_S)).data)
    if "error" in answer:
        sys.exit(f"nats: error: {answer['error']['description']}")
    print(f'Restored stream "{name}": {answer["state"]["messages"]} messages')


async def services(client: Client, verb: str, kind: str, most: int) -> list[dict[str, Any]]:
    """What services answer, up to a pause; what is not of the kind is skipped, as natscli does."""
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    await client.publish(f"$SRV.{verb}", b"", reply=inbox)
    found: list[dict[str, Any]] = []
    with contextlib.suppress(nats.errors.TimeoutError):
        while len(found) < most:
            reply = await replies.next_msg(timeout=0.3 if found else TIMEOUT_S)
            if is_no_responders(reply):
                sys.exit("nats: error: no service instances found")
            answer = json.loads(reply.data)
            found += [answer] if answer["type"] == f"io.nats.micro.v1.{kind}_response" else []
    return found


async def micro_list(client: Client, options: argparse.Namespace) -> None:
    for each in await services(client, "INFO", "info", 1000):
        print(each["name"], each["version"], each["id"], each["description"])


async def micro_info(client: Client, options: argparse.Namespace) -> None:
    (info,) = await services(client, f"INFO.{options.service}", "info", 1)
    (stats,) = await services(client, f"STATS.{info['name']}.{info['id']}", "stats", 1)
    for endpoint, counts in zip(info["endpoints"], stats["endpoints"], strict=True):
        print(info["name"], endpoint["name"], endpoint["subject"], counts["num_requests"], counts["num_errors"])


async def micro_stats(client: Client, options: argparse.Namespace) -> None:
    for each in await services(client, f"STATS.{options.service}", "stats", 1000):
        for endpoint in each["endpoints"]:
            print(each["id"], endpoint["name"], endpoint["num_requests"], endpoint["num_errors"])


if __name__ == "__main__":
    main(sys.argv[1:])
