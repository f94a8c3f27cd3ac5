"""Checks whether a job's workers are dead before the job is given up for killing them.

A suspended or disconnected worker leaves its jobs without a note, as a dead one does. A job is given up only for
deaths while it ran alone (see policies/retry), so each of those must be a real death.
"""

from collections.abc import Sequence
from typing import Literal

from mesh.broker.stores.journal import Journal
from mesh.broker.stores.liveness import LivenessStore
from mesh.errors import BrokerTimeoutError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.history import History, Trial
from mesh.protocol.messages import Note
from mesh.protocol.subjects import is_token
from mesh.protocol.timing import OBJECTION_S


class DeathCheck:
    """Pings the workers of a job that is about to be given up."""

    def __init__(self, liveness: LivenessStore, journal: Journal) -> None:
        self._liveness = liveness
        self._journal = journal

    async def verify(self, key: JobKey, history: History, doubts: Sequence[Trial], now_unix_ms: int) -> float:
        """Ping the workers of the `doubts` and judge `history`; the seconds left for those workers to object.

        The verdicts and the instant of the first check are noted in the journal. The next worker that checks reads
        them, so the time counts once. 0: no doubt is left.

        Raises:
            BrokerError: NATS did not answer; ask again.
        """
        lived = [trial for trial in doubts if await self._find(trial) == "alive"]
        if lived:
            reason = "its worker lived when the job was to be given up"
            notes = [Note(id=key.id, attempt=trial.attempt, verdict="returned", reason=reason) for trial in lived]
            history.judge(notes)
        elif history.asked_unix_ms is None:
            notes = [Note(id=key.id, attempt=history.attempts, verdict="probing", unix_ms=now_unix_ms)]
        else:
            notes = []
        for note in notes:
            await self._journal.append(self._journal.notes_subject(key), codec.encode(note))
        if lived:
            return 0.0
        asked_unix_ms = now_unix_ms if history.asked_unix_ms is None else history.asked_unix_ms
        return min(OBJECTION_S, max(0.0, OBJECTION_S - (now_unix_ms - asked_unix_ms) / 1000))

    async def _find(self, trial: Trial) -> Literal["alive", "gone"]:
        if not is_token(trial.worker):
            return "gone"
        try:
            pong = await self._liveness.ask(trial.worker)
        except BrokerTimeoutError:
            return "alive"  # suspended: this job may have frozen it, but did not kill it
        if pong is None or pong.born_unix_ms > trial.unix_ms:
            return "gone"  # or another process has taken its name
        return "alive"
