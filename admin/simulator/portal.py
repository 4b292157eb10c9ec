"""What the Billing portal lets a customer do: cancel, keep, change plan, replace the card.

It decides by the session's configuration, as Stripe does, and changes a plan only if the payment goes through. It must
never touch a subscription of another customer, and a session that was opened to confirm one change does nothing else
(https://docs.stripe.com/customer-management/portal-deep-links).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from admin.simulator.changes import apply_change, read_change, refuse_unpayable
from admin.simulator.wire import ApiError, Params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from admin.simulator.entities import PortalConfiguration, PortalSession, Subscription
    from admin.simulator.protocol import World


class Portal:
    """The actions behind the portal's buttons."""

    def __init__(self, world: World) -> None:
        self._world = world

    def view(self, identifier: str) -> Mapping[str, object]:
        """What the page shows."""
        store, (session, configuration) = self._world.store, self._opened(identifier)
        subscriptions = list(reversed(store.subscriptions_of(session.customer)))
        sellable = [price for product in configuration.products for price in product["prices"]]
        confirm = (session.flow or {}).get("subscription_update_confirm")
        return {
            "session": session,
            "configuration": configuration,
            "customer": store.customers[session.customer],
            "subscriptions": subscriptions,
            "invoices": [one for one in reversed(store.invoices.values()) if one.customer == session.customer],
            "sellable": sellable,
            "confirm": confirm,
            "target": store.subscriptions[confirm["subscription"]] if confirm else None,
            "whole": _is_whole(session),
        }

    def act(self, identifier: str, action: str, sent: Params) -> str:
        """Do what a button says, and return where it leads."""
        session, configuration = self._opened(identifier)
        if action in {"cancel", "resume", "update"} and not _is_whole(session):
            raise ApiError(400, "This page confirms one change and does nothing else.")
        match action:
            case "cancel":
                self._cancel(session, configuration, sent)
            case "resume":
                subscription = self._owned(session, sent.need("subscription"))
                self._world.billing.plan_end(subscription, None)
            case "update":
                self._change(session, configuration, sent.need("subscription"), [sent])
            case "confirm":
                self._confirm(session, configuration)
            case "card":
                self._replace_card(session, configuration, sent)
            case _:
                raise ApiError(404, f"The portal has no action '{action[:50]}'.")
        return self._after(session, action)

    def _opened(self, identifier: str) -> tuple[PortalSession, PortalConfiguration]:
        store = self._world.store
        session = store.get(store.portal_sessions, identifier)
        if store.customers[session.customer].deleted:
            raise ApiError(404, "This customer has been deleted.")
        return session, store.portal_configurations[session.configuration]

    def _owned(self, session: PortalSession, identifier: str) -> Subscription:
        found = self._world.store.subscriptions.get(identifier)
        if found is None or found.customer != session.customer:
            raise ApiError(404, "There is no such subscription here.")
        if found.ended:
            raise ApiError(400, f"This subscription is {found.status}; it can't be changed any more.")
        return found

    def _cancel(self, session: PortalSession, configuration: PortalConfiguration, sent: Params) -> None:
        feature, billing = configuration.features["subscription_cancel"], self._world.billing
        if not feature["enabled"]:
            raise ApiError(400, "This portal does not let you cancel.")
        subscription = self._owned(session, sent.need("subscription"))
        if feature["mode"] == "immediately":
            billing.cancel(subscription)
            return
        # In flexible billing mode a portal cancellation names the moment and leaves cancel_at_period_end false.
        end = min(item.period_end for item in subscription.items)
        billing.plan_end(subscription, end, at_period_end=subscription.billing_mode == "classic")

    def _confirm(self, session: PortalSession, configuration: PortalConfiguration) -> None:
        confirm = (session.flow or {}).get("subscription_update_confirm")
        if confirm is None:
            raise ApiError(400, "There is nothing to confirm here.")
        items = [Params({name: str(value) for name, value in item.items()}) for item in confirm["items"]]
        self._change(session, configuration, confirm["subscription"], items)

    def _change(
        self, session: PortalSession, configuration: PortalConfiguration, identifier: str, items: list[Params]
    ) -> None:
        feature, world = configuration.features["subscription_update"], self._world
        subscription = self._owned(session, identifier)
        sellable = {price for product in configuration.products for price in product["prices"]}
        if not feature["enabled"] or any(item.need("price") not in sellable for item in items):
            raise ApiError(400, "This portal does not offer that plan.")
        for item in items:
            item.need("id")
        change = read_change(world.billing, subscription, items)
        proration = feature["proration_behavior"]
        refuse_unpayable(world.billing, subscription, change, proration)
        with world.journal.changing("customer.subscription.updated", subscription):
            apply_change(world.billing, subscription, change, proration=proration, payment="error_if_incomplete")

    def _replace_card(self, session: PortalSession, configuration: PortalConfiguration, sent: Params) -> None:
        if not configuration.features["payment_method_update"]["enabled"]:
            raise ApiError(400, "This portal does not let you change your card.")
        customer = self._world.store.customers[session.customer]
        if (sent.choice("card", ("works", "fails")) or "works") == "fails":
            customer.card = "fails"
            return
        with self._world.journal.changing("customer.updated", customer):
            customer.card = "works"

    def _after(self, session: PortalSession, action: str) -> str:
        flow = session.flow or {}
        finished = {
            "subscription_update_confirm": "confirm",
            "payment_method_update": "card",
            "subscription_cancel": "cancel",
            "subscription_update": "update",
        }.get(str(flow.get("type")))
        redirect = flow.get("after_completion", {}).get("redirect") if finished == action else None
        return str(redirect["return_url"]) if redirect else f"/p/session/{quote(session.id)}"


def _is_whole(session: PortalSession) -> bool:
    """Whether all of the portal is here. A flow that leads away when it is done never shows the rest of it.

    Stripe's portal_homepage, the default, leads to the rest after the flow; here it stands beside it.
    """
    flow = session.flow or {}
    return not (flow.get("type") == "subscription_update_confirm" and flow.get("after_completion", {}).get("redirect"))
