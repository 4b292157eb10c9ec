"""What a merchant does in Stripe's Dashboard or by its API, for buttons on pages: the same calls, without a key.

It decides nothing: each button is an endpoint of `/v1`, read and refused as there. It must never do what the API doesn't.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.routing import compile_path

from admin.simulator.control import BOOLEAN, TEXT, Sent, answer, body
from admin.simulator.entities_features import Feature, ProductFeature
from admin.simulator.protocol import Call
from admin.simulator.wire import ApiError, Params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from admin.simulator.app import Simulator
    from admin.simulator.protocol import Endpoint
    from admin.simulator.wire import Json

OWN = ("call", "back")
"""What is not for the endpoint."""


def merchant_router(simulator: Simulator, endpoints: Sequence[Endpoint]) -> APIRouter:
    """Every control of `simulator` that stands for a call of Stripe's API."""
    router = APIRouter(prefix="/_sim", tags=["as the merchant"])
    world, store = simulator.world, simulator.world.store
    places = [(one, compile_path(one.path)[0]) for one in endpoints]

    def perform(call: str, params: Params) -> Json:
        method, _, path = call.partition(" ")
        for endpoint, pattern in places:
            match = pattern.fullmatch(path)
            if endpoint.method == method and match is not None:
                world.schedule.catch_up()
                done = endpoint.act(Call(world, params, match.groupdict()))
                world.schedule.catch_up()  # what that made due at this very second
                return done
        raise ApiError(404, f"The simulator has no {call[:200]!r}.", param="call")

    @router.post(
        "/merchant",
        summary="Do what a call of Stripe's API does: call='DELETE /v1/subscriptions/sub_1', and its parameters beside it",
        openapi_extra=body(call=TEXT),
    )
    async def merchant(request: Request, sent: Sent) -> Response:
        params = Params({name: value for name, value in sent.tree.items() if name not in OWN})
        return answer(request, perform(sent.need("call"), params), sent)

    @router.post(
        "/customers/{identifier}/portal",
        summary="Open the Billing portal as this customer",
        openapi_extra=body(configuration=TEXT),
    )
    async def portal(request: Request, identifier: str, sent: Sent) -> Response:
        place = f"{world.journal.public_base}/customers/{identifier}"
        wanted = {"customer": identifier, "return_url": place, "configuration": sent.text("configuration") or ""}
        session = perform("POST /v1/billing_portal/sessions", Params(dict(wanted)))
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(session["url"], status_code=303)
        return answer(request, session, sent)

    @router.post(
        "/products/{identifier}/features",
        summary="Let a product come with a feature, or no longer, by the feature's lookup key",
        openapi_extra=body(lookup_key=TEXT, attached=BOOLEAN),
    )
    async def feature(request: Request, identifier: str, sent: Sent) -> Response:
        product, key = store.get(store.products, identifier), sent.need("lookup_key")
        found = next((one for one in store.features.values() if one.lookup_key == key), None)
        if found is None:
            found = Feature(store.new_id("feat"), key, key, world.billing.now)
            store.features[found.id] = found
        before = [
            one for one in store.product_features.values() if (one.product, one.feature) == (product.id, found.id)
        ]
        if sent.flag("attached") is False:
            for one in before:
                del store.product_features[one.id]
        elif not before:
            made = ProductFeature(store.new_id("prodft"), product.id, found.id, world.billing.now)
            store.product_features[made.id] = made
        return answer(request, world.journal.render(found), sent)

    return router
