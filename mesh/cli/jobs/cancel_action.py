"""`mesh cancel`: a job is stopped by its id."""

from mesh.cli.connecting import open_client
from mesh.cli.option_values import Nats
from mesh.cli.terminal import render
from mesh.errors import ResultNotFoundError
from mesh.protocol.subjects import check_token


async def cancel(nats: Nats, tenant: str, job_id: str) -> None:
    """Stop a job.

    Raises:
        ResultNotFoundError: nobody knows it.
    """
    check_token("id", job_id)
    async with open_client(nats, tenant) as client:
        status = await client.job(job_id).cancel()
    if status == "unknown":
        raise ResultNotFoundError(f"job {job_id} is not known; is the id right, and the tenant ({tenant})?")
    render.say(f"job {job_id} is cancelled" if status == "cancelled" else f"job {job_id} had {status} already")
