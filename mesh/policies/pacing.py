"""How long a stream's tokens gather before they are published together. Pure. Used by worker/publisher.

While a publish is in flight they gather anyway. Where that takes long, everything on its way is busy, and what it is
busy with are messages: then a stream rests as long again, so that it has fewer and larger ones. One that is quiet, or
slower than its own acknowledgements, never waits; and none waits longer than MAX_WINDOW_S for that.
"""

RESTS = 2.0  # times the last publish's round trip, from its sending on
MAX_WINDOW_S = 0.008
CLOCK_S = 0.001  # how finely an event loop tells the time


def window_s(took_s: float) -> float:
    """The window in which what comes next gathers, after a publish that took `took_s` to be acknowledged.

    A power of two milliseconds, so that the windows of streams end together; 0 where that is less than one.
    """
    whole_ms = int(took_s * RESTS * 1000)
    return min(MAX_WINDOW_S, (1 << (whole_ms - 1).bit_length()) / 1000) if whole_ms > 0 else 0.0


def end_s(sent_s: float, window_s: float) -> float:
    """When the window ends that a publish of `sent_s` began.

    Those of all streams end at the same moments, so that what they hold leaves in one write to the socket. What is sent
    at such a moment, by a clock as coarse as CLOCK_S, begins the next window.
    """
    return ((sent_s + CLOCK_S / 2) // window_s + 1) * window_s
