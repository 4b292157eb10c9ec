"""What a gateway.yaml and its Stripe account think of each other, before anybody is refused over it.

It decides nothing and changes nothing: ids of the file that this account and mode doesn't know, and subscriptions that
pay for no tier of the file. Subscriptions are read page by page, and only what is wrong is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from admin.stripe.budget import Priority
from admin.stripe.client import PAGE_SIZE, StripeGateway, StripeRefused, StripeUnavailable
from admin.stripe.fetch import NOTHING_MORE, Failed, failed, whole
from admin.stripe.fields import Json, entries, identifier
from admin.stripe.on_sale import CatalogProblem, ask_for_prices
from policies.entitlement import PAYING, BillingRules, derive
from policies.facts import CustomerFacts
from policies.tiers import Ladder, build_ladder

if TYPE_CHECKING:
    from policies.schema import Config

MOST_LISTED: Final = 1000


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A paying subscription whose `prices` belong to no tier."""

    subscription: str
    stripe_customer: str
    status: str
    prices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """`unmapped` are the first thousand of `unmapped_count`; `subscriptions` is how many pay at all."""

    problems: tuple[CatalogProblem, ...]
    unmapped: tuple[Unmapped, ...]
    unmapped_count: int
    subscriptions: int


ReviewOutcome: TypeAlias = Review | Failed


async def review(gateway: StripeGateway, config: Config, pins: Mapping[str, str]) -> ReviewOutcome:
    """Ask about every id of the file and every paying subscription. `pins` is what the ledger has seen under lookup keys."""
    found = await ask_for_prices(gateway, config.tiers, Priority.NIGHTLY)
    if isinstance(found, Failed):
        return found
    ladder = build_ladder(config.tiers, {**pins, **dict(found.seen_by_key)})
    rules = BillingRules.of(config.billing)
    unmapped: list[Unmapped] = []
    count = total = 0
    for status in sorted(PAYING):
        after: str | None = None
        while True:
            query = {"status": status, "limit": PAGE_SIZE, **({"starting_after": after} if after else {})}
            page = await gateway.get("/v1/subscriptions", query, priority=Priority.NIGHTLY)
            if isinstance(page, StripeUnavailable | StripeRefused):
                return failed(page)
            listed = [entry for entry in entries(page, "data") if isinstance(entry, Mapping)]
            for entry in listed:
                judged = await _judged(gateway, entry, ladder, rules)
                if isinstance(judged, Failed):
                    return judged
                total += 1
                if judged is not None:
                    count += 1
                    unmapped += [judged] if count <= MOST_LISTED else []
            before, after = after, identifier(listed[-1].get("id")) if listed else None
            if page.get("has_more") is not True:
                break
            if after is None or after == before:
                return Failed("a page of Stripe's subscriptions says that there is more, but not after what")
    return Review(tuple(found.problems), tuple(unmapped), count, total)


async def _judged(
    gateway: StripeGateway, source: Json, ladder: Ladder, rules: BillingRules
) -> Unmapped | Failed | None:
    read = await whole(gateway, source, Priority.NIGHTLY, NOTHING_MORE)
    if isinstance(read, Failed):
        return read
    if not derive(CustomerFacts("", 0, subscriptions=(read.fact,)), ladder, rules).unmapped:
        return None
    prices = tuple(dict.fromkeys(item.price for item in read.fact.items))
    return Unmapped(read.fact.id, read.stripe_customer or "?", read.fact.status, prices)
