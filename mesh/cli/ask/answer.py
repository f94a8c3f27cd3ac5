"""A job's answer on the terminal: its text as it comes, its figures, its failure. Called by the commands that ask."""

from mesh.cli.terminal import render
from mesh.client.assembly import Restarted
from mesh.client.client import Client
from mesh.client.job import Job
from mesh.errors import BrokerError, UnsupportedError
from mesh.protocol import codec
from mesh.protocol.messages import JobStatus, Result


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
