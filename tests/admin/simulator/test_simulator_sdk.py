"""Every endpoint of the simulator, by Stripe's own SDK, blocking and asynchronous; and the answers in older versions."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import stripe
from starlette.routing import compile_path

from admin.simulator.app import ENDPOINTS
from tests.support.simulator import Receiver, Running, running_simulator
from tests.support.stripe_types import disagreements


class Recording(stripe.HTTPXClient):
    """The SDK's own client, which keeps what it asked for."""

    def __init__(self) -> None:
        super().__init__(allow_sync_methods=True)
        self.asked: set[tuple[str, str]] = set()
        self.answers: list[Any] = []
        assert self._client is not None
        self._client.event_hooks["response"].append(self._keep)

    def _keep(self, response: httpx.Response) -> None:
        self.answers.append(json.loads(response.read()))

    def _get_request_args_kwargs(self, method: str, url: str, headers: Mapping[str, str], post_data: Any) -> Any:
        self.asked.add((method.upper(), urlsplit(url).path))
        return super()._get_request_args_kwargs(method, url, headers, post_data)


class Sdk:
    """One way to call the same method of the SDK: blocking, or asynchronous."""

    def __init__(self, sim: Running, *, is_async: bool) -> None:
        self.http = Recording()
        self.client = sim.stripe(http_client=self.http)
        self.sim, self.suffix = sim, "_async" if is_async else ""

    async def __call__(self, method: str, *arguments: Any) -> Any:
        answer = attrgetter(method + self.suffix)(self.client)(*arguments)
        return await answer if inspect.isawaitable(answer) else answer


