"""The client for programs without an event loop; see mesh.client.blocking."""

from mesh.client.blocking import BlockingClient, BlockingJob, connect

__all__ = ["connect", "BlockingClient", "BlockingJob"]
