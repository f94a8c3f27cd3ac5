"""`mesh generate`: a prompt, and its answer as it comes."""

import asyncio

from mesh.cli.ask import answer
from mesh.cli.ask.prompt import Prompt, request_fields
from mesh.cli.connecting import choose_model, open_client
from mesh.cli.option_values import Nats, Question, Sampling
from mesh.cli.terminal import render
from mesh.client.job import Job
from mesh.errors import BrokerError
from mesh.protocol.subjects import check_tier

CANCEL_S = 5.0  # for a job to end when its asker leaves


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
                await answer.show(job)
            result = await job
        except asyncio.CancelledError:
            await _abandon(job)
            raise
    if as_json:
        render.say_json(answer.as_text(result))
    elif not is_streamed and result.text:
        render.say(result.text)
    answer.check(result)
    if not as_json:
        render.note(answer.statistics(result))


async def _abandon(job: Job) -> None:
    """Cancel a job whose asker leaves, and say what became of it."""
    if render.is_terminal():
        render.say()
    try:
        status = await job.cancel(CANCEL_S)
    except BrokerError as error:
        render.event(f"job {job.id} goes on, it could not be cancelled: {error}")
    else:
        render.event(f"job {job.id} is {status}")
