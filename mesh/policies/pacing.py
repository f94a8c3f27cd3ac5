"""Decides how long a stream's tokens gather before one publish carries them. Pure.

Tokens also gather while a publish is in flight. A slow acknowledgement means that the connection or the server is busy
with messages. The stream then waits as long again, and so sends fewer and larger messages. An idle stream, and one
whose tokens come slower than its acknowledgements, never waits. No stream waits longer than MAX_WINDOW_S.
"""

RESTS = 2.0  # a window is this many round trips of the last publish, counted from its sending
MAX_WINDOW_S = 0.008
CLOCK_S = 0.001  # the resolution of an event loop's clock


def window_s(took_s: float) -> float:
    """Return the window in which the next tokens gather, after a publish acknowledged in `took_s` seconds.

    The window is a power of two in milliseconds, so that the windows of all streams end together. A window shorter
    than one millisecond is 0.
    """
    whole_ms = int(took_s * RESTS * 1000)
    return min(MAX_WINDOW_S, (1 << (whole_ms - 1).bit_length()) / 1000) if whole_ms > 0 else 0.0


def end_s(sent_s: float, window_s: float) -> float:
    """Return the end of the window that a publish sent at `sent_s` began.

    The windows of all streams end at the same instants, so that one write to the socket carries all their tokens.
    A publish sent within CLOCK_S / 2 of such an instant begins the next window.
    """
    return ((sent_s + CLOCK_S / 2) // window_s + 1) * window_s
