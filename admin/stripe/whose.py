"""Whose the object of a thin event is: such an event names the object, and only the object names the customer.

It decides where the object is fetched, asks once however many events name it at once, and remembers the answer, since
Stripe moves none of these from one customer to another. A key that may not read the object is told the customer by the
event's snapshot twin, or nobody is. It must never take more than an id from either, nor remember that nobody is named.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from admin.stripe.client import StripeRefused, StripeUnavailable, path
from admin.stripe.envelope import Envelope, envelope_of
from admin.stripe.fetch import Failed, failed
from admin.stripe.fields import reference
from admin.stripe.objects import customer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from admin.stripe.budget import Priority
    from admin.stripe.client import StripeGateway

MOST_REMEMBERED: Final = 10_000

_HOME: Final = (
    ("customer.subscription.", "subscriptions"),
    ("invoice.", "invoices"),
    ("charge.refunded", "charges"),
    ("charge.dispute.", "disputes"),
    ("subscription_schedule.", "subscription_schedules"),
)
"""Where the object of a thin event is fetched. The address in the event is not followed: only these are ours to read."""

_PERMISSION: Final = re.compile(r"'(rak_[a-z0-9_]{1,60})'")
"""As Stripe names it: "Having the 'rak_invoice_read' permission would allow this request to continue."."""


@dataclass(frozen=True, slots=True)
class Named:
    """It is this Stripe customer's."""

    stripe_customer: str


@dataclass(frozen=True, slots=True)
class Nobodys:
    """Nobody's access depends on it."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Stripe has no such object any more."""


@dataclass(frozen=True, slots=True)
class Untold:
    """The key may not read what would tell; asking again is no use before it may. `detail` says what to do."""

    detail: str


Whose: TypeAlias = Named | Nobodys | Gone | Untold | Failed


@dataclass(frozen=True, slots=True)
class _Asking:
    priority: Priority
    task: asyncio.Task[Whose]


class ObjectOwners:
    """The owners of objects of one account in one mode. `reads_disputes`: whether a dispute may change anything."""

    def __init__(self, gateway: StripeGateway, *, reads_disputes: Callable[[], bool]) -> None:
        self._gateway = gateway
        self._reads_disputes = reads_disputes
        self._remembered: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._asking: dict[tuple[str, str], _Asking] = {}

    async def owner_of(
        self, event_type: str, object_id: str | None, snapshot_event: str | None, priority: Priority
    ) -> Whose:
        """Whose the object of an event of this type is."""
        kind = next((kind for prefix, kind in _HOME if event_type.startswith(prefix)), None)
        if kind is None or object_id is None or (kind == "disputes" and not self._reads_disputes()):
            return Nobodys()
        one = (kind, object_id)
        found = self._remembered.get(one)
        if found is not None:
            self._remembered.move_to_end(one)
            return Named(found)
        whose = await asyncio.shield(self._asked(one, priority).task)
        if isinstance(whose, Named):
            self._remember(one, whose.stripe_customer)
        if isinstance(whose, Untold) and snapshot_event is not None:
            return await self._told_by_twin(snapshot_event, whose, priority)
        return whose

    def _asked(self, one: tuple[str, str], priority: Priority) -> _Asking:
        asking = self._asking.get(one)
        if asking is not None and asking.priority <= priority:
            return asking
        asking = _Asking(priority, asyncio.create_task(self._ask(*one, priority)))
        self._asking[one] = asking
        asking.task.add_done_callback(lambda _: self._answered(one, asking))
        return asking

    def _answered(self, one: tuple[str, str], asking: _Asking) -> None:
        if self._asking.get(one) is asking:
            del self._asking[one]

    def _remember(self, one: tuple[str, str], stripe_customer: str) -> None:
        self._remembered[one] = stripe_customer
        while len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    async def _ask(self, kind: str, object_id: str, priority: Priority) -> Whose:
        answer = await self._gateway.get(path(kind, object_id), priority=priority)
        if not isinstance(answer, StripeUnavailable | StripeRefused) and kind == "disputes":
            charge = reference(answer.get("charge"))
            if charge is not None:  # a dispute names no customer, only what was paid
                kind = "charges"
                answer = await self._gateway.get(path(kind, charge), priority=priority)
        if isinstance(answer, StripeRefused) and answer.is_missing:
            return Gone()
        if isinstance(answer, StripeRefused) and answer.is_forbidden:
            return Untold(_what_to_do(kind, answer.message))
        if isinstance(answer, StripeUnavailable | StripeRefused):
            return failed(answer)
        stripe_customer = customer_of(answer)
        return Nobodys() if stripe_customer is None else Named(stripe_customer)

    async def _told_by_twin(self, snapshot_event: str, untold: Untold, priority: Priority) -> Whose:
        answer = await self._gateway.get(path("events", snapshot_event), priority=priority)
        if isinstance(answer, StripeUnavailable):
            return failed(answer)
        envelope = None if isinstance(answer, StripeRefused) else envelope_of(answer)
        if isinstance(envelope, Envelope) and envelope.stripe_customer is not None:
            return Named(envelope.stripe_customer)
        return untold


def _what_to_do(kind: str, message: str) -> str:
    named = _PERMISSION.search(message)
    permission = f" (Stripe calls that {named[1]})" if named else ""
    what = kind.replace("_", " ")
    return f"the key may not read {what}, so whose this is can't be told: let it{permission}, then replay the event"
