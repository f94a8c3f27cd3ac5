"""Reads facts of this machine: vLLM, ports, open files, and nats-server's monitoring port."""

import asyncio
import contextlib
import http.client
import json
import resource
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mesh.broker.transport.tls import is_loopback
from mesh.control.doctor.facts import EngineFacts, LocalFacts, MonitorFacts, PortFacts
from mesh.engines.vllm.probe import probe

PORTS = (4222, 8222)  # nats-server's own, for clients and for monitoring
GREETING_S = 0.5  # NATS sends first; a server that has not by then gets an HTTP request
MONITOR_S = 5.0
MOST_BYTES = 4 << 20  # of an answer
NS = 1_000_000_000


async def look(is_quick: bool) -> LocalFacts:
    """Gathers all local facts. `is_quick` skips the import of vLLM, which takes seconds."""
    ports, engine = await asyncio.gather(asyncio.gather(*map(_port, PORTS)), probe(not is_quick))
    return LocalFacts(
        engine=EngineFacts(
            package=engine.package,
            version=engine.version,
            torch=engine.torch,
            has_driver=engine.has_driver,
            is_tried=engine.is_tried,
            error=engine.error,
            torch_cuda=engine.torch_cuda,
            gpus=engine.gpus,
        ),
        ports=list(ports),
        max_files=_max_files(),
    )


async def read_monitor(url: str, server_id: str) -> MonitorFacts:
    """Reads nats-server's monitoring port at `url`. `server_id` is the id of the connected server."""
    try:
        found = await asyncio.to_thread(_get, url)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return MonitorFacts(url=url, error=str(error) or type(error).__name__)
    jetstream = found.get("jetstream") or {}
    config, stats = jetstream.get("config") or {}, jetstream.get("stats") or {}
    used = max(int(stats.get("storage", 0)), int(stats.get("reserved_storage", 0)))
    return MonitorFacts(
        url=url,
        is_same_server=found.get("server_id") == server_id,
        syncs_always=bool(config.get("sync_always", False)),
        sync_interval_s=int(config.get("sync_interval", 0)) / NS,
        max_storage_bytes=max(0, int(config.get("max_storage", 0))),
        used_storage_bytes=used,
        disk_free_bytes=_free(str(config.get("store_dir", "")), str(urlsplit(url).hostname)),
    )


async def _port(port: int) -> PortFacts:
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return PortFacts(port=port)
    try:
        return PortFacts(port=port, speaks=await _speech(reader, writer))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _speech(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(GREETING_S):
            return "nats" if (await reader.read(5)) == b"INFO " else "something else"
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(b"HEAD / HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(GREETING_S):
            return "http" if (await reader.read(5)) == b"HTTP/" else "something else"
    return "something else"


def _get(url: str) -> dict[str, Any]:
    """`/varz` of the monitoring port.

    Raises:
        OSError, HTTPException: it does not answer. ValueError: it is not a monitoring port.
    """
    at = urlsplit(url if "://" in url else f"http://{url}")
    if at.scheme not in ("http", "https") or not at.hostname:
        raise ValueError(f"{url} is not an address such as http://127.0.0.1:8222")
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = kind(at.hostname, at.port or 8222, timeout=MONITOR_S)
    try:
        connection.request("GET", f"{at.path.rstrip('/')}/varz")
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES)
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"it answers {answer.status} {answer.reason}")
    found = json.loads(body)
    if not isinstance(found, dict) or "server_id" not in found:
        raise ValueError("it is not the port of a nats-server")
    return found


def _free(store: str, host: str) -> int | None:
    """Returns the free bytes on the disk of the store, if that disk is on this machine."""
    if not store or not is_loopback(host) or not Path(store).is_dir():
        return None
    return shutil.disk_usage(store).free


def _max_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft
