"""Random lives under bad delivery, against the oracle: what the ledger opens is always something that Stripe's truth
opened since the gateway last looked, and after a reconcile it is Stripe's truth.

The first is the safety of everyone at every step: of each Stripe customer it is known which state of the world the
gateway has surely seen (an event about it was answered with "synced", or a reconcile ended); what it opens now must
follow from that state or a later one, at the present time. So nobody is let in whom Stripe's truth plus leeway refuses,
and nobody is refused whom every such state admits. The second holds for the whole future, too: right after a reconcile
the facts must close at exactly the seconds at which the oracle says that they close.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from admin.rehearsal.features import features_on_sale
from admin.rehearsal.house import DAY, HOUR, BrokenPromiseError, House, opened_house
from admin.rehearsal.lives import Lives
from admin.rehearsal.oracle import rank_at, seats_at
from admin.rehearsal.post import Post
from admin.rehearsal.seen import Seen
from admin.rehearsal.tally import Tally
from admin.rehearsal.wires import Shape
from admin.simulator.faults import ApiFault, ApiKind
from admin.stripe.budget import Priority
from admin.stripe.sync import Synced
from policies.entitlement import PAYING, item_span

if TYPE_CHECKING:
    from admin.rehearsal.terms import Terms
    from admin.simulator.thin import Payload
    from policies.entitlement import Entitlement, Standing

LIVES_A_WORLD: Final = 10
ROUNDS: Final = 30
"""Each is at least one step in each life."""

_SHAPES: Final[tuple[Shape, ...]] = ("period on the item", "period on the subscription", "both")
_PAYLOADS: Final[tuple[Payload, ...]] = ("snapshot", "thin", "both")
_API_FAULTS: Final[tuple[ApiKind, ...]] = ("429", "500", "lost_answer", "stale")
_RESTRICTED: Final = 1
"""Of four worlds one is that of a key which may not list invoices."""

_Told = TypeVar("_Told")

_LULLS: Final = (60, HOUR, 6 * HOUR, DAY, 3 * DAY, 8 * DAY, 20 * DAY)
_SHORTLY: Final = 60
_LONGEST_DEAFNESS: Final = 28 * DAY
"""Stripe lists events for thirty days: a gateway that read none for longer has lost what it never heard of."""


class DisagreementError(BrokenPromiseError):
    """Product and oracle differ. The message holds the seed and the diary."""


class Readers(Protocol):
    """Others who read the same ledger, through caches."""

    async def answers(self, customer: str) -> list[Entitlement]:
        """What each would decide by, now."""

    async def catch_up_with_redis(self) -> None:
        """Tell Redis what it has not been told of."""

    async def restart_redis(self) -> None:
        """It comes back, empty."""


@dataclass(slots=True)
class World:
    """One house with its lives, on its way through `ROUNDS` rounds."""

    house: House
    chance: random.Random
    seed: int
    lives: Lives
    seen: Seen
    tally: Tally = field(default_factory=Tally)
    post: Post = field(init=False)
    caught_up_at: float = 0.0
    caches: Readers | None = None
    at: str = "before the first step"
    """Whose which step it is."""

    def __post_init__(self) -> None:
        self.post = Post(self.house, self.chance, self.tally, self.seen, self.lives.said, self.disagreement)

    async def run(self, rounds: int) -> None:
        """All of it; raises DisagreementError."""
        self.tally.lives += len(self.lives.names)
        self.caught_up_at = self.house.clock()
        for step in range(1, rounds + 1):
            for name in self.lives.names:
                self.at = f"step {step} of {name}"
                await self.lives.step(name)
                self.tally.steps += 1
                if self.lives.ends_in_debt(name) and self.chance.random() < 0.3:
                    await self._reconcile()
                await self._trouble(name)
                await self.post.bring(self.chance.choice([0, 0, 0, 1, 1]))
                await self._check([name])
            self.at = f"after step {step} of all"
            lull = self.chance.choice(_LULLS)
            if self.house.clock() + lull > self.caught_up_at + _LONGEST_DEAFNESS:
                await self._reconcile()
            for _ in range(hops := self.chance.choice([1, 1, 3])):
                self._pass_time(lull / hops)
                await self.post.bring(self.chance.randrange(3))
                await self._check(self.lives.names)
            await self._background()
        await self._reconcile()
        self.tally.kinds.update(self.house.chronicle.kinds)
        for rank, account in self.house.chronicle.sales.items():
            self.tally.tier(rank).add(account)

    # What goes wrong

    async def _trouble(self, name: str) -> None:
        chance = self.chance.random()
        if chance < 0.05:
            kind = self.chance.choice(_API_FAULTS)
            self.seen.lied_to = self.seen.lied_to or kind == "stale"
            self._fault(kind)
        elif chance < 0.07:
            self.tally.faults += 1
            self.house.wire.cut = self.chance.randrange(1, 5)
        elif chance < 0.09:
            await self._restart()
        elif chance < 0.14:
            await self._overtake(name)
        elif chance < 0.16:
            await self.post.while_stripe_is_down(self.lives.payers[name])
        elif chance < 0.20:
            await self.post.from_others(self.lives.names)
        elif chance < 0.22:
            self.post.roll_the_secret()
        elif chance < 0.25:
            await self._stall_over_a_renewal(name)

    def _fault(self, kind: ApiKind) -> None:
        self.tally.faults += 1
        self.lives.said.append(f"Stripe: {kind}")
        self.house.simulator.world.faults.api.append(ApiFault(kind, self.chance.randrange(1, 6)))

    async def _restart(self) -> None:
        self.tally.restarts += 1
        self.lives.said.append("the gateway is restarted")
        await self.house.restart()

    async def _overtake(self, name: str) -> None:
        """One process fetches and stalls; the world moves on and another process looks; the first wakes up."""
        waiting = [event for event in self.house.mail if event.type.startswith("customer.subscription.")]
        if not waiting:
            return
        house = self.house
        self.tally.overtaken += 1
        self.lives.said.append(f"a look stalls over {waiting[-1].type}")
        about = house.chronicle.payer_of(waiting[-1])
        stalled = await self._stalled(house.receive(house.bodies(waiting[-1])[0]))
        before = house.sync, house.verify
        house._wire_up()  # a second process over the same ledger
        await house.catalog.load()
        if dies := self.chance.random() < 0.5:
            await self._something_changes(about, name)
            await self.post.to_a_dying_process([about])
        else:
            await self.lives.step(name)
            await self.post.bring(3)
        house.wire.let_go()
        await stalled
        for component in before:
            await component.aclose()
        if dies and self.chance.random() < 0.8:
            await self._reconcile()

    async def _stall_over_a_renewal(self, name: str) -> None:
        """A look has heard of the subscriptions, and stalls; one is billed anew before the look asks for its bills."""
        house = self.house
        found = [one for one in self.lives.running(name) if one.status == "active" and one.items]
        moment, payer = min(
            ((min(item.period_end for item in one.items), one.customer) for one in found), default=(0, "")
        )
        wait = moment - house.clock() - _SHORTLY
        if not 0 < wait <= _LULLS[-1]:
            return
        if moment + _SHORTLY > self.caught_up_at + _LONGEST_DEAFNESS:
            await self._reconcile()
        self._pass_time(wait)
        await house.nothing_under_way()
        self.tally.overtaken += 1
        self.lives.said.append(f"a look at {payer} stalls over a renewal")
        state = self.seen.state_now(payer)
        stalled = await self._stalled(house.sync.sync_customer(payer, Priority.WEBHOOK))
        self._pass_time(2 * _SHORTLY)
        house.wire.let_go()
        if isinstance(await stalled, Synced):
            self.seen.looked(payer, state)

    async def _stalled(self, look: Coroutine[Any, Any, _Told]) -> asyncio.Task[_Told]:
        """The look, once Stripe's list of subscriptions is made and held back, or it has ended without one."""
        wire = self.house.wire
        wire.hold = 1
        stalled = asyncio.create_task(look)
        while not wire.held and not stalled.done():  # noqa: ASYNC110 -- it is the other side that moves
            await asyncio.sleep(0.0005)
        wire.hold = 0
        return stalled

    async def _something_changes(self, payer: str, name: str) -> None:
        """For this payer, if a few steps of whose it is can do that."""
        states = self.house.chronicle.states
        owner = next((one for one, payers in self.lives.payers.items() if payer in payers), name)
        known = len(states.get(payer, ()))
        for _ in range(3):
            await self.lives.step(owner)
            if len(states.get(payer, ())) > known:
                return

    def _pass_time(self, seconds: float) -> None:
        self.house.advance(seconds)
        self.lives.said.append(f"{self.house.clock():.0f} time passed")

    async def _background(self) -> None:
        """The process is up for a while, or is not."""
        if self.caches is not None and self.chance.random() < 0.2:
            self.lives.said.append("Redis is restarted")
            self.tally.restarts += 1
            await self.caches.restart_redis()
        if self.caches is not None and self.chance.random() < 0.5:
            await self.caches.catch_up_with_redis()
        chance = self.chance.random()
        if chance < 0.3:
            await self.house.worker.run_once()
        elif chance < 0.4:
            await self.house.edges.run_once()
        elif chance < 0.5:
            await self.house.events.run_once()
        elif chance < 0.65:
            await self._reconcile()

    @property
    def _everybody(self) -> int:
        return self.house.terms.everybody

    # What must hold

    async def _reconcile(self) -> None:
        self.tally.reconciles += 1
        self.lives.said.append("reconcile")
        await self.house.reconcile(with_a_night=self.seen.lied_to)
        self.caught_up_at = self.house.clock()
        self.seen.looked_at_everybody()
        counts = await self.house.inbox.counts(self.house.pair)
        if set(counts) - {"done", "ignored"}:
            raise self.disagreement(f"after a reconcile events are left: {counts}")
        await self._check(self.lives.names)
        for entitlement in await self.house.entitlements(self.lives.names):
            self._check_future(entitlement.facts.customer, entitlement)

    async def _check(self, names: tuple[str, ...] | list[str]) -> None:
        now = self.house.clock()
        found = await self.house.entitlements(names)
        if self.caches is not None:
            found += [answer for name in names for answer in await self.caches.answers(name)]
        for entitlement in found:
            name = entitlement.facts.customer
            self.tally.checks += 1
            rank = entitlement.at(now).rank
            self.tally.admitted += rank > self._everybody
            possible = self.seen.possible(self.lives.payers[name], now, self._everybody)
            if rank not in possible:
                raise self.disagreement(
                    f"{name} has rank {rank} at {now:.0f}, the oracle knows only {sorted(possible)}", entitlement
                )
            if rank > self._everybody:
                self._measure(name, rank, entitlement, now)

    def _measure(self, name: str, rank: int, entitlement: Entitlement, now: float) -> None:
        """How long whoever is let in has outlived the money."""
        account = self.tally.tier(rank)
        for payer in self.lives.payers[name]:
            for overdue in self.house.chronicle.oracle.overdue(payer, now):
                if overdue.rank == rank:
                    account.unpaid = max(account.unpaid, overdue.unpaid)
        for subscription in entitlement.facts.subscriptions:
            for item in subscription.items if subscription.status in PAYING else ():
                span = item_span(subscription, item, self.house.ladder, self.house.terms.rules)
                if span is not None and span.rank == rank and now < span.closes_at and item.period_end is not None:
                    account.late = max(account.late, now - item.period_end)

    def _check_future(self, name: str, entitlement: Entitlement) -> None:
        openings = self.seen.now_open(self.lives.payers[name])
        now = self.house.clock()
        ends = {opening.until for opening in openings if opening.until != float("inf")} | set(entitlement.edges)
        for moment in sorted({now, *(end + off for end in ends for off in (-1, 0))}):
            if moment < now:
                continue
            self.tally.probes += 1
            mine, theirs = entitlement.at(moment).rank, rank_at(openings, moment, self._everybody)
            if mine == theirs:
                self._check_extent(name, moment, entitlement.at(moment))
            else:
                raise self.disagreement(
                    f"{name} would have rank {mine} at {moment:.0f}, the oracle says {theirs} (now {now:.0f})",
                    entitlement,
                )

    def _check_extent(self, name: str, moment: float, standing: Standing) -> None:
        """Of the tier that they have by both: for how many, and with what."""
        payers, terms = self.lives.payers[name], self.house.terms
        openings = self.seen.now_open(payers)
        seats = seats_at(openings, moment, standing.rank) if standing.rank > terms.everybody else None
        if standing.quantity != seats:
            raise self.disagreement(f"{name} would have {standing.quantity} seats at {moment:.0f}, not {seats}")
        features = terms.features[standing.rank] if standing.rank >= 0 else frozenset()
        if terms.rules.features_from_stripe and any(moment < opening.until for opening in openings):
            features |= self.seen.features_now(payers)
        if set(standing.features) != features:
            told = sorted(features)
            raise self.disagreement(f"{name} would have the features {standing.features} at {moment:.0f}, not {told}")

    def disagreement(self, what: str, entitlement: Entitlement | None = None) -> DisagreementError:
        """What went wrong, with where and how to have it again."""
        facts = "" if entitlement is None else f"\nfacts: {entitlement.facts}"
        diary = "\n".join(self.lives.said[-60:])
        return DisagreementError(f"seed {self.seed}, {self.at}: {what}{facts}\n{diary}")