async def everything(do: Sdk) -> None:
    """A life that asks every endpoint at least once."""
    sim, v1 = do.sim, "v1."
    await do(v1 + "accounts.retrieve_current")
    product = await do(v1 + "products.create", {"name": "Storage"})
    await do(v1 + "products.update", product.id, {"description": "By the gigabyte"})
    await do(v1 + "products.retrieve", product.id)
    recurring = {"interval": "month"}
    price = await do(
        v1 + "prices.create",
        {"product": product.id, "currency": "usd", "unit_amount": 500, "recurring": recurring},
    )
    await do(v1 + "prices.update", price.id, {"nickname": "small"})
    assert (await do(v1 + "prices.retrieve", price.id)).nickname == "small"
    assert price.id in [one.id for one in (await do(v1 + "prices.list", {"product": product.id})).data]
    assert (await do(v1 + "products.list", {"limit": 1})).has_more
    feature = await do(v1 + "entitlements.features.create", {"name": "Backups", "lookup_key": f"b-{product.id}"})
    await do(v1 + "entitlements.features.update", feature.id, {"name": "Backup"})
    assert (await do(v1 + "entitlements.features.retrieve", feature.id)).name == "Backup"
    await do(v1 + "entitlements.features.list")
    attached = await do(v1 + "products.features.create", product.id, {"entitlement_feature": feature.id})
    await do(v1 + "products.features.retrieve", product.id, attached.id)
    assert len((await do(v1 + "products.features.list", product.id)).data) == 1

    customer = await do(v1 + "customers.create", {"name": "Alice", "metadata": {"user": "alice"}})
    await do(v1 + "customers.update", customer.id, {"email": "alice@example.com"})
    assert (await do(v1 + "customers.retrieve", customer.id)).email == "alice@example.com"
    await do(v1 + "customers.list", {"email": "alice@example.com"})
    subscription = await do(v1 + "subscriptions.create", {"customer": customer.id, "items": [{"price": price.id}]})
    assert subscription.status == "active"
    await do(v1 + "subscriptions.update", subscription.id, {"metadata": {"a": "b"}})
    assert [one.id for one in (await do(v1 + "subscriptions.list", {"customer": customer.id})).data] == [
        subscription.id
    ]
    [item] = (await do(v1 + "subscription_items.list", {"subscription": subscription.id})).data
    await do(v1 + "subscription_items.retrieve", item.id)
    [entitlement] = (await do(v1 + "entitlements.active_entitlements.list", {"customer": customer.id})).data
    assert (await do(v1 + "entitlements.active_entitlements.retrieve", entitlement.id)).feature == feature.id
    await do(v1 + "products.features.delete", product.id, attached.id)

    invoice = await do(v1 + "invoices.retrieve", str(subscription.latest_invoice))
    assert [one.id for one in (await do(v1 + "invoices.list", {"customer": customer.id})).data] == [invoice.id]
    assert len((await do(v1 + "invoices.line_items.list", invoice.id)).data) == 1
    [payment] = (await do(v1 + "invoice_payments.list", {"invoice": invoice.id})).data
    await do(v1 + "invoice_payments.retrieve", payment.id)
    [charge] = (await do(v1 + "charges.list", {"payment_intent": payment.payment.payment_intent})).data
    refund = await do(v1 + "refunds.create", {"charge": charge.id, "amount": 100})
    await do(v1 + "refunds.retrieve", refund.id)
    await do(v1 + "refunds.list", {"charge": charge.id})
    assert (await do(v1 + "charges.retrieve", charge.id)).amount_refunded == 100
    dispute = sim.control("disputes", charge=charge.id)
    await do(v1 + "disputes.update", dispute["id"], {"metadata": {"a": "b"}})
    await do(v1 + "disputes.close", dispute["id"])
    assert (await do(v1 + "disputes.retrieve", dispute["id"])).status == "lost"
    await do(v1 + "disputes.list", {"charge": charge.id})

    await do(v1 + "subscriptions.pause", subscription.id)
    assert (await do(v1 + "subscriptions.retrieve", subscription.id)).status == "paused"
    await do(v1 + "subscriptions.resume", subscription.id)
    sent = {"collection_method": "send_invoice", "days_until_due": 30}
    for ending in ("pay", "void_invoice", "mark_uncollectible"):
        other = await do(
            v1 + "subscriptions.create", {"customer": customer.id, "items": [{"price": "price_ent"}], **sent}
        )
        await do(f"v1.invoices.{ending}", str(other.latest_invoice))
        await do(v1 + "subscriptions.cancel", other.id)
    sim.control("settings", draft_seconds=72 * 3600)
    sim.control("clock/advance", days=32)
    drafts = (await do(v1 + "invoices.list", {"subscription": subscription.id, "status": "draft"})).data
    for draft in drafts:
        await do(v1 + "invoices.finalize_invoice", draft.id)
    assert drafts

    opened = {
        "mode": "subscription",
        "line_items": [{"price": price.id, "quantity": 1}],
        "success_url": "http://a.test/",
    }
    session = await do(v1 + "checkout.sessions.create", opened)
    await do(v1 + "checkout.sessions.update", session.id, {"metadata": {"a": "b"}})
    await do(v1 + "checkout.sessions.line_items.list", session.id)
    await do(v1 + "checkout.sessions.expire", session.id)
    assert (await do(v1 + "checkout.sessions.retrieve", session.id)).status == "expired"
    await do(v1 + "checkout.sessions.list", {"status": "expired"})
    features = {"invoice_history": {"enabled": True}}
    configuration = await do(v1 + "billing_portal.configurations.create", {"features": features})
    await do(v1 + "billing_portal.configurations.update", configuration.id, {"name": "Ours"})
    assert (await do(v1 + "billing_portal.configurations.retrieve", configuration.id)).name == "Ours"
    await do(v1 + "billing_portal.configurations.list")
    await do(v1 + "billing_portal.sessions.create", {"customer": customer.id, "configuration": configuration.id})

    event = (await do(v1 + "events.list", {"limit": 1})).data[0]
    assert (await do(v1 + "events.retrieve", event.id)).type == event.type
    assert (await do("v2.core.events.retrieve", f"{event.id}_thin")).type == f"v1.{event.type}"

    now = int(sim.http.get(f"{sim.base}/_sim/clock").json()["now"])
    clock = await do(v1 + "test_helpers.test_clocks.create", {"frozen_time": now, "name": "ours"})
    hidden = await do(v1 + "customers.create", {"test_clock": clock.id})
    assert hidden.id not in [one.id for one in (await do(v1 + "customers.list", {"limit": 100})).data]
    assert [one.id for one in (await do(v1 + "customers.list", {"test_clock": clock.id})).data] == [hidden.id]
    advanced = await do(v1 + "test_helpers.test_clocks.advance", clock.id, {"frozen_time": now + 86400})
    assert (advanced.status, advanced.frozen_time) == ("ready", now + 86400)
    assert sim.http.get(f"{sim.base}/_sim/clock").json()["now"] >= now + 86400
    assert (await do(v1 + "test_helpers.test_clocks.retrieve", clock.id)).name == "ours"
    await do(v1 + "test_helpers.test_clocks.list")
    await do(v1 + "test_helpers.test_clocks.delete", clock.id)
    assert (await do(v1 + "customers.retrieve", hidden.id)).deleted
    await do(v1 + "customers.delete", customer.id)


@pytest.fixture(scope="module")
def sim() -> Iterator[Running]:
    with running_simulator(receiver=Receiver()) as running:
        yield running


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_every_endpoint_answers_stripes_own_sdk(sim: Running, is_async: bool) -> None:
    do = Sdk(sim, is_async=is_async)
    try:
        await everything(do)
    finally:
        await do.http.close_async()  # type: ignore[no-untyped-call]
        do.http.close()  # type: ignore[no-untyped-call]
    patterns = {(one.method, one.path): compile_path(one.path)[0] for one in ENDPOINTS}
    unasked = {
        place
        for place, pattern in patterns.items()
        if not any(method == place[0] and pattern.match(path) for method, path in do.http.asked)
    }
    assert unasked == set()
    sim.control("settle")
    told = {problem for one in (*do.http.answers, *sim.receiver.events) for problem in disagreements(one, "")}
    assert told == set(), "\n".join(sorted(told))
