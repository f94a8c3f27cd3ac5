"""`mesh result`: a job by its id."""

from mesh.cli.ask import answer
from mesh.cli.connecting import open_client
from mesh.cli.option_values import Nats
from mesh.cli.terminal import render
from mesh.client.client import Client
from mesh.errors import ResultNotFoundError
from mesh.protocol.messages import JobStatus, Result
from mesh.protocol.subjects import check_token


async def read(nats: Nats, tenant: str, job_id: str, wait_s: float | None, is_followed: bool, as_json: bool) -> None:
    """Print a job's Result, or its output as it comes.

    Args:
        wait_s: None: do not wait; 0: until it ends.

    Raises:
        ResultNotFoundError, WaitTimeoutError: there is none (yet).
        JobError: it did not finish.
    """
    check_token("id", job_id)
    async with open_client(nats, tenant) as client:
        if wait_s is None and not is_followed:
            result = await _at_once(client, job_id)
        else:
            await _check_known(client, job_id)
            job = client.job(job_id)
            if is_followed:
                await answer.show(job)
            result = await job.result(wait_s or None)
    if as_json:
        render.say_json(answer.as_text(result))
    elif not is_followed and result.text:
        render.say(result.text)
    answer.check(result)
    if not as_json:
        render.note(answer.statistics(result))


async def _at_once(client: Client, job_id: str) -> Result:
    try:
        return await client.result(job_id)
    except ResultNotFoundError:
        status = await answer.find_status(client, job_id)
        if status is None or status.status not in ("queued", "running"):
            raise
    where = _describe(status)
    raise ResultNotFoundError(f"job {job_id} {where}; wait for it with --wait, or stream it with --follow")


async def _check_known(client: Client, job_id: str) -> None:
    """Refuse to wait for a job that nobody knows; with no worker there is nobody to ask, and we wait."""
    status = await answer.find_status(client, job_id)
    if status is not None and status.status == "unknown":
        raise ResultNotFoundError(
            f"job {job_id} is not known: it never existed, or ended longer ago than its Result is kept"
        )


def _describe(status: JobStatus) -> str:
    if status.status == "queued":
        return "waits in the queue"
    return f"runs on {status.worker or 'a worker'}, {status.index} tokens so far"
