"""Ends vLLM's processes when the worker that started them is gone, however it went.

A worker that is SIGKILLed cannot clean up, and vLLM's engine core then lives on for minutes with the model
in memory. `mesh.engines.vllm.start` opens `guarded_children()` around the start of an engine; vLLM itself
calls `guard_vllm_process` in each of its processes (the entry point in pyproject.toml).
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator

# In the environment of a spawned child: the pid of its worker. Absent where no worker is starting an engine,
# so that a vLLM that has nothing to do with the mesh is left alone.
OWNER_VARIABLE = "MESH_ENGINE_OWNER"
# Only where the kernel offers no pidfd to wait on (macOS, Linux before 5.3).
FALLBACK_POLL_S = 0.25


class _Fork:
    """What a forked child must know; it can inherit a module's memory but no argument."""

    is_registered = False  # a fork handler cannot be taken back, so there is one per process
    owner_pid = 0  # 0: no engine is starting, the fork is somebody else's


@contextlib.contextmanager
def guarded_children() -> Iterator[None]:
    """Guard every process started inside: forked and spawned, and all their descendants."""
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
    # Not SIGTERM: vLLM would drain, and nobody is left to read what it makes.
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
