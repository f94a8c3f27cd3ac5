"""Plans a replay of recorded requests, and counts its results. Pure."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from mesh.broker.stores.delivery import StoredRequest
from mesh.job_key import JobKey
from mesh.protocol.messages import Request, Result
from mesh.protocol.subjects import is_token
from mesh.protocol.validate import seed_of

PREFIX = "replay-"  # prefix of every replayed job's id: a replay is never replayed, and never mistaken for its original
_LONGEST_ID = 64
SHARES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class ReplayMapping:
    """The model and tenant under which requests are submitted again."""

    run: str  # unique id of this replay; part of every job's id
    models: dict[str, str] = field(default_factory=dict)  # recorded name to new one
    model: str | None = None  # for all other models; None: the recorded one
    tenant: str | None = None  # None: the recorded one

    def model_of(self, recorded: str) -> str:
        """Returns the model to request instead of the recorded one."""
        return self.models.get(recorded, self.model or recorded)


@dataclass(frozen=True, slots=True)
class ReplayedRequest:
    """One request to submit."""

    sequence: int  # of the original
    at_unix_ms: int  # when the original was stored
    tenant: str
    model: str
    tier: str
    request: Request
    encoding: str


def ask_of(stored: StoredRequest, target: ReplayMapping) -> ReplayedRequest | str:
    """Returns the request to submit for a recorded one, or one word for why it is skipped."""
    at = stored.address
    if at is None or stored.request is None or not all(map(is_token, (at.model, at.tenant))):
        return "unreadable"  # it was refused, and would be again
    if stored.job.startswith(PREFIX):
        return "replays"
    seed = stored.request.seed
    if stored.request.input is None:  # the seed that the original's id gave, so that the replay samples alike
        seed = seed_of(stored.request, JobKey(at.tenant, stored.job))
    return ReplayedRequest(
        sequence=stored.sequence,
        at_unix_ms=stored.stored_unix_ms,
        tenant=target.tenant or at.tenant,
        model=target.model_of(at.model),
        tier=at.tier,
        request=replace(stored.request, id=job_id(target.run, stored.job), seed=seed),
        encoding=stored.encoding,
    )


def job_id(run: str, recorded: str) -> str:
    """Returns the id of a replayed job."""
    plain = f"{PREFIX}{run}-{recorded}"
    if len(plain) <= _LONGEST_ID:
        return plain
    return f"{PREFIX}{run}-{hashlib.sha256(recorded.encode()).hexdigest()[:32]}"


def due_s(ask: ReplayedRequest, first_unix_ms: int, speed: float | None) -> float:
    """Returns when a request is due, in seconds after the first submission; `speed` None: at once."""
    return 0.0 if speed is None else max(0, ask.at_unix_ms - first_unix_ms) / 1000 / speed


def request_now(ask: ReplayedRequest, now_unix_ms: int) -> Request:
    """Returns the request with the original's time to its deadline."""
    deadline = ask.request.deadline_unix_ms
    if deadline is None:
        return ask.request
    return replace(ask.request, deadline_unix_ms=max(1, now_unix_ms + deadline - ask.at_unix_ms))


class Outline:
    """Counts the recorded requests of a time span."""

    def __init__(self, is_whole: bool) -> None:
        """`is_whole`: all tenants and models are read, so each missing sequence is a missing request."""
        self._is_whole = is_whole
        self.asks: Counter[tuple[str, str, str]] = Counter()  # by tenant, model and tier of the submission
        self.skipped: Counter[str] = Counter()
        self.first_unix_ms = self.last_unix_ms = 0
        self.missing = 0  # requests between the first and the last that were not recorded
        self._sequence = 0

    @property
    def total(self) -> int:
        """The number of requests to submit."""
        return self.asks.total()

    def note(self, stored: StoredRequest, ask: ReplayedRequest | str) -> None:
        """Counts one recorded request."""
        if self._is_whole and 0 < self._sequence < stored.sequence:
            self.missing += stored.sequence - self._sequence - 1
        self._sequence = max(self._sequence, stored.sequence)
        if isinstance(ask, str):
            self.skipped[ask] += 1
            return
        self.asks[ask.tenant, ask.model, ask.tier] += 1
        self.first_unix_ms = self.first_unix_ms or ask.at_unix_ms
        self.last_unix_ms = max(self.last_unix_ms, ask.at_unix_ms)


class ReplayReport:
    """Counts and times of a replay; keeps a few numbers per request."""

    def __init__(self) -> None:
        self.submitted = 0
        self.refused: Counter[str] = Counter()  # by error code
        self.ended: Counter[str] = Counter()  # by status; `lost` without a Result
        self.behind_s = 0.0  # the largest delay of a submission
        self.sequences = array("q")  # of the originals whose replay ended; the next arrays are parallel
        self._totals = array("q")
        self._firsts = array("q")  # -1: none
        self.originals: dict[int, tuple[int, int | None]] = {}  # total and first token of originals, ms, by sequence

    @property
    def open(self) -> int:
        """The number of submitted jobs that have not ended."""
        return self.submitted - self.ended.total()

    def note(self, ask: ReplayedRequest, result: Result | None) -> None:
        """Counts an ended job; `result` None: its outcome is unknown."""
        self.ended[result.status if result is not None else "lost"] += 1
        if result is not None and result.status == "finished":
            self.sequences.append(ask.sequence)
            self._totals.append(result.timing.total_ms)
            first = result.timing.first_token_ms
            self._firsts.append(-1 if first is None else first)

    def totals_ms(self) -> tuple[list[int], list[int]]:
        """Returns times from storage to end, of originals and replays: pairs only, or all replays without originals."""
        return self._pairs(self._totals, [self.originals.get(each, (None, None))[0] for each in self.sequences])

    def firsts_ms(self) -> tuple[list[int], list[int]]:
        """Returns times from storage to the first token, as `totals_ms`."""
        return self._pairs(self._firsts, [self.originals.get(each, (None, None))[1] for each in self.sequences])

    def _pairs(self, ours: Iterable[int], theirs: Sequence[int | None]) -> tuple[list[int], list[int]]:
        both = [(was, now) for was, now in zip(theirs, ours, strict=True) if was is not None and now >= 0]
        if not self.originals:
            return [], sorted(now for now in ours if now >= 0)
        return sorted(was for was, _ in both), sorted(now for _, now in both)
