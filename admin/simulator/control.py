"""The controls of the simulator, under `/_sim`: the clock, webhooks, cards, faults.

It decides how a person or a test moves the simulated world. Bodies are JSON or forms; a form sent from a page leads back
to the page. It must never answer a wrong input with anything but a clear sentence.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from admin.simulator.entities import CARDS
from admin.simulator.faults import (
    API_KINDS,
    DELIVERY_KINDS,
    LONGEST_HANG_SECONDS,
    ApiFault,
    ApiKind,
    DeliveryFault,
    DeliveryKind,
)
from admin.simulator.invoicing import AfterFinalFailure
from admin.simulator.protocol import read_params
from admin.simulator.thin import PAYLOADS
from admin.simulator.wire import ApiError, Json, Params

if TYPE_CHECKING:
    from admin.simulator.app import Simulator
    from admin.simulator.entities import Card
    from admin.simulator.thin import Payload

FINAL: tuple[AfterFinalFailure, ...] = ("canceled", "unpaid", "past_due", "paused")
LONGEST_WAIT_SECONDS = 60.0
PAGE = re.compile(r"/customers/[A-Za-z0-9_]+")
"""The pages besides the front page from which a form may come, and to which it leads back."""
_DAY = 86400.0


async def _params(request: Request) -> Params:
    return Params(await read_params(request))


Sent = Annotated[Params, Depends(_params)]


def body(**fields: Any) -> dict[str, Any]:
    """The part of the OpenAPI document that says what may be sent, as JSON or as a form."""
    schema = {"schema": {"type": "object", "properties": fields}}
    return {"requestBody": {"content": {"application/json": schema, "application/x-www-form-urlencoded": schema}}}


BOOLEAN, NUMBER, TEXT = {"type": "boolean"}, {"type": "number"}, {"type": "string"}


def answer(request: Request, shown: Json, sent: Params | None = None) -> Response:
    """JSON; a person who pressed a button on a page goes back to it."""
    if request.method == "POST" and "text/html" in request.headers.get("accept", ""):
        back = sent.text("back") if sent is not None else None
        return RedirectResponse(back if back is not None and PAGE.fullmatch(back) else "/", status_code=303)
    return JSONResponse(shown)


def control_router(simulator: Simulator) -> APIRouter:
    """Every control of `simulator`."""
    router = APIRouter(prefix="/_sim", tags=["controls"])
    world, clock = simulator.world, simulator.clock

    def clock_json() -> Json:
        return {"now": clock.now(), "offset": clock.offset}

    @router.get("/clock", summary="What time it is in the simulated Stripe")
    async def read_clock() -> Json:
        return clock_json()

    @router.post(
        "/clock/advance",
        summary="Move the clock forward and work off everything that falls due",
        openapi_extra=body(seconds=NUMBER, days=NUMBER, to=TEXT, to_utc=TEXT, wait=BOOLEAN),
    )
    async def advance(request: Request, sent: Sent) -> Response:
        given = [name for name in ("seconds", "days", "to", "to_utc") if sent.text(name) is not None]
        if len(given) != 1:
            raise ApiError(
                400,
                "Send one of seconds, days, to (UTC seconds, or a date such as 2027-01-31T12:00:00Z) and to_utc (a date without a zone).",
            )
        try:
            if given == ["to"]:
                simulator.advance(_moment(sent) - clock.now())
            elif given == ["to_utc"]:
                simulator.advance(
                    datetime.fromisoformat(sent.need("to_utc")).replace(tzinfo=UTC).timestamp() - clock.now()
                )
            else:
                simulator.advance((sent.number(given[0]) or 0.0) * (_DAY if given == ["days"] else 1.0))
        except ValueError as error:
            raise ApiError(400, f"{error}.", param=given[0]) from error
        waited = {"settled": await simulator.webhooks.settled(LONGEST_WAIT_SECONDS)} if sent.flag("wait") else {}
        return answer(request, {**clock_json(), **waited})

    @router.post(
        "/webhooks",
        summary="Switch deliveries on or off (what happens while off is never delivered), and between snapshot and thin",
        openapi_extra=body(enabled=BOOLEAN, payload={"type": "string", "enum": list(PAYLOADS)}),
    )
    async def switch_webhooks(request: Request, sent: Sent) -> Response:
        enabled, payload = sent.flag("enabled"), sent.choice("payload", PAYLOADS)
        if enabled is None and payload is None:
            raise sent.required("enabled")
        webhooks = simulator.webhooks
        webhooks.enabled = webhooks.enabled if enabled is None else enabled
        webhooks.payload = webhooks.payload if payload is None else cast("Payload", payload)
        return answer(request, {"enabled": webhooks.enabled, "payload": webhooks.payload})

    @router.get("/deliveries", summary="Which event went where, and what came of it; newest first")
    async def deliveries(limit: int = 100) -> Json:
        shown = list(reversed(simulator.webhooks.records))[: max(0, limit)]
        return {
            "enabled": simulator.webhooks.enabled,
            "endpoints": [url for url, _ in simulator.webhooks.endpoints],
            "data": [
                {
                    "event": one.event,
                    "type": one.type,
                    "url": one.url,
                    "payload": "thin" if one.thin else "snapshot",
                    "state": one.state,
                    "attempts": [{"at": try_.at, "status": try_.status, "error": try_.error} for try_ in one.attempts],
                }
                for one in shown
            ],
        }

    @router.post("/settle", summary="Wait until no delivery is on its way", openapi_extra=body(timeout=NUMBER))
    async def settle(request: Request, sent: Sent) -> Response:
        given = sent.number("timeout")
        timeout = min(LONGEST_WAIT_SECONDS, max(0.0, 10.0 if given is None else given))
        return answer(request, {"settled": await simulator.webhooks.settled(timeout)})

    @router.post(
        "/customers/{identifier}/card",
        summary="Make the customer's card work, fail, or be gone; or let them pay by debits of a bank account, which take days",
        openapi_extra=body(works=BOOLEAN, card={"type": "string", "enum": list(CARDS)}),
    )
    async def card(request: Request, identifier: str, sent: Sent) -> Response:
        customer = world.store.get(world.store.customers, identifier)
        works, named = sent.flag("works"), sent.choice("card", CARDS)
        if (works is None) == (named is None):
            raise ApiError(400, f"Send works (true or false) or card ({', '.join(CARDS)}).")
        customer.card = cast("Card", named) if named is not None else ("works" if works else "fails")
        return answer(request, {"customer": customer.id, "card": customer.card}, sent)

    @router.post(
        "/subscriptions/{identifier}/auto_renew",
        summary="Renew at the period's end, or end there",
        openapi_extra=body(enabled=BOOLEAN),
    )
    async def auto_renew(request: Request, identifier: str, sent: Sent) -> Response:
        subscription = world.store.get(world.store.subscriptions, identifier)
        enabled = sent.flag("enabled")
        if enabled is None:
            raise sent.required("enabled")
        if subscription.ended:
            raise ApiError(400, f"The subscription {identifier} is {subscription.status}; it can't be changed.")
        end = None if enabled else min(item.period_end for item in subscription.items)
        world.billing.plan_end(subscription, end, at_period_end=not enabled)
        return answer(request, world.journal.render(subscription), sent)

    @router.post(
        "/settings",
        summary="What the Stripe Dashboard would hold: retries, and what follows the last one",
        openapi_extra=body(
            after_final_failure={"type": "string", "enum": list(FINAL)},
            retry_days={"type": "array", "items": NUMBER},
            draft_seconds=NUMBER,
        ),
    )
    async def settings(request: Request, sent: Sent) -> Response:
        kept = world.billing.settings
        final = sent.choice("after_final_failure", FINAL)
        draft = sent.whole("draft_seconds", least=0, most=72 * 3600)
        days = [day.strip() for text in sent.texts("retry_days") for day in text.split(",")]
        gaps = tuple(Params({"retry_days": day}).number("retry_days") or 0.0 for day in days)
        if len(gaps) > 20 or any(not 0 < gap <= 365 for gap in gaps):
            raise ApiError(
                400, "retry_days holds at most 20 numbers of days, each above 0 and at most 365.", param="retry_days"
            )
        kept.after_final_failure = cast("AfterFinalFailure", final) if final is not None else kept.after_final_failure
        kept.draft_seconds = kept.draft_seconds if draft is None else draft
        kept.retry_days = gaps if sent.has("retry_days") else kept.retry_days
        return answer(request, _settings_json(simulator))

    @router.post(
        "/faults",
        summary="Let the next calls or deliveries go wrong",
        openapi_extra=body(
            api={"type": "string", "enum": list(API_KINDS)},
            delivery={"type": "string", "enum": list(DELIVERY_KINDS)},
            count={"type": "integer"},
            seconds=NUMBER,
            customer=TEXT,
        ),
    )
    async def add_fault(request: Request, sent: Sent) -> Response:
        api, delivery = sent.choice("api", API_KINDS), sent.choice("delivery", DELIVERY_KINDS)
        if (api is None) == (delivery is None):
            raise ApiError(400, f"Send api ({', '.join(API_KINDS)}) or delivery ({', '.join(DELIVERY_KINDS)}).")
        count = sent.whole("count", least=1, most=1_000_000) or 1
        seconds = sent.number("seconds")
        if seconds is not None and not 0 <= seconds <= LONGEST_HANG_SECONDS:
            raise ApiError(400, f"seconds is from 0 to {LONGEST_HANG_SECONDS:.0f}.", param="seconds")
        if api is not None:
            fault = ApiFault(cast("ApiKind", api), count, 60.0 if seconds is None else seconds, sent.text("customer"))
            world.faults.api.append(fault)
        else:
            late = DeliveryFault(cast("DeliveryKind", delivery), count, 5.0 if seconds is None else seconds)
            world.faults.delivery.append(late)
        return answer(request, _faults_json(simulator))

    @router.get("/faults", summary="The faults that wait for their call or event")
    async def read_faults() -> Json:
        return _faults_json(simulator)

    @router.delete("/faults", summary="Let everything work again")
    @router.post("/faults/clear", summary="The same, for a button on a page", openapi_extra=body())
    async def clear_faults(request: Request) -> Response:
        world.faults.clear()
        simulator.webhooks.release()
        return answer(request, _faults_json(simulator))

    return router


def _moment(sent: Params) -> float:
    text = sent.need("to")
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("to needs a time zone, such as 2027-01-31T12:00:00Z") from None
        return moment.timestamp()


def _settings_json(simulator: Simulator) -> Json:
    kept = simulator.world.billing.settings
    return {
        "after_final_failure": kept.after_final_failure,
        "retry_days": list(kept.retry_days),
        "draft_seconds": kept.draft_seconds,
    }


def _faults_json(simulator: Simulator) -> Json:
    faults = simulator.world.faults
    return {
        "api": [
            {"api": one.kind, "count": one.left, "seconds": one.seconds, "customer": one.customer} for one in faults.api
        ],
        "delivery": [{"delivery": one.kind, "count": one.left, "seconds": one.seconds} for one in faults.delivery],
    }
