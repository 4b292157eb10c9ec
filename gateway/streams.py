"""What is open for known customers: who of them is decided again, and when it ends (docs/design.md, P7).

1. Adding and taking away cost one entry in a set each. Only what is still open a tick later is looked at again at all.
2. A customer whose answers are long is decided again when something about them changed, at their next edge (on the
   entitlement clock, which may jump), when a credential ends, and otherwise at least twice in `max_stale`.
3. A stream that is refused ends at once; an ordinary answer only when it is still refused `grace` seconds later.
4. Nothing ends because something is out of reach: while nobody can say, what was known last decides, and what it admits
   stays open for `max_stale`, as a remembered customer does in a request (section 8).

It must never end what the decision of this moment admits, and never decide by itself: it is handed the verdict.
What "end" means for an answer or a WebSocket is that one's own business.
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.credentials import Unauthenticated
from gateway.entitlements.tasks import end
from gateway.plan import Plan
from gateway.walk import Walk
from policies.caller import Caller
from policies.decision import Decision, Forward, Refuse
from policies.entitlement import Entitlement
from policies.reasons import Reason
from policies.routes import CompiledRoute

TICK_SECONDS: Final = 0.5
"""How old an answer is, at least, when it is first looked at again; and how often clocks are compared."""
RETRY_SECONDS: Final = 5.0
"""How soon a customer is looked at again whom nobody could say anything about."""
HEADLESS_SECONDS: Final = 1.0
"""How soon an answer is looked at again that was refused before it showed whether it is a stream."""
LOOKUPS_AT_ONCE: Final = 32
"""When thousands change at once the ledger is asked in turn, so that no lookup waits into its timeout."""

logger = logging.getLogger(__name__)

Verdict = Decision | Unauthenticated
Ending = Refuse | Unauthenticated


class Open(ABC):
    """A request of one caller that is under way: its answer, or its WebSocket. `plan` and `route` last judged it."""

    __slots__ = ("_home", "caller", "ending", "plan", "refused_at", "route", "walk")

    def __init__(self, walk: Walk, route: CompiledRoute, caller: Caller) -> None:
        self.walk = walk
        self.plan: Plan = walk.plan
        self.route = route
        self.caller = caller
        self.ending: Ending | None = None
        """Why it ends before its time; set once."""
        self.refused_at: float | None = None
        """Since when it would not be admitted any more, on the monotonic clock; None while it is."""
        self._home: set[Open]

    @property
    @abstractmethod
    def is_stream(self) -> bool | None:
        """Whether it lasts until somebody ends it. None: it has not shown that yet."""

    @property
    def outlives_token(self) -> bool:
        """Whether its route lets it go on when the token it was opened with has ended."""
        if self.route.is_open or not self.route.enforcement.refuses_everybody:
            return True  # nobody is refused for having no token
        return self.route.index >= 0 and self.plan.config.routes[self.route.index].outlive_token

    @abstractmethod
    def interrupt(self) -> None:
        """Stop; `ending` says why. It must be taken away when it has."""


@dataclass(slots=True, eq=False)
class _Customer:
    """Somebody with something long open, and when that is looked at again: each moment on the clock it belongs to."""

    sure_at: float
    """When it was last known for certain what they have; monotonic, as is `due_at`."""
    due_at: float = math.inf
    edge: float = -math.inf
    credential_ends_at: float = math.inf
    open: set[Open] = field(default_factory=set)
    last_known: Entitlement | None = None
    changed: bool = False
    deciding: asyncio.Task[None] | None = None


class Streams:
    """`run` it in the background, `aclose` it at the end.

    `judge` gives the verdict of this moment on one open thing; what it is handed is for when no lookup succeeds.
    `now` is the entitlement clock, `wall` the one of credentials. `bounds` gives `grace` and `max_stale`, in seconds.
    """

    def __init__(
        self,
        *,
        look_up: Callable[[str], Awaitable[Entitlement | None]],
        judge: Callable[[Open, Entitlement | None], Awaitable[Verdict]],
        bounds: Callable[[], tuple[float, float]],
        now: Callable[[], float],
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._look_up = look_up
        self._judge = judge
        self._bounds = bounds
        self._now = now
        self._wall = wall
        self._monotonic = monotonic
        self._young: set[Open] = set()
        self._older: set[Open] = set()
        self._customers: dict[str, _Customer] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    def __len__(self) -> int:
        return len(self._young) + len(self._older) + sum(len(one.open) for one in self._customers.values())

    def add(self, one: Open) -> None:
        """It has begun."""
        one._home = home = self._young  # noqa: SLF001 -- written here only
        home.add(one)

    def discard(self, one: Open) -> None:
        """It is over. An empty customer goes with the next tick."""
        one._home.discard(one)  # noqa: SLF001

    def changed(self, customer: str | None) -> None:
        """What this customer may do has changed; None: anybody's may have."""
        if customer is None:
            for name, known in self._customers.items():
                self._decide_again(name, known)
        elif (found := self._customers.get(customer)) is not None:
            self._decide_again(customer, found)

    async def run(self) -> None:
        """Compare the clocks again and again, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tick()

    async def aclose(self) -> None:
        """Decide nothing any more. What is open goes on."""
        await end([known.deciding for known in self._customers.values() if known.deciding is not None])

    def tick(self) -> None:
        """Look at what has grown old, and at whoever is due."""
        now, wall, at = self._now(), self._wall(), self._monotonic()
        grown, self._older, self._young = self._older, self._young, set()
        for one in grown:
            known = self._customers.get(one.caller.customer)
            if known is None:
                known = self._customers[one.caller.customer] = _Customer(sure_at=at)
            one._home = known.open  # noqa: SLF001
            known.open.add(one)
            known.edge = -math.inf  # a change of its first moments was heard by nobody: it is due at once
        over: list[str] = []
        for customer, known in self._customers.items():
            if not known.open:
                over.append(customer)
            elif now >= known.edge or at >= known.due_at or wall >= known.credential_ends_at:
                self._decide_again(customer, known)
        for customer in over:
            if self._customers[customer].deciding is None:
                del self._customers[customer]

    def _decide_again(self, customer: str, known: _Customer) -> None:
        known.changed = True
        if known.deciding is None:
            known.deciding = asyncio.get_running_loop().create_task(self._deciding(customer, known))

    async def _deciding(self, customer: str, known: _Customer) -> None:
        try:
            while known.changed and known.open:
                known.changed = False
                await self._decide(customer, known)
        except Exception:
            # A defect of ours must not cut a stream, and not keep it open unseen for good either.
            logger.exception("what is open for a customer could not be decided again")
            known.edge, known.due_at = math.inf, self._monotonic() + RETRY_SECONDS
        finally:
            known.deciding = None

    async def _decide(self, customer: str, known: _Customer) -> None:
        grace, max_stale = self._bounds()
        now = self._now()  # from before the lookup: an edge that passes meanwhile is then due at the next tick
        async with self._lookups:
            found = await self._look_up(customer)
        if found is not None:
            known.last_known = found
        is_sure = found is not None
        may_be_unsure = self._monotonic() < known.sure_at + max_stale
        due_at = math.inf
        for one in list(known.open):
            verdict = await self._judge(one, known.last_known if may_be_unsure else None)
            if isinstance(verdict, Refuse) and verdict.reason is Reason.ENTITLEMENT_UNAVAILABLE:
                is_sure = False
                if may_be_unsure:
                    continue
            due_at = min(due_at, self._apply(one, verdict, grace))
        at = self._monotonic()
        if is_sure:
            known.sure_at = at
        known.due_at = min(due_at, at + (max(RETRY_SECONDS, max_stale / 2) if is_sure else RETRY_SECONDS))
        edge = None if known.last_known is None else known.last_known.next_edge(now)
        known.edge = math.inf if edge is None else edge
        known.credential_ends_at = min(map(_credential_end, known.open), default=math.inf)

    def _apply(self, one: Open, verdict: Verdict, grace: float) -> float:
        """Let it go on or end it; when it must be looked at again for the verdict's sake, on the monotonic clock."""
        if isinstance(verdict, Forward):
            one.refused_at = None
            return math.inf
        at = self._monotonic()
        if one.refused_at is None:
            one.refused_at = at
        if not one.is_stream and at < one.refused_at + grace:
            return min(one.refused_at + grace, at + HEADLESS_SECONDS if one.is_stream is None else math.inf)
        if one.ending is None:
            one.ending = verdict
            one.interrupt()
        return math.inf


def _credential_end(one: Open) -> float:
    """When the end of its credential ends it. An ordinary answer finishes whatever its token does."""
    ends = one.is_stream is not False and one.ending is None and not one.outlives_token
    return one.caller.expires_at if ends else math.inf
