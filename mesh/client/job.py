"""The handle of one job: await it for its Result, iterate it for its output, cancel it."""

from collections.abc import AsyncGenerator, Generator
from typing import Any

from mesh.client._job_state import JobHandle
from mesh.client.assembly import Restarted
from mesh.protocol.messages import Delta, JobStatus, Result


class Job:
    """One job of this client's tenant. Made by `Client.submit` and `Client.job`.

    result = await job                              # its Result, with any status
    async for delta in job: print(delta.text)       # its output as it is made
    """

    def __init__(self, handle: JobHandle) -> None:
        self._handle = handle

    def __repr__(self) -> str:
        return repr(self._handle)

    @property
    def id(self) -> str:
        """Its id: `client.job(id)` finds it again, from any program of its tenant."""
        return self._handle.id

    @property
    def tenant(self) -> str:
        """The tenant it belongs to."""
        return self._handle.key.tenant

    @property
    def model(self) -> str | None:
        """The model it was submitted for; None: opened by its id, and its Result is not there yet."""
        return self._handle.model

    @property
    def sequence(self) -> int:
        """The stream sequence of its stored request; 0: not known, as for a job opened by its id."""
        return self._handle.sequence

    def __await__(self) -> Generator[Any, None, Result]:
        """As `result`, without a `timeout`."""
        return self._handle.result().__await__()

    async def result(self, timeout: float | None = None) -> Result:
        """The job's Result, with any status; `raise_for_status()` on it turns failures into errors.

        Args:
            timeout: seconds; without it, until a little after the job's deadline.

        Raises:
            WaitTimeoutError: no Result by then. The job goes on; `client.job(id)` finds it again.
            ResultNotFoundError: the job is unknown, or its Result is kept no longer.
            InvalidRequestError: field `id`: another request of this id is served.
        """
        return await self._handle.result(timeout)

    def __aiter__(self) -> AsyncGenerator[Delta | Restarted, None]:
        """As `deltas`, without a `timeout`."""
        return self._handle.deltas()

    def deltas(self, timeout: float | None = None) -> AsyncGenerator[Delta | Restarted, None]:
        """The output as it is made: each token once, in order. Ends with the job, at any status.

        A `Restarted` among the deltas says that the output shown so far no longer stands. Iterating again goes on
        where the last iteration was left, also by an error or a cancellation.

        Args:
            timeout: seconds to wait for each delta; without it, until a little after the job's deadline.

        Raises:
            WaitTimeoutError, ResultNotFoundError, InvalidRequestError: as `result`.
            RuntimeError: another iteration of this handle began; `client.job(id)` makes a handle for each reader.
        """
        return self._handle.deltas(timeout)

    async def status(self, timeout: float = 10.0) -> JobStatus:
        """Where the job stands now, as a worker says.

        Args:
            timeout: seconds for a worker to answer.

        Raises:
            UnavailableError: no worker is there to say.
            BrokerTimeoutError: no answer within `timeout`.
        """
        return await self._handle.backend.job_status(self.id, timeout)

    async def cancel(self, timeout: float = 10.0) -> str:
        """Ask for the job to stop. Returns its status: `cancelled`, or the one it already had, or `unknown`.

        Args:
            timeout: seconds for a worker to answer.

        Raises:
            UnavailableError: no worker is there to do it.
            BrokerTimeoutError: no answer within `timeout`; the job may or may not stop.
        """
        return await self._handle.backend.cancel_job(self.id, timeout)

    def close(self) -> None:
        """Hear no more of the job, which goes on. Idempotent; done by itself once the Result is there."""
        self._handle.close()
