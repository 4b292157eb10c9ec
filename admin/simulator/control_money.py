"""The controls of money that was taken, under `/_sim`: refunds as from Stripe's Dashboard, disputes as from a bank.

It decides which charge is meant. It must never do anything else with it than the API would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response

from admin.simulator.control import TEXT, Sent, answer, body
from admin.simulator.payments import DISPUTE_REASONS, REFUND_REASONS
from admin.simulator.wire import ApiError, Params

if TYPE_CHECKING:
    from admin.simulator.app import Simulator
    from admin.simulator.entities_money import Charge, DisputeStatus

OPENINGS = ("needs_response", "warning_needs_response")
ENDINGS = ("won", "lost", "warning_closed")


def money_router(simulator: Simulator) -> APIRouter:
    """Every control of `simulator` that is about money."""
    router = APIRouter(prefix="/_sim", tags=["money"])
    world = simulator.world
    payments = world.billing.invoicing.payments

    def meant(sent: Params) -> Charge:
        charge, subscription = sent.text("charge"), sent.text("subscription")
        if (charge is None) == (subscription is None):
            raise ApiError(400, "Send charge, or subscription for what paid its last paid invoice.")
        if charge is not None:
            return world.store.get(world.store.charges, charge, param="charge")
        named = world.store.get(world.store.subscriptions, subscription or "", param="subscription")
        found = payments.last_paid(named.id)
        if found is None:
            raise ApiError(400, f"Nothing was charged for the subscription {named.id} so far.", param="subscription")
        return found

    @router.post(
        "/refunds",
        summary="Give money back: all of a charge, or an amount of it",
        openapi_extra=body(
            charge=TEXT,
            subscription=TEXT,
            amount={"type": "integer"},
            reason={"type": "string", "enum": list(REFUND_REASONS)},
        ),
    )
    async def refund(request: Request, sent: Sent) -> Response:
        charge, amount = meant(sent), sent.whole("amount", least=1)
        made = payments.refund(charge, amount, sent.choice("reason", REFUND_REASONS), {})
        return answer(request, world.journal.render(made), sent)

    @router.post(
        "/disputes",
        summary="Let the cardholder's bank dispute a charge, or only ask about it (warning_needs_response)",
        openapi_extra=body(
            charge=TEXT,
            subscription=TEXT,
            status={"type": "string", "enum": list(OPENINGS)},
            reason={"type": "string", "enum": list(DISPUTE_REASONS)},
        ),
    )
    async def dispute(request: Request, sent: Sent) -> Response:
        status = sent.choice("status", OPENINGS) or OPENINGS[0]
        reason = sent.choice("reason", DISPUTE_REASONS) or "fraudulent"
        made = payments.dispute(meant(sent), cast("DisputeStatus", status), reason)
        return answer(request, world.journal.render(made), sent)

    @router.post(
        "/disputes/{identifier}/close",
        summary="Let the bank decide a dispute",
        openapi_extra=body(status={"type": "string", "enum": list(ENDINGS)}),
    )
    async def close(request: Request, identifier: str, sent: Sent) -> Response:
        found = world.store.get(world.store.disputes, identifier)
        status = sent.choice("status", ENDINGS)
        if status is None:
            raise sent.required("status")
        payments.close(found, cast("DisputeStatus", status))
        return answer(request, world.journal.render(found), sent)

    return router
