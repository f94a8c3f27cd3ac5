"""Checks the machine that runs `mesh doctor`, and the disk that nats-server writes to. Pure."""

from collections.abc import Iterator

from mesh.control.doctor.facts import Advice, EngineFacts, Level, LocalFacts, MeshFacts, MonitorFacts
from mesh.control.status.checks import version_key

ENGINE_RANGE = ((0, 28), (0, 34))  # from (inclusive), to (exclusive): the versions that mesh.engines.vllm supports
FEW_FILES = 1024
SOME_FILES = 4096
LOW_DISK_BYTES = 1 << 30
MONITOR_FIX = "give the server's monitoring port: `mesh doctor --monitor http://HOST:8222`"
NATS_PORT = 4222


def judge(local: LocalFacts, is_connected: bool) -> Iterator[Advice]:
    """Yields advice on this machine. `is_connected`: the given NATS address answered."""
    yield from _of_engine(local.engine)
    for each in local.ports:
        if each.speaks and not (is_connected and each.speaks == "nats"):
            yield _of_port(each.port, each.speaks)
    if local.max_files < SOME_FILES:
        level: Level = "warning" if local.max_files < FEW_FILES else "note"
        text = f"a process may open {local.max_files} files here, which limits the connections of servers"
        fix = "`ulimit -n 65536`, or LimitNOFILE=65536 in the service's unit"
        yield Advice(level=level, code="few_files", text=text, fix=fix)


def in_words(local: LocalFacts) -> str:
    """Describes this machine in one line."""
    engine = local.engine
    words = [f"{engine.package} {engine.version}" if engine.package else "no vLLM"]
    if engine.torch:
        words.append(f"torch {engine.torch}")
    if engine.gpus:
        words.append(f"{len(engine.gpus)} x {engine.gpus[0]}")
    elif engine.is_tried or not engine.has_driver:
        words.append("no GPU")
    words.append(f"{local.max_files:,} files")
    return ", ".join(words)


def judge_monitor(monitor: MonitorFacts | None, mesh: MeshFacts | None) -> Iterator[Advice]:
    """Yields advice on disk and syncing from the monitoring port; or a note that it was not given."""
    if monitor is None:
        text = "a client cannot see how NATS syncs to disk, nor how full the disk is"
        yield Advice(level="note", code="sync_unseen", text=text, fix=MONITOR_FIX)
        return
    if monitor.error:
        text = f"{monitor.url} shows nothing: {monitor.error}"
        yield Advice(level="warning", code="monitor_silent", text=text, fix=MONITOR_FIX)
        return
    if not monitor.is_same_server:
        text = f"{monitor.url} is the port of another server than --nats"
        yield Advice(level="warning", code="monitor_other", text=text, fix=MONITOR_FIX)
    yield from _of_sync(monitor, mesh)
    yield from _of_disk(monitor, mesh)


def _of_sync(monitor: MonitorFacts, mesh: MeshFacts | None) -> Iterator[Advice]:
    settings = mesh.settings if mesh is not None else None
    if not monitor.syncs_always:
        text = (
            f"NATS writes at once and syncs to disk every {monitor.sync_interval_s:g} s: a power cut can lose what was "
            "accepted since"
        )
        fix = (
            "where that matters: `jetstream { sync_interval: always }`, and a mesh with --events-storage memory; "
            "or three servers on power of their own"
        )
        if settings is None or settings.replicas == 1:
            yield Advice(level="note", code="sync_lazy", text=text, fix=fix)
    elif settings is not None and settings.events_storage == "file":
        text = "NATS syncs every write, and the events of every token are written: tokens wait for the disk"
        fix = "declare the mesh anew with --events-storage memory"
        yield Advice(level="warning", code="sync_slow", text=text, fix=fix)


def _of_disk(monitor: MonitorFacts, mesh: MeshFacts | None) -> Iterator[Advice]:
    needed = mesh.settings.events_bytes if mesh is not None and mesh.settings is not None else LOW_DISK_BYTES
    left = monitor.max_storage_bytes - monitor.used_storage_bytes
    if monitor.max_storage_bytes and left < needed:
        level: Level = "error" if left <= 0 else "warning"
        limit = _size(monitor.max_storage_bytes)
        text = f"JetStream has {_size(max(0, left))} left of {limit}; events alone may take {_size(needed)}"
        fix = "raise max_file_store in nats-server's `jetstream` block"
        yield Advice(level=level, code="storage_low", text=text, fix=fix)
    free = monitor.disk_free_bytes
    if free is not None and free < LOW_DISK_BYTES:
        text = f"the disk with JetStream's store has {_size(free)} free: when it is full, NATS stops taking requests"
        yield Advice(level="error", code="disk_full", text=text, fix="free some space, or move store_dir")


def _of_engine(engine: EngineFacts) -> Iterator[Advice]:
    if not engine.package:
        text = "vLLM is not in this Python: no worker with a model can run here"
        yield Advice(level="note", code="no_engine", text=text, fix="`mesh install vllm`, to run one")
        return
    low, high = ENGINE_RANGE
    if not low <= version_key(engine.version)[:2] < high:
        known = f"{'.'.join(map(str, low))} to {high[0]}.{high[1] - 1}"
        text = f"{engine.package} {engine.version} is not a supported version: {known}"
        fix = "`mesh install vllm` in a fresh virtual environment"
        yield Advice(level="error", code="engine_version", text=text, fix=fix)
    if engine.error:
        text = f"{engine.package} {engine.version} cannot be imported: {engine.error}"
        fix = "`mesh install vllm` in a fresh virtual environment"
        yield Advice(level="error", code="engine_broken", text=text, fix=fix)
        return
    is_for_cpu = "+cpu" in engine.torch or (engine.is_tried and bool(engine.torch) and not engine.torch_cuda)
    if engine.has_driver and is_for_cpu:
        text = f"there is an NVIDIA driver, and torch {engine.torch} was built without CUDA: the GPU is not used"
        fix = "`mesh install vllm --backend cuda` in a fresh virtual environment"
        yield Advice(level="warning", code="torch_cpu", text=text, fix=fix)
    elif engine.is_tried and not engine.gpus and not is_for_cpu:
        text = f"torch {engine.torch} was built for CUDA {engine.torch_cuda} and sees no GPU"
        fix = "`nvidia-smi` shows whether the driver is too old; without a GPU: `mesh install vllm --backend cpu`"
        yield Advice(level="error", code="no_gpu", text=text, fix=fix)


def _of_port(port: int, speaks: str) -> Advice:
    if port == NATS_PORT:
        what = "another NATS than --nats" if speaks == "nats" else f"{speaks}, not NATS"
        text = f"port {port} of this machine is taken by {what}"
        return Advice(level="warning", code="port_taken", text=text, fix="`mesh up --port 0` picks another")
    text = f"port {port} of this machine is taken ({speaks})"
    fix = "if it is nats-server's monitoring: --monitor; else give nats-server's monitoring another port"
    return Advice(level="note", code="port_taken", text=text, fix=fix)


def _size(size: int) -> str:
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"
