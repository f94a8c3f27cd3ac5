"""Finds the promises that a history breaks. Pure, so that tests can check invented histories."""

from collections import Counter
from collections.abc import Iterable, Iterator

from mesh.engines.simulator.settings import SimulatorSettings
from mesh.verify.soak import rules_journal, rules_reader, rules_wire
from mesh.verify.soak.costs import work_of
from mesh.verify.soak.history import Case, RunHistory, cases
from mesh.verify.soak.oracle import reference_of
from mesh.verify.soak.rules_journal import Fault
from mesh.verify.soak.rules_wire import Blind
from mesh.verify.soak.trace import trace_of
from mesh.verify.soak.violation import Bounds, Violation

WRITTEN_ONCE = "a Result is written once"
ONLY_POISON = "all poison, and only poison, becomes a dead letter"
AT_REST = "a mesh at rest has no leftovers"
DRAINS = "all jobs end after the last fault"
LITTLE_WASTE = "little work is done twice"
NO_BUG = "no worker logs a traceback"


def check(history: RunHistory, settings: SimulatorSettings, bounds: Bounds) -> list[Violation]:
    """Return every violation in `history`, for a mesh whose workers ran simulators with `settings`."""
    blind = Blind(history.missed, history.struck, bounds.settle_s)
    by_job = cases(history)
    found = []
    for case in by_job.values():
        faults = list(_check_job(case, settings, blind, bounds))
        if faults:
            told = tuple(trace_of(case, history.struck))
            found += [Violation(rule, case.job, what, told) for rule, what in faults]
    found += [Violation(rule, "", what) for rule, what in _check_run(history, by_job.values(), bounds)]
    return found


def _check_job(case: Case, settings: SimulatorSettings, blind: Blind, bounds: Bounds) -> Iterator[Fault]:
    yield from rules_journal.check_end(case)
    yield from rules_journal.check_journal(case)
    yield from rules_wire.check_fences(case)
    yield from rules_wire.check_acks(case, blind, bounds)
    yield from rules_wire.check_cancels(case, blind, bounds)
    yield from _check_letters(case)
    asked = case.asked
    if asked is not None:
        reference = reference_of(asked.request, asked.tenant, asked.job, settings)
        yield from rules_journal.check_status(case, asked)
        yield from rules_journal.check_text(case, asked, reference)
        yield from rules_reader.check_readers(case, reference)


def _check_letters(case: Case) -> Iterator[Fault]:
    is_poison = case.asked is not None and case.asked.kind == "poison"
    if case.letters and not is_poison:
        yield ONLY_POISON, f"an innocent job became a dead letter after {case.letters[0].attempts} attempts"
    if len(case.letters) > 1:
        yield ONLY_POISON, f"it became a dead letter {len(case.letters)} times"
    if is_poison and case.is_accepted and not case.letters:
        yield ONLY_POISON, "it kills every worker that runs it, and became no dead letter"
    if case.letters and case.result is None:
        yield ONLY_POISON, "it became a dead letter without a Result"


def _check_run(history: RunHistory, by_job: Iterable[Case], bounds: Bounds) -> Iterator[Fault]:
    rest = history.rest
    if rest.result_writes != rest.result_keys:
        yield WRITTEN_ONCE, f"{rest.result_keys} Results, and {rest.result_writes} writes in the bucket"
    if rest.queued:
        yield AT_REST, f"{rest.queued} requests are in the queue"
    if rest.ack_pending:
        yield AT_REST, f"{rest.ack_pending} deliveries are not acknowledged"
    if rest.drained_s is None or rest.drained_s > bounds.drain_s:
        yield DRAINS, f"the queue was not empty {bounds.drain_s:g} s after the last fault"
    strange = [each for each in history.settled if each.verb == "term" and each.sequence not in history.sequences]
    if strange:
        yield rules_wire.NO_TERM, f"{len(strange)} requests of unknown jobs were terminated"
    for line, count in Counter(history.tracebacks).items():
        yield NO_BUG, f"{count} tracebacks in the workers' log: {line[:200]}"
    work = work_of(by_job)
    if work.share > bounds.waste:
        yield LITTLE_WASTE, f"{work.wasted} tokens were wasted, and {work.useful} are in Results"
