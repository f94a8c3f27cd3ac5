"""When something that died is started again, and when no more. Pure."""

from dataclasses import dataclass

QUICK_S = 10.0  # what lived shorter since it was ready died quickly
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0


@dataclass
class Backoff:
    """How long to wait before the next start.

    What never gets ready is misconfigured, and soon given up. What gets ready and then dies may have been killed by
    what it was asked; that takes more patience, or a few bad requests would end a service.
    """

    most_failed: int = 5  # starts in a row that never got ready
    most_quick: int = 20  # quick deaths in a row
    failed: int = 0
    quick: int = 0

    def died(self, lived_s: float) -> float | None:
        """Seconds to wait; None: no more. `lived_s`: since it was ready, 0 if it never was."""
        self.failed = self.failed + 1 if not lived_s else 0
        self.quick = self.quick + 1 if lived_s < QUICK_S else 1
        if self.failed >= self.most_failed or self.quick >= self.most_quick:
            return None
        return float(min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.quick - 1)))
