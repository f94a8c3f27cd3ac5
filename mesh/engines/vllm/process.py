"""Finds and ends the processes behind an AsyncLLM."""

import inspect
import multiprocessing
import threading
from multiprocessing.process import BaseProcess
from typing import Any

# For a core whose calls are all aborted; after this time vLLM kills it.
STOP_TIMEOUT_S = 5.0
_CORE_NAME = "EngineCore"


def core_processes(llm: Any) -> list[BaseProcess]:
    """Return the engine core's processes on this machine; none after its end, or where they run elsewhere."""
    found = llm
    for name in ("engine_core", "resources", "engine_manager", "processes"):
        found = getattr(found, name, None)
    return [process for process in found or () if isinstance(process, BaseProcess)]


def running_cores() -> frozenset[int]:
    """Return the pids of the running engine cores that this process started."""
    return frozenset(
        process.pid
        for process in multiprocessing.active_children()
        if process.name.startswith(_CORE_NAME) and process.pid
    )


def kill_starting_cores(others: frozenset[int]) -> None:
    """Kill the engine cores that this process started, except those with pids in `others`."""
    for process in multiprocessing.active_children():
        if process.pid in running_cores() - others:
            process.kill()


def silence(llm: Any) -> None:
    """Stop reading the core's output, so that vLLM does not log the core's end as a crash. Runs on its event loop."""
    reader = getattr(llm, "output_handler", None)
    if reader is not None:
        reader.cancel()


def end(llm: Any) -> None:
    """End the core; blocks for up to twice STOP_TIMEOUT_S."""
    processes = core_processes(llm)
    takes_timeout = "timeout" in inspect.signature(llm.shutdown).parameters
    llm.shutdown(**({"timeout": STOP_TIMEOUT_S} if takes_timeout else {}))
    _close_connections(llm)
    for process in processes:
        process.join(STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join(STOP_TIMEOUT_S)
    llm.shutdown = _nothing  # it is called again when `llm` is collected, and fails while the interpreter ends


def _close_connections(llm: Any) -> None:
    """Free the threads behind vLLM's sockets, which vLLM leaves to the garbage collector.

    The call waits until vLLM has closed the sockets on its loop. A daemon thread makes it, so that it delays this
    process by STOP_TIMEOUT_S at most.
    """
    context = getattr(getattr(getattr(llm, "engine_core", None), "resources", None), "ctx", None)
    if context is not None and not context.closed:
        closing = threading.Thread(target=context.term, name="mesh-vllm-close", daemon=True)
        closing.start()
        closing.join(STOP_TIMEOUT_S)


def _nothing(timeout: float | None = None) -> None:
    pass
