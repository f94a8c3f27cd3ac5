"""`mesh generate` and `mesh submit`: a prompt, and what becomes of it."""

import asyncio
import sys
from dataclasses import asdict
from typing import Any

import click

from mesh.cli.connecting import choose_model, open_client
from mesh.cli.option_values import Nats, Question, Sampling
from mesh.cli.terminal import render
from mesh.client.assembly import Restarted
from mesh.client.client import Client
from mesh.client.job import Job
from mesh.client.request_fields import MessageDict
from mesh.clock import SYSTEM
from mesh.errors import BrokerError, ConfigError, UnsupportedError
from mesh.protocol import codec
from mesh.protocol.messages import JobStatus, Result
from mesh.protocol.subjects import check_tier

Prompt = str | list[MessageDict]  # bare text, or the turns of a chat

CANCEL_S = 5.0  # for a job to end when its asker leaves


def read_prompt(given: str | None) -> str:
    """The prompt of the command line, or all of stdin.

    Raises:
        UsageError: there is none, and stdin is a terminal.
    """
    if given not in (None, "-"):
        return given or ""
    if given is None and sys.stdin.isatty():
        raise click.UsageError("no prompt; give it as an argument, or - to type it", click.get_current_context())
    return sys.stdin.read().rstrip("\n")


def inputs(text: str, question: Question, is_raw: bool) -> Prompt:
    """The request's input: chat messages, or bare text.

    Raises:
        ConfigError: bare text with a system message.
    """
    if not is_raw:
        turns: list[MessageDict] = [{"role": "user", "content": text}]
        if question.system:
            turns.insert(0, {"role": "system", "content": question.system})
        return turns
    if question.system:
        raise ConfigError("--raw-prompt has no place for --system; put it into the prompt", key="system")
    return text


def request_fields(sampling: Sampling) -> dict[str, Any]:
    """The request's other fields, those that were given."""
    given = asdict(sampling)
    deadline_s = given.pop("deadline")
    given["stop"] = list(sampling.stop) or None
    if deadline_s is not None:
        given["deadline_unix_ms"] = SYSTEM.wall_unix_ms() + int(deadline_s * 1000)
    return {key: value for key, value in given.items() if value is not None}


async def generate(
    nats: Nats, question: Question, prompt: Prompt, sampling: Sampling, no_stream: bool, as_json: bool
) -> None:
    """Ask, show the answer, and report how it went.

    Raises:
        JobError: it did not finish.
    """
    is_streamed = not (no_stream or as_json)
    async with open_client(nats, question.tenant) as client:
        model = await choose_model(client, question.model)
        fields = request_fields(sampling) | {"stream": is_streamed}
        job = await client.submit(model, prompt, tier=check_tier(question.tier), **fields)
        try:
            if is_streamed:
                await show(job)
            result = await job
        except asyncio.CancelledError:
            await abandon(job)
            raise
    if as_json:
        render.say(as_text(result))
    elif not is_streamed and result.text:
        render.say(result.text)
    check(result)
    if not as_json:
        render.note(statistics(result))


async def submit(nats: Nats, question: Question, prompt: Prompt, sampling: Sampling, job_id: str | None) -> None:
    """Queue a job, print its id, and say how to read it."""
    async with open_client(nats, question.tenant) as client:
        model = await choose_model(client, question.model)
        fields = request_fields(sampling) | ({} if job_id is None else {"id": job_id})
        job = await client.submit(model, prompt, tier=check_tier(question.tier), **fields)
        render.say(job.id)
        render.note(f"queued for {model}; `mesh result {job.id} --wait` prints the answer, --follow streams it")


async def show(job: Job) -> None:
    """Print a job's output as it is made."""
    is_midline = False
    async for delta in job:
        if isinstance(delta, Restarted):
            render.write("\n" if is_midline else "")
            render.note("mesh: another worker begins the answer anew; what was printed so far no longer stands")
        elif delta.text:
            render.write(delta.text)
            is_midline = not delta.text.endswith("\n")
    if is_midline:
        render.write("\n")


async def abandon(job: Job) -> None:
    """Cancel a job whose asker leaves, and say what became of it."""
    if render.is_terminal():
        render.say()
    try:
        status = await job.cancel(CANCEL_S)
    except BrokerError as error:
        render.event(f"job {job.id} goes on, it could not be cancelled: {error}")
    else:
        render.event(f"job {job.id} is {status}")


def check(result: Result) -> None:
    """Raise if the job did not finish.

    Raises:
        JobError: with its reason.
        UnsupportedError: the model takes no chat messages.
    """
    error = result.error
    if error is not None and error.code == "unsupported" and error.message.startswith("messages"):
        raise UnsupportedError(error.message.partition(": ")[2] or error.message, field="messages")
    result.raise_for_status()


def as_text(result: Result) -> str:
    """The Result as the JSON that NATS keeps."""
    return codec.encode(result).decode()


def statistics(result: Result) -> str:
    """One line of figures."""
    usage, timing = result.usage, result.timing
    parts = [result.model, f"{usage.completion_tokens} tokens"]
    if timing.first_token_ms is not None:
        parts.append(f"first after {timing.first_token_ms} ms")
    if (speed := tokens_per_s(result)) is not None:
        parts.append(f"{speed:.0f} tokens/s")
    if result.attempts > 1:
        parts.append(f"{result.attempts} attempts")
    return f"[{', '.join(parts)}, {result.finish_reason}, job {result.id}]"


def tokens_per_s(result: Result) -> float | None:
    """Output tokens a second once they flow; None: too few to say. Pure."""
    first_ms, total_ms, tokens = result.timing.first_token_ms, result.timing.total_ms, result.usage.completion_tokens
    if first_ms is None or total_ms <= first_ms or tokens < 2:
        return None
    return (tokens - 1) * 1000 / (total_ms - first_ms)


async def find_status(client: Client, job_id: str) -> JobStatus | None:
    """Where a job stands; None: nobody is there to say."""
    try:
        return await client.job(job_id).status(2.0)
    except BrokerError:
        return None
