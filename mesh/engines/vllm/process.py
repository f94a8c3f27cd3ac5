"""The processes behind an AsyncLLM: which they are, and how they end. Called by mesh.engines.vllm.engine."""

import inspect
import multiprocessing
import threading
from multiprocessing.process import BaseProcess
from typing import Any

# For a core whose calls were all aborted already; then vLLM kills it.
STOP_TIMEOUT_S = 5.0
_CORE_NAME = "EngineCore"


def core_processes(llm: Any) -> list[BaseProcess]:
    """The engine core's processes on this machine; none if vLLM has been ended, or keeps them elsewhere."""
    found = llm
    for name in ("engine_core", "resources", "engine_manager", "processes"):
        found = getattr(found, name, None)
    return [process for process in found or () if isinstance(process, BaseProcess)]


def running_cores() -> frozenset[int]:
    """The process ids of the engine cores that this process started and that run."""
    return frozenset(
        process.pid
        for process in multiprocessing.active_children()
        if process.name.startswith(_CORE_NAME) and process.pid
    )


def kill_starting_cores(others: frozenset[int]) -> None:
    """Kill the engine cores that this process started, whoever waits for them, but `others`."""
    for process in multiprocessing.active_children():
        if process.pid in running_cores() - others:
            process.kill()


def silence(llm: Any) -> None:
    """Stop reading the core's output, on its loop: vLLM logs the end of the core as a crash otherwise."""
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
    llm.shutdown = _nothing  # called again when `llm` is collected, and not fit for an interpreter that ends


def _close_connections(llm: Any) -> None:
    """Free the threads behind vLLM's sockets; it leaves them to the garbage collector.

    This waits for the sockets, which vLLM closes on its loop, so a daemon does it: it must not hold us up.
    """
    context = getattr(getattr(getattr(llm, "engine_core", None), "resources", None), "ctx", None)
    if context is not None and not context.closed:
        closing = threading.Thread(target=context.term, name="mesh-vllm-close", daemon=True)
        closing.start()
        closing.join(STOP_TIMEOUT_S)


def _nothing(timeout: float | None = None) -> None:
    pass
