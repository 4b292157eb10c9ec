"""Money that was paid and goes back: refunds, in part or in full, and disputes, inquiries, and how they end.

As in `lives`, nothing here decides what is right. No refund and no dispute changes a subscription's status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from admin.rehearsal.lives import Lives
    from admin.simulator.entities_money import Charge


class MoneyBack:
    """Deeds of the customers of `lives`."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives
        self._house, self._chance = lives.house, lives.chance
        often = 3 if lives.house.terms.asks_for_money else 1
        self.deeds: tuple[tuple[int, Callable[[str], Awaitable[str]]], ...] = (
            (often, self._is_refunded),
            (often, self._disputes),
        )

    async def _is_refunded(self, name: str) -> str:
        charge = self._charge(name)
        if charge is None:
            return "has paid nothing that could go back"
        part = {"amount": str(max(1, charge.amount // 3))} if self._chance.random() < 0.4 else {}
        answer = await self._house.ask("POST", "/v1/refunds", charge=charge.id, **part)
        return f"gets {part or 'all'} of {charge.id} back: {answer.status_code}"

    async def _disputes(self, name: str) -> str:
        charge, store = self._charge(name), self._house.simulator.world.store
        if charge is None:
            return "has paid nothing that could be disputed"
        under_way = next((one for one in store.disputes_of(charge.id) if one.is_open), None)
        if under_way is None:
            how = self._chance.choice(["needs_response", "needs_response", "warning_needs_response"])
            answer = await self._house.ask("POST", "/_sim/disputes", charge=charge.id, status=how)
            return f"disputes {charge.id}, {how}: {answer.status_code}"
        if self._chance.random() < 0.5:
            answer = await self._house.ask("POST", f"/v1/disputes/{under_way.id}/close")
            return f"is given {charge.id} without a fight: {answer.status_code}"
        evidence = self._chance.choice(["winning_evidence", "winning_evidence", "losing_evidence", "a receipt"])
        form = {"evidence[uncategorized_text]": evidence}
        answer = await self._house.ask("POST", f"/v1/disputes/{under_way.id}", **form)
        return f"hears {evidence} against the dispute of {charge.id}: {answer.status_code}"

    def _charge(self, name: str) -> Charge | None:
        """Mostly what paid the newest paid bill of something that runs, now and then an older one."""
        store = self._house.simulator.world.store
        subscription = self._lives.some(name)
        if subscription is None:
            return None
        bills = store.invoices_of(subscription.id)
        paid = [one for bill in bills for one in store.charges_of(bill.id) if one.status == "succeeded"]
        if not paid:
            return None
        return paid[-1] if self._chance.random() < 0.8 else self._chance.choice(paid)
