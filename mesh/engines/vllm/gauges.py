"""Load figures of vLLM's scheduler, taken after each step: cache usage, running and waiting requests.

The scheduler's figures come with every step's output and cost almost nothing. vLLM's other statistics are kept per
token and request. They cost a tenth of the front end's time, so they stay off unless the operator turns them on.
"""

import contextlib
from typing import Any

from mesh.engines.base import EngineGauges


class VllmGauges:
    """The figures of all cores. vLLM's output loop writes them, and `read` runs on the same event loop."""

    def __init__(self) -> None:
        self._loggers: dict[int, _Core] = {}

    def factory(self, vllm_config: Any, engine_index: int = 0) -> "_Core":
        """Return a new logger for one core; vLLM's StatLoggerFactory."""
        self._loggers[engine_index] = core = _Core()
        return core

    def stand_alone(self, llm: Any) -> None:
        """Remove every other consumer of statistics from a new AsyncLLM."""
        llm.log_stats = llm.output_processor.log_stats = False
        manager = llm.logger_manager
        manager.stat_loggers = [each for each in manager.stat_loggers if _is_ours(each)]
        with contextlib.suppress(ImportError):  # vLLM's own metrics are no longer updated, so they must not be shown
            from vllm.v1.metrics.prometheus import unregister_vllm_metrics

            unregister_vllm_metrics()

    def read(self) -> EngineGauges:
        """Return the figures of all cores: the sum of the counts, and the ratio of the fullest cache."""
        cores = list(self._loggers.values())
        return EngineGauges(
            running=sum(core.running for core in cores),
            waiting=sum(core.waiting for core in cores),
            kv_cache_ratio=max((core.kv_cache_ratio for core in cores), default=0.0),
            prefix_queried_tokens=sum(core.queried_tokens for core in cores),
            prefix_hit_tokens=sum(core.hit_tokens for core in cores),
            preemptions=sum(core.preemptions for core in cores),
        )


class _Core:
    """One core's figures; it has the interface of vLLM's StatLoggerBase."""

    def __init__(self) -> None:
        self.running = self.waiting = 0
        self.kv_cache_ratio = 0.0
        self.queried_tokens = self.hit_tokens = 0
        self.preemptions = 0

    def record(self, scheduler_stats: Any = None, *_: Any, **__: Any) -> None:
        """Take the figures of one step."""
        if scheduler_stats is None:
            return
        self.running = scheduler_stats.num_running_reqs
        self.waiting = scheduler_stats.num_waiting_reqs + getattr(scheduler_stats, "num_skipped_waiting_reqs", 0)
        self.kv_cache_ratio = scheduler_stats.kv_cache_usage
        prefix = scheduler_stats.prefix_cache_stats
        if prefix is not None:
            self.queried_tokens += prefix.queries
            self.hit_tokens += prefix.hits
            self.preemptions += getattr(prefix, "preempted_requests", 0)  # counted when they run again

    def log_engine_initialized(self) -> None: ...
    def log(self) -> None: ...
    def record_sleep_state(self, *_: Any) -> None: ...
    def record_admission_rejection(self, *_: Any) -> None: ...


def _is_ours(adapter: Any) -> bool:
    kept = getattr(adapter, "per_engine_stat_loggers", None)
    return kept is not None and all(isinstance(each, _Core) for each in kept.values())
