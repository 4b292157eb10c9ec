"""What an operator does to a customer, the same from the API and from the command line.

Every argument is checked here and comes back as a sentence when it is wrong; nothing is half done. What is committed is
in force everywhere within a second: the ledger's change feed sees to it, whichever process this runs in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from policies.caller import customer_problem
from policies.entitlement import Standing
from policies.tiers import Ladder
from policies.units import parse_duration

if TYPE_CHECKING:
    from admin.ledger.customers import Customers  # and so no SQL where only the results of an operation are named

LONGEST_REASON: Final = 500
LONGEST_NAME: Final = 100
LATEST: Final = 253_402_300_799
"""The last second that a date can name."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing was done; `detail` says what to change. By itself: what was named isn't there, or isn't so."""

    detail: str


@dataclass(frozen=True, slots=True)
class Malformed(Rejected):
    """An argument can't be right, whatever is on record."""


@dataclass(frozen=True, slots=True)
class Unavailable(Rejected):
    """What it takes can't be had: gateway.yaml lacks it, or Stripe can't be asked."""


@dataclass(frozen=True, slots=True)
class Done:
    """It is committed. `detail` says what is now true, in a sentence."""

    detail: str


class Operations:
    """Grants, revocations and blocks. `now` is the entitlement clock, in UTC seconds."""

    def __init__(
        self,
        customers: Customers,
        *,
        ladder: Callable[[], Ladder],
        standing: Callable[[str], Awaitable[Standing]],
        now: Callable[[], float],
    ) -> None:
        self._customers = customers
        self._ladder = ladder
        self._standing = standing
        self._now = now

    async def grant(self, customer: str, tier: str, *, until: str | None, reason: str, by: str) -> Done | Rejected:
        """Give `tier` by hand. `until` is a duration from now, a date, a UTC time, or None for without end."""
        problem = _problem(customer, reason, by)
        if problem is not None:
            return Malformed(problem)
        ladder = self._ladder()
        if tier not in ladder.names:
            return Rejected(f"{tier[:40]!a} is not a tier of gateway.yaml; it has {', '.join(ladder.names) or 'none'}.")
        end = parse_until(until, self._now()) if until is not None else None
        if isinstance(end, Malformed):
            return end
        await self._customers.grant(customer, tier, end, reason, by, self._now())
        return Done(f"{customer} has '{tier}' {'without end' if end is None else f'until {format_time(end)}'}.")

    async def revoke(self, customer: str, *, tier: str | None, reason: str, by: str) -> Done | Rejected:
        """End the customer's grants, all or those of one tier."""
        problem = _problem(customer, reason, by)
        if problem is not None:
            return Malformed(problem)
        if tier is not None and not tier.isprintable():
            return Malformed("That is no name of a tier.")
        revoked = await self._customers.revoke(customer, by, reason, self._now(), tier)
        if revoked.count == 0:
            which = "no running grant" if tier is None else f"no running grant of '{tier}'"
            return Rejected(f"{customer} has {which}.")
        ended = f"{revoked.count} grant{'s' if revoked.count > 1 else ''} of {customer} ended."
        left = await self._standing(customer)
        if left.rank <= self._ladder().everybody_rank:
            return Done(ended)
        until = "" if left.access_until is None else f" until {format_time(left.access_until)}"
        return Done(f"{ended} They still have '{left.tier}'{until}, from what is left or paid for.")

    async def block(self, customer: str, *, reason: str, by: str) -> Done | Rejected:
        """Refuse this customer everything."""
        problem = _problem(customer, reason, by)
        if problem is not None:
            return Malformed(problem)
        await self._customers.block(customer, reason, by, self._now())
        return Done(f"{customer} is blocked.")

    async def unblock(self, customer: str) -> Done | Rejected:
        """Lift the block."""
        problem = customer_problem(customer)
        if problem is not None:
            return Malformed(f"The customer's name {problem}.")
        if await self._customers.unblock(customer, self._now()) is None:
            return Rejected(f"{customer} is not blocked.")
        return Done(f"{customer} is no longer blocked.")


def _problem(customer: str, reason: str, by: str) -> str | None:
    named = customer_problem(customer)
    if named is not None:
        return f"The customer's name {named}."
    for what, text, longest in (("reason", reason, LONGEST_REASON), ("name of who does it", by, LONGEST_NAME)):
        if not text.strip():
            return f"A {what} is needed: whoever looks at this customer later will ask."
        if len(text) > longest or not text.isprintable():
            return f"The {what} must be one printable line of at most {longest} characters."
    return None


def parse_until(text: str, now: float) -> int | Malformed:
    """UTC seconds of `30d` from now, `2026-12-31` (its end) or `2026-12-31T18:00Z`."""
    end = _end_of(text, now)
    if end is None:
        return Malformed(
            f"{text[:40]!a} is neither a duration of at most ten years, such as 30d, nor a date such as 2026-12-31."
        )
    if end > LATEST:
        return Malformed(f"'{text}' is beyond the year 9999; leave it out for a grant without end.")
    return end if end > now else Malformed(f"'{text}' has passed already: it is {format_time(now)}.")


def _end_of(text: str, now: float) -> int | None:
    try:
        return int(now + parse_duration(text))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) <= len("2026-12-31"):
        moment = moment.replace(hour=23, minute=59, second=59)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def format_time(at: float) -> str:
    """`2026-12-31 18:00 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
