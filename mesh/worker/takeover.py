"""Reads the past of a job that may have run before: its Result, else its events and notes."""

from dataclasses import dataclass

from mesh.broker.stores.journal import Entry, events_of, notes_in
from mesh.broker.stores.results import Stored
from mesh.job_key import JobKey
from mesh.protocol.history import History, read_history
from mesh.worker.actions import Actions, WorkerContext


@dataclass(frozen=True, slots=True)
class Takeover:
    """One job's past."""

    stored: Stored | None  # the job has ended; the other fields then come from the public journal
    history: History
    last: Entry | None  # the newest event, on the subject where the next one goes


async def read_takeover(
    context: WorkerContext, actions: Actions, key: JobKey, streams: bool, must_be_newest: bool
) -> Takeover:
    """Read a job's past. `must_be_newest`: read the Result from the bucket's leader.

    Raises:
        LostError: the lease ended before NATS answered.
    """
    journal, until_answered = context.journal, actions.until_answered
    look = context.store.get_written if must_be_newest else context.store.get
    stored = await until_answered(lambda: look(key))
    entries = await until_answered(lambda: journal.read(journal.subject(key)))
    history = read_history(events_of(entries))
    if stored is None and history.result is None and not streams:
        entries = await until_answered(lambda: journal.read(journal.attempts_subject(key)))
        history = read_history(events_of(entries))
    if stored is None and history.attempts:
        notes = await until_answered(lambda: journal.read(journal.notes_subject(key)))
        history.judge(notes_in(notes))
    return Takeover(stored, history, entries[-1] if entries else None)
