"""This machine's clock, for others to read; never for measuring. Used throughout the worker, and by control."""

import time


def now_unix_ms() -> int:
    """Unix milliseconds now."""
    return time.time_ns() // 1_000_000
