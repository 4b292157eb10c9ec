"""The post between Stripe and the gateway: letters are dropped, doubled, reordered, cut off, and sent again; while Stripe is
down, to a process that is about to die, under secrets that are being rolled; and strangers write, too.

It decides what becomes of each letter, and asks for what must hold of every answer: Stripe's own are acknowledged, those
of others have no effect. What the gateway says that it did is believed, and held against the oracle (`seen`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from admin.rehearsal.letters import ROLLS, event_id, forged, of_another, signature
from admin.stripe.webhook import Reception, WebhookReceiver

if TYPE_CHECKING:
    import random

    from admin.rehearsal.house import BrokenPromiseError, House
    from admin.rehearsal.seen import Seen
    from admin.rehearsal.tally import Tally
    from admin.simulator.entities import Event
    from admin.stripe.work import EventWork

_WITHIN_REACH: Final = 12
"""So far may a letter be overtaken by later ones."""

_NOBODYS: Final = ("entitlements.active_entitlement_summary.updated",)
"""As thin events these don't say whose they are, and are no reason to look at anybody."""

_NO_END: Final = 1_000_000


class DiedError(Exception):
    """The process ended here."""


class _DiesAtWork:
    """Whatever an event sets in motion, the process does not live to see it: the inbox row is all that there is."""

    async def process(self, *_: object) -> None:
        raise DiedError


@dataclass(slots=True)
class Post:
    """The letters of one house. `wrong` makes what is raised where a promise was broken."""

    house: House
    chance: random.Random
    tally: Tally
    seen: Seen
    said: list[str]
    wrong: Callable[[str], BrokenPromiseError]

    async def bring(self, most: int) -> None:
        """Some of what waits arrives, in any order."""
        mail = self.house.mail
        for _ in range(min(most, len(mail))):
            event = mail.pop(self.chance.randrange(max(0, len(mail) - _WITHIN_REACH), len(mail)))
            fate = self.chance.random()
            if fate < 0.2:
                self.tally.dropped += 1
                continue
            for body in self.house.bodies(event):
                if fate < 0.3:
                    await self._cut_off(body)
                elif fate < 0.38:
                    await self._kept_and_no_more(body)
                elif fate < 0.47:
                    await self._twice(body)
                else:
                    await self._arrive(event, body)
            if (fate < 0.38 and self.chance.random() < 0.6) or fate > 0.96:
                mail.append(event)  # it was not acknowledged, or Stripe thinks so
                if self.chance.random() < 0.5:
                    await self._again()

    async def while_stripe_is_down(self, payers: list[str]) -> None:
        """All news of these payers arrive, and Stripe tells nothing more: acknowledged, and nothing can be done yet."""
        self._say("Stripe tells nothing while its events arrive")
        self.tally.faults += 1
        self.house.wire.cut = _NO_END
        for event in self._taken_from_the_mail(payers):
            for body in self.house.bodies(event):
                await self._arrive(event, body)
        await self.house.events.run_once()  # it asks for what it missed, in vain
        self.house.wire.cut = 0

    async def to_a_dying_process(self, payers: list[str]) -> None:
        """All news of these payers are kept by a process that then dies."""
        self._say("another process keeps their events, and dies")
        for event in self._taken_from_the_mail(payers):
            for body in self.house.bodies(event):
                await self._kept_and_no_more(body)

    async def from_others(self, names: tuple[str, ...]) -> None:
        """A letter that isn't Stripe's, or isn't for us: no effect, whatever it says."""
        about = [one for one in self.house.chronicle.latest if one.type.startswith("customer.subscription.")]
        if not about:
            return
        body = self.chance.choice(self.house.bodies(self.chance.choice(about)))
        await self.house.nothing_under_way()
        before = await self._facts(names)
        self.tally.strangers += 1
        header: str | None
        if self.chance.random() < 0.5:
            what, body = of_another(body, self.chance)
            expected, header = 200, self._signed(body)
        else:
            what, body, header = forged(body, self._now, self.house.secrets, self.chance)
            expected = 400
        verdict = await self.house.deliver(body, header)
        self._say(f"{what} arrives: {verdict.reception} {verdict.detail}")
        if verdict.status != expected:
            raise self.wrong(f"{what} was answered with {verdict}")
        await self.house.nothing_under_way()
        if await self._facts(names) != before:
            raise self.wrong(f"{what} had an effect")

    def roll_the_secret(self) -> None:
        """The webhook's secret is on its way to the next."""
        self.house.use_secrets(*self.chance.choice(ROLLS))
        self._say(f"{len(self.house.secrets)} webhook secrets are known")

    @property
    def _now(self) -> int:
        return int(self.house.clock())

    def _say(self, what: str) -> None:
        self.said.append(what)

    def _taken_from_the_mail(self, payers: list[str]) -> list[Event]:
        mine = [event for event in self.house.mail if self.house.chronicle.payer_of(event) in payers]
        self.house.mail[:] = [event for event in self.house.mail if event not in mine]
        return mine

    async def _arrive(self, event: Event, body: bytes) -> None:
        verdict = await self.house.deliver(body, self._signed(body))
        if verdict.status != 200:
            raise self.wrong(f"{event.type} was answered with {verdict}")
        self.tally.delivered += 1
        self._say(f"{event.type} {event.id} arrives: {verdict.reception} {verdict.detail}")
        if verdict.reception is Reception.PROCESSED and verdict.detail == "synced":
            self.seen.looked(self.house.chronicle.payer_of(event))
        elif self._is_acted_on(event) and (
            verdict.reception is Reception.DUPLICATE or verdict.detail.startswith("as ")
        ):
            self.seen.heard(event)

    def _is_acted_on(self, event: Event) -> bool:
        if event.type.startswith("charge.dispute."):
            return self.house.terms.rules.revoke_on_dispute
        return event.type not in _NOBODYS

    async def _again(self) -> None:
        """What was just put back comes at once."""
        event = self.house.mail.pop()
        for body in self.house.bodies(event):
            await self._arrive(event, body)

    async def _twice(self, body: bytes) -> None:
        verdicts = await asyncio.gather(*(self.house.deliver(body, self._signed(body)) for _ in range(2)))
        if {verdict.status for verdict in verdicts} != {200}:
            raise self.wrong(f"two deliveries of one event were answered with {verdicts}")
        self.tally.delivered += 2

    async def _cut_off(self, body: bytes) -> None:
        self.tally.cut_off += 1
        self._say(f"{event_id(body)} is cut off")
        task = asyncio.create_task(self.house.deliver(body, self._signed(body)))
        for _ in range(self.chance.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    async def _kept_and_no_more(self, body: bytes) -> None:
        self.tally.cut_off += 1
        self._say(f"{event_id(body)} is kept, and the process dies")
        house = self.house
        work: EventWork = _DiesAtWork()  # type: ignore[assignment]
        dying = WebhookReceiver(",".join(house.secrets), house.pair, house.inbox, work, wall=house.clock)
        with contextlib.suppress(DiedError):
            await dying.receive(body, self._signed(body), house.clock())

    async def _facts(self, names: tuple[str, ...]) -> list[object]:
        return [entitlement.facts for entitlement in await self.house.entitlements(names)]

    def _signed(self, body: bytes) -> str:
        return signature(body, self._now, self.house.secrets, self.chance)