async def run_world(
    seed: int,
    url: str,
    terms: Terms,
    *,
    lives: int = LIVES_A_WORLD,
    rounds: int = ROUNDS,
    caches_of: Callable[[House], AbstractAsyncContextManager[Readers]] | None = None,
) -> Tally:
    """One world from beginning to end over the migrated, empty ledger at `url`; with caches, through those as well."""
    chance = random.Random(seed)  # noqa: S311 -- a world that can be made again
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(opened_house(url, terms))
        house.wire.shape = _SHAPES[seed % 3]
        house.simulator.webhooks.payload = _PAYLOADS[(seed // 3) % 3]
        names = tuple(f"customer-{number}" for number in range(lives))
        if seed % 4 == _RESTRICTED and not terms.asks_for_money:
            house.wire.is_key_restricted, house.chronicle.oracle.are_bills_readable = True, False
        if terms.rules.features_from_stripe:
            await features_on_sale(house)
        seen = Seen(house.chronicle)
        world = World(house, chance, seed, Lives(house, names, chance, seen), seen)
        if caches_of is not None:
            world.caches = await stack.enter_async_context(caches_of(house))
        try:
            await world.run(rounds)
        except DisagreementError:
            raise
        except BrokenPromiseError as broken:
            raise world.disagreement(str(broken)) from broken
        except Exception as problem:  # whatever the product raises here it would raise in earnest
            raise world.disagreement(f"{type(problem).__name__}: {problem}") from problem
    return world.tally
