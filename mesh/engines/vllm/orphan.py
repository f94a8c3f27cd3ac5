"""Ends vLLM's processes when the worker that started them is gone, for any reason.

A worker that gets SIGKILL cannot clean up. vLLM's engine core then runs on for minutes, with the model in memory.
`mesh.engines.vllm.start` opens `guarded_children()` around the start of an engine. vLLM calls `guard_vllm_process` in
each of its processes, through the entry point in pyproject.toml.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator

# In the environment of a spawned child: the pid of its worker. Set only while a worker starts an engine, so that a
# vLLM outside the mesh is left alone.
OWNER_VARIABLE = "MESH_ENGINE_OWNER"
# Only where the kernel offers no pidfd to wait on (macOS, Linux before 5.3).
FALLBACK_POLL_S = 0.25


class _Fork:
    """State for a forked child: it inherits a module's memory, but takes no argument."""

    is_registered = False  # a fork handler cannot be removed, so each process registers one
    owner_pid = 0  # 0: no engine is starting, so a fork is not vLLM's


@contextlib.contextmanager
def guarded_children() -> Iterator[None]:
    """Guard every process that is started inside the block, forked or spawned, and all its descendants."""
    if not _Fork.is_registered:
        os.register_at_fork(after_in_child=_guard_forked_child)
        _Fork.is_registered = True
    _Fork.owner_pid = os.getpid()
    os.environ[OWNER_VARIABLE] = str(os.getpid())
    try:
        yield
    finally:
        _Fork.owner_pid = 0
        os.environ.pop(OWNER_VARIABLE, None)


def guard_vllm_process() -> None:
    """Watch the worker from one of vLLM's spawned processes; in the worker itself, do nothing."""
    owner = os.environ.get(OWNER_VARIABLE, "")
    if owner.isdigit() and int(owner) != os.getpid():
        _watch(int(owner))


def _guard_forked_child() -> None:
    if _Fork.owner_pid not in (0, os.getpid()):
        _watch(_Fork.owner_pid)


def _watch(owner_pid: int) -> None:
    threading.Thread(target=_exit_with, args=(owner_pid,), name="mesh-orphan-guard", daemon=True).start()


def _exit_with(owner_pid: int) -> None:
    _wait_gone(owner_pid)
    # Not SIGTERM: vLLM would drain, and no process is left to read its output.
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_gone(owner_pid: int) -> None:
    """Block until the process is dead; a zombie counts as dead."""
    try:
        pidfd = os.pidfd_open(owner_pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        _poll_gone(owner_pid)
        return
    waiter = select.poll()
    waiter.register(pidfd, select.POLLIN)
    waiter.poll()
    os.close(pidfd)


def _poll_gone(owner_pid: int) -> None:
    parent_pid = os.getppid()
    while os.getppid() == parent_pid:  # changes as soon as the parent dies, also while it is a zombie
        try:
            os.kill(owner_pid, 0)
        except ProcessLookupError:
            return
        time.sleep(FALLBACK_POLL_S)
