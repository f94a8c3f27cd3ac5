"""`mesh submit`: a prompt, queued."""

from mesh.cli.ask.prompt import Prompt, request_fields
from mesh.cli.connecting import choose_model, open_client
from mesh.cli.option_values import Nats, Question, Sampling
from mesh.cli.terminal import render
from mesh.protocol.subjects import check_tier


async def submit(nats: Nats, question: Question, prompt: Prompt, sampling: Sampling, job_id: str | None) -> None:
    """Queue a job, print its id, and say how to read it."""
    async with open_client(nats, question.tenant) as client:
        model = await choose_model(client, question.model)
        fields = request_fields(sampling) | ({} if job_id is None else {"id": job_id})
        job = await client.submit(model, prompt, tier=check_tier(question.tier), **fields)
        render.say(job.id)
        render.note(f"queued for {model}; `mesh result {job.id} --wait` prints the answer, --follow streams it")
