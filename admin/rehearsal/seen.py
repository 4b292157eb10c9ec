"""What of the world the gateway has surely seen, and so what it may open.

Every state that the world was in since the last sure look is possible; none before. A look is sure when the gateway says
that it has had its effect: an event was answered as synced or as known, or a reconcile ended. It must never ask the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from admin.rehearsal.oracle import Opening, rank_at

if TYPE_CHECKING:
    from admin.rehearsal.chronicle import Chronicle
    from admin.simulator.entities import Event


@dataclass(slots=True)
class Seen:
    """Of each payer: the first of its states that the gateway may believe in."""

    chronicle: Chronicle
    since: dict[str, int] = field(default_factory=dict)
    lied_to: bool = False
    """Stripe gave, or may yet give, an old answer as if it were new: until the next night anything is believed."""
    _linked: set[str] = field(default_factory=set)
    _claimed_after: dict[str, int] = field(default_factory=dict)
    """Of those who said late whose they are, after which event: what was acted on before was nobody's."""

    def looked(self, payer: str, state: int | None = None) -> None:
        """The gateway has just seen how things are, or how they were in an earlier `state` or after it."""
        if not self.lied_to:
            seen = self.state_now(payer) if state is None else state
            self.since[payer] = max(self.since.get(payer, 0), seen)
            self._linked.add(payer)

    def heard(self, event: Event) -> None:
        """The gateway says that it has acted on this event: since then, at the latest, it has looked."""
        payer = self.chronicle.payer_of(event)
        state = self.chronicle.state_after.get(event.id)
        if not self.lied_to and state is not None and event.number > self._claimed_after.get(payer, 0):
            self.since[payer] = max(self.since.get(payer, 0), state)

    def looked_at_everybody(self) -> None:
        """A reconcile has ended."""
        self.lied_to = False
        for payer in self.chronicle.states:
            self.looked(payer)

    def claimed(self, payer: str) -> None:
        """It only now says whose it is: what was seen before was seen as nobody's."""
        self.since.pop(payer, None)
        self._linked.discard(payer)
        if payer in self.chronicle.states:
            self._claimed_after[payer] = self.chronicle.events_so_far

    def is_linked(self, payer: str) -> bool:
        """Whether the gateway surely knows whose it is: the first who was named keeps it."""
        return payer in self._linked

    def possible(self, payers: list[str], moment: float, everybody: int) -> set[int]:
        """Every rank that follows at `moment` from states which the gateway may have seen last."""
        found = {everybody}
        for payer in payers:
            since = 0 if self.lied_to else self.since.get(payer, 0)
            ranks = {rank_at(openings, moment, everybody) for openings in self._states(payer)[since:]}
            found = {max(one, other) for one in found for other in ranks}
        return found

    def now_open(self, payers: list[str]) -> tuple[Opening, ...]:
        """What the world has open for them as it is."""
        return tuple(opening for payer in payers for opening in self._states(payer)[-1])

    def state_now(self, payer: str) -> int:
        """Which of the payer's states the world is in."""
        return len(self._states(payer)) - 1

    def features_now(self, payers: list[str]) -> frozenset[str]:
        """What came with what they have bought, beside any tier."""
        return frozenset().union(*(self.chronicle.oracle.features_of(payer) for payer in payers))

    def _states(self, payer: str) -> list[tuple[Opening, ...]]:
        return self.chronicle.states.get(payer, [()])
