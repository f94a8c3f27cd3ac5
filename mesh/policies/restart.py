"""Decides when to restart a process that died, and when to give up. Pure."""

from dataclasses import dataclass

QUICK_S = 10.0  # a process that dies sooner than this after it was ready counts as a quick death
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0


@dataclass
class Backoff:
    """Computes the pause before the next start.

    A process that never gets ready is probably misconfigured, so few starts are tried. A process that dies after it
    was ready may have been killed by a request, so more starts are tried. Otherwise a few bad requests would end a
    service.
    """

    most_failed: int = 5  # starts in a row that never got ready
    most_quick: int = 20  # quick deaths in a row
    failed: int = 0
    quick: int = 0

    def died(self, lived_s: float) -> float | None:
        """Return the seconds to wait before the next start; None: give up.

        Args:
            lived_s: how long the process lived after it was ready; 0 if it never was.
        """
        self.failed = self.failed + 1 if not lived_s else 0
        self.quick = self.quick + 1 if lived_s < QUICK_S else 1
        if self.failed >= self.most_failed or self.quick >= self.most_quick:
            return None
        return float(min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.quick - 1)))
