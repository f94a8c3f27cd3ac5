"""Before a job is buried for having killed its workers: whether they are dead. Used by worker/runner.

A worker that is suspended or cut off leaves its jobs as one that dies does, without a word. That says nothing while
a job runs in company (see policies/retry); but what counts against a job that ran alone must be a death.
"""

from collections.abc import Sequence
from typing import Literal

from mesh.broker.journal import Journal
from mesh.broker.lives import Lives
from mesh.errors import BrokerTimeoutError
from mesh.protocol import codec
from mesh.protocol.history import Trial
from mesh.protocol.messages import Note
from mesh.protocol.subjects import is_token

# For a worker that was cut off to be back and say so: its library notices a broken connection at once, and a silent
# one within six seconds.
OBJECTION_S = 6.0

Finding = Literal["lives", "gone"]


class Inquest:
    """Asks after the workers of a job that is about to be given up."""

    def __init__(self, lives: Lives, journal: Journal) -> None:
        self._lives = lives
        self._journal = journal

    async def acquit(self, tenant: str, job: str, trials: Sequence[Trial]) -> list[Note]:
        """Notes for those of `trials` whose worker lives, written where the next one who asks finds them.

        Raises:
            BrokerError: NATS did not answer; ask again.
        """
        notes = []
        for trial in trials:
            if await self._find(trial) == "lives":
                reason = "its worker lived when the job was to be given up"
                note = Note(id=job, attempt=trial.attempt, verdict="returned", reason=reason)
                await self._journal.append(self._journal.notes_subject(tenant, job), codec.encode(note))
                notes.append(note)
        return notes

    async def _find(self, trial: Trial) -> Finding:
        if not is_token(trial.worker):
            return "gone"
        try:
            pong = await self._lives.ask(trial.worker)
        except BrokerTimeoutError:
            return "lives"  # suspended: it may have frozen on this job, but it did not die of it
        if pong is None or pong.born_unix_ms > trial.unix_ms:
            return "gone"  # or another process took its name since
        return "lives"
