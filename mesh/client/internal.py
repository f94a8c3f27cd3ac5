"""Access to the internals of `Client` and `Job`, for other rooms of the mesh and for tests. No part of the API.

The front door and the replay submit through a `ClientCore` and hold `JobHandle`s. Tests hold a `Client` or a `Job`, and
get the internals from `core_of`, `handle_of` and `loop_of`.
"""

from mesh.client._core import ClientCore
from mesh.client._job_state import INBOX_EVENTS, PAGE_EVENTS, HandleStatistics, JobHandle
from mesh.client._loop_thread import LoopThread
from mesh.client.blocking import BlockingClient, BlockingJob
from mesh.client.client import Client
from mesh.client.job import Job

__all__ = [
    "INBOX_EVENTS",
    "PAGE_EVENTS",
    "ClientCore",
    "HandleStatistics",
    "JobHandle",
    "core_of",
    "handle_of",
    "loop_of",
]


def core_of(client: Client) -> ClientCore:
    """The core of a client."""
    return client._core


def handle_of(job: Job | BlockingJob) -> JobHandle:
    """The handle of a job."""
    return (job._job if isinstance(job, BlockingJob) else job)._handle


def loop_of(client: BlockingClient) -> LoopThread:
    """The thread that works for a blocking client."""
    return client._loop
