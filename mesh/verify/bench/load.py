"""Sends a benchmark's requests to a running mesh and records the answers. The shell around plan and figures.

Open loop: each request is sent at its time, even while others wait. Closed loop: `concurrency` requests are open, and
each end starts the next. Both: each request is sent at its time, but only while fewer than `concurrency` are open.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass

from mesh.broker.transport.options import ConnectOptions
from mesh.client.client import Client, connect
from mesh.clock import SYSTEM
from mesh.errors import MeshError
from mesh.protocol.messages import Delta, Result
from mesh.protocol.subjects import Names, check_tier
from mesh.verify.bench.figures import Sample
from mesh.verify.bench.plan import PlannedRequest

REFUSED = "refused"

Progress = Callable[[int, int, int], None]  # sent, ended, output tokens


@dataclass
class BenchLoad:
    """One run against one model."""

    model: str
    clients: Mapping[str, Client]  # by tenant
    concurrency: int | None  # most open requests; None: no limit

    async def run(
        self, asks: Iterable[PlannedRequest], on_progress: Progress = lambda sent, ended, tokens: None
    ) -> list[Sample]:
        """Send all requests and wait for their ends; return one sample each, in the order of sending.

        A cancellation cancels the open jobs.
        """
        room = asyncio.Semaphore(self.concurrency) if self.concurrency is not None else None
        samples: list[Sample] = []
        ended = tokens = 0
        began_s = SYSTEM.monotonic_s()

        async def one(ask: PlannedRequest, sample: Sample) -> None:
            nonlocal ended, tokens
            try:
                await self._ask(ask, sample)
            finally:
                if room is not None:
                    room.release()
            ended, tokens = ended + 1, tokens + sample.completion_tokens
            on_progress(len(samples), ended, tokens)

        async with asyncio.TaskGroup() as group:
            for ask in asks:
                due_s = SYSTEM.monotonic_s() if ask.at_s is None else began_s + ask.at_s
                if (wait_s := due_s - SYSTEM.monotonic_s()) > 0:
                    await asyncio.sleep(wait_s)
                if room is not None:
                    await room.acquire()
                now_s = SYSTEM.monotonic_s()
                sample = Sample(ask.tenant, ask.tier, now_s if ask.at_s is None else due_s, now_s)
                samples.append(sample)
                group.create_task(one(ask, sample), name=f"bench-{len(samples)}")
                on_progress(len(samples), ended, tokens)
                if room is None and ask.at_s is None:
                    await asyncio.sleep(0)  # lets the request leave
        return samples

    async def _ask(self, ask: PlannedRequest, sample: Sample) -> None:
        job = None
        try:
            job = await self.clients[ask.tenant].submit(self.model, tier=check_tier(ask.tier), **ask.fields)
            async for shown in job:
                if isinstance(shown, Delta) and shown.token_ids:
                    sample.arrivals_s.append(SYSTEM.monotonic_s())
                    sample.counts.append(len(shown.token_ids))
            _note(sample, await job.result())
        except MeshError as error:
            sample.status, sample.code = REFUSED, error.code
        except asyncio.CancelledError:
            if job is not None:
                with contextlib.suppress(MeshError):
                    await job.cancel(2.0)
            raise
        finally:
            sample.done_s = SYSTEM.monotonic_s()
            if job is not None:
                job.close()


def _note(sample: Sample, result: Result) -> None:
    sample.status = result.status
    sample.code = result.error.code if result.error is not None else ""
    sample.prompt_tokens = result.usage.prompt_tokens
    sample.cached_tokens = result.usage.cached_tokens
    sample.completion_tokens = result.usage.completion_tokens
    sample.attempts = result.attempts
    sample.queued_ms = result.timing.queued_ms
    sample.first_token_ms = result.timing.first_token_ms
    sample.total_ms = result.timing.total_ms


@contextlib.asynccontextmanager
async def open_clients(
    options: ConnectOptions, names: Names, tenants: Iterable[str]
) -> AsyncIterator[dict[str, Client]]:
    """Open one client for each tenant.

    Raises:
        DisconnectedError: NATS cannot be reached.
        TopologyError: there is no mesh on this NATS.
    """
    async with contextlib.AsyncExitStack() as stack:
        yield {
            tenant: await stack.enter_async_context(connect(tenant=tenant, namespace=names.ns, options=options))
            for tenant in sorted(set(tenants))
        }
