"""Decides how many jobs to pull from which consumer, never more than the engine can start. Pure.

A credit is a free engine slot. Each requested job holds one from its pull on, so running and requested jobs never
exceed the capacity. There are two kinds of pull:

* now-or-never, where jobs are known or suspected to wait; `policies/tiers` shares these between tiers;
* waiting, for one job each, where nothing was found: the server answers as soon as a job arrives.

An engine may have fewer slots than there are consumers. It then waits on all of them while it has a free slot. It
hands back at once the jobs that it cannot start (`accepts` is False).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.policies.tiers import TierScheduler, TierWeights
from mesh.protocol.messages import TIERS

WAIT_S = 0.5  # a waiting pull holds a credit: short, to free the credit soon for consumers with a backlog
WAIT_IDLE_S = 1.0  # while nothing runs: longer, so that an idle worker costs the server little
WAIT_NARROW_S = 0.2  # with credits for some consumers only: short, so that they take turns faster
STALE_S = 0.25  # a consumer that was not checked for so long may have jobs


@dataclass(frozen=True, slots=True)
class Source:
    """One consumer a worker pulls from."""

    consumer: str
    tier: str
    lane: int


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull to send."""

    source: Source
    batch: int
    expires_s: float | None  # None: now or never


@dataclass(slots=True)
class _State:
    asked: int = 0  # jobs its open pull may still bring
    is_open: bool = False
    waits: bool = False  # the open pull is a waiting one
    backlog: int = 0  # jobs that wait there, as far as is known
    looked_s: float = float("-inf")  # when it was last seen empty
    asked_s: float = 0.0  # when its pull was sent
    paused_until_s: float = float("-inf")  # not asked before


class Credits:
    """The credits of one worker. All times are monotonic seconds."""

    def __init__(self, capacity: int, sources: Sequence[Source], weights: TierWeights) -> None:
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self._capacity = capacity
        self._sources = {source.consumer: source for source in sources}
        self._states = {source.consumer: _State() for source in sources}
        self._scheduler = TierScheduler(weights)
        self._running = 0
        self._is_tiny = capacity < len(sources)
        self._stale_s = STALE_S

    @property
    def running(self) -> int:
        """Jobs that hold a slot."""
        return self._running

    @property
    def free(self) -> int:
        """Slots neither taken nor promised."""
        held = sum(state.asked for state in self._states.values() if not (state.waits and self._is_tiny))
        return self._capacity - self._running - held

    def plan(self, now_s: float, owned: frozenset[int] = frozenset()) -> list[Pull]:
        """The pulls to send now, which count as sent. Within a tier, `owned` lanes come first."""
        asks, is_held = self._look(now_s, owned)
        return asks if is_held else asks + self._wait(now_s, owned)

    def accepts(self) -> bool:
        """Whether a job that just arrived can start."""
        return self._running < self._capacity

    def delivered(self, consumer: str, pending: int, accepted: bool) -> None:
        """Count an arrived job, with `pending` more behind it; it holds a slot if it was accepted."""
        state = self._states[consumer]
        state.asked = max(0, state.asked - 1)
        state.backlog = pending if accepted else pending + 1
        if accepted:
            self._running += 1

    def ended(self, consumer: str, now_s: float, empty: bool, pause_s: float = 0.0) -> None:
        """Close the consumer's pull; `empty`: the server said that no job waits there.

        The consumer is not pulled again for `pause_s` seconds.
        """
        state = self._states[consumer]
        if not state.waits:
            self._scheduler.refund(self._sources[consumer].tier, state.asked)
        state.asked = 0
        state.is_open = False
        if empty:
            state.backlog = 0
            state.looked_s = now_s
            if not state.waits:  # far from the server a pull takes long: leave time to check every consumer
                self._stale_s = max(STALE_S, (now_s - state.asked_s) * (len(self._states) + 1))
        state.paused_until_s = now_s + pause_s

    def released(self) -> None:
        """A job gave its slot back."""
        self._running -= 1

    def _look(self, now_s: float, owned: frozenset[int]) -> tuple[list[Pull], bool]:
        """Now-or-never pulls for the free slots, where jobs wait or may wait; and whether slots are held back.

        Slots are held back for a tier whose turn it is while all its consumers have open pulls. The next answer,
        one round trip away, frees a consumer to use them.
        """
        claims, asked = self._claims(now_s)
        granted: dict[str, int] = {}
        free, is_held = self.free, False
        while free > 0 and (claims or asked):
            tier = self._scheduler.choose(asked | {self._sources[name].tier for name in claims})
            names = [name for name in claims if self._sources[name].tier == tier]
            if not names:
                self._scheduler.refund(tier, 1)
                is_held = True
                break
            name = max(names, key=lambda n: (self._sources[n].lane in owned, claims[n], n))
            granted[name] = granted.get(name, 0) + 1
            claims[name] -= 1
            if not claims[name]:
                del claims[name]
            free -= 1
        return [self._ask(name, batch, None, now_s) for name, batch in granted.items()], is_held

    def _claims(self, now_s: float) -> tuple[dict[str, int], set[str]]:
        """The jobs that each idle consumer may have; and the tiers whose open pulls take fewer jobs than wait."""
        claims: dict[str, int] = {}
        asked: set[str] = set()
        for name, state in self._states.items():
            if state.is_open:
                if not state.waits and state.backlog > state.asked:
                    asked.add(self._sources[name].tier)
            elif now_s >= state.paused_until_s:
                suspected = max(state.backlog, 1 if now_s - state.looked_s > self._stale_s else 0)
                if suspected:
                    claims[name] = suspected
        return claims, asked

    def _wait(self, now_s: float, owned: frozenset[int]) -> list[Pull]:
        """Waiting pulls for the slots that are still free."""
        idle = [n for n, state in self._states.items() if not state.is_open and now_s >= state.paused_until_s]
        idle.sort(
            key=lambda n: (
                TIERS.index(self._sources[n].tier),
                self._sources[n].lane not in owned,
                self._states[n].looked_s,
            )
        )
        free = self.free
        if free <= 0:
            return []
        room = len(idle) if self._is_tiny else free
        is_idle = self._running == 0
        expires_s = WAIT_NARROW_S if room < len(idle) else WAIT_IDLE_S if is_idle else WAIT_S
        return [self._ask(name, 1, expires_s, now_s) for name in idle[:room]]

    def _ask(self, name: str, batch: int, expires_s: float | None, now_s: float) -> Pull:
        state = self._states[name]
        state.asked_s = now_s
        state.asked = batch
        state.is_open = True
        state.waits = expires_s is not None
        return Pull(self._sources[name], batch, expires_s)
