"""The manners of the API: keys, idempotency, paging, expansion, errors, and input that nobody sane sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import stripe

from tests.support.simulator import Running, running_simulator

KEY = {"Authorization": "Bearer sk_test_simulator"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """For tests that don't mind what others left in the books."""
    with running_simulator() as running:
        yield running


@pytest.fixture
def sim() -> Iterator[Running]:
    with running_simulator() as running:
        yield running


def test_a_wrong_or_missing_key_is_a_401_that_does_not_repeat_it(shared: Running) -> None:
    client = stripe.StripeClient("sk_test_very_secret_indeed", base_addresses={"api": shared.base})
    with pytest.raises(stripe.AuthenticationError) as caught:
        client.v1.customers.list()
    assert caught.value.http_status == 401
    assert "very_secret_indeed" not in str(caught.value)
    for authorization in (None, "Bearer", "Basic !!!", "Basic /w==", "Digest x", "nonsense"):
        headers = {"Authorization": authorization} if authorization is not None else {}
        assert shared.http.get(f"{shared.base}/v1/customers", headers=headers).status_code == 401
    assert shared.http.get(f"{shared.base}/v1/customers", auth=("sk_test_simulator", "")).status_code == 200


def test_the_account_is_a_random_one_and_stays_the_same(shared: Running) -> None:
    account = shared.stripe().v1.accounts.retrieve_current()
    assert account.id.startswith("acct_sim")
    assert shared.stripe().v1.accounts.retrieve_current().id == account.id
    with running_simulator() as other:
        assert other.stripe().v1.accounts.retrieve_current().id != account.id


def test_every_answer_has_a_request_id_and_the_version_that_was_asked_for(shared: Running) -> None:
    answer = shared.http.get(f"{shared.base}/v1/customers", headers={**KEY, "Stripe-Version": "2026-09-30.endive"})
    assert answer.headers["request-id"].startswith("req_")
    assert answer.headers["stripe-version"] == "2026-09-30.endive"
    assert shared.http.get(f"{shared.base}/v1/nothing", headers=KEY).headers["request-id"].startswith("req_")


def test_a_repeated_key_gets_the_first_answer_and_makes_one_object(sim: Running) -> None:
    headers = {**KEY, "Idempotency-Key": "alice-1"}
    first, second = (sim.http.post(f"{sim.base}/v1/customers", headers=headers, data={"name": "A"}) for _ in "12")
    assert (first.content, first.status_code) == (second.content, second.status_code)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    other = sim.http.post(f"{sim.base}/v1/customers", headers=headers, data={"name": "B"})
    assert (other.status_code, other.json()["error"]["type"]) == (400, "idempotency_error")
    elsewhere = sim.http.post(f"{sim.base}/v1/products", headers=headers, data={"name": "A"})
    assert elsewhere.status_code == 400
    assert len(sim.stripe().v1.customers.list().data) == 1
    events = sim.stripe().v1.events.list({"type": "customer.created"}).data
    assert [event.request.idempotency_key for event in events if event.request] == ["alice-1"]


def test_the_sdk_raises_idempotency_error_and_replays(sim: Running) -> None:
    client, options = sim.stripe(), {"idempotency_key": "k"}
    first = client.v1.customers.create({"name": "A"}, options)  # type: ignore[arg-type]
    assert client.v1.customers.create({"name": "A"}, options).id == first.id  # type: ignore[arg-type]
    with pytest.raises(stripe.IdempotencyError):
        client.v1.customers.create({"name": "B"}, options)  # type: ignore[arg-type]


def test_many_at_once_with_one_key_make_one_object(sim: Running) -> None:
    def create(_: int) -> str:
        headers = {**KEY, "Idempotency-Key": "same"}
        return str(sim.http.post(f"{sim.base}/v1/customers", headers=headers, data={"name": "A"}).json()["id"])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(create, range(24)))) == 1


def test_a_refused_parameter_does_not_use_up_its_key_and_a_day_forgets_it(sim: Running) -> None:
    headers = {**KEY, "Idempotency-Key": "k"}
    url = f"{sim.base}/v1/customers"
    assert sim.http.post(url, headers=headers, data={"email": "nonsense"}).status_code == 400
    first = sim.http.post(url, headers=headers, data={"email": "a@example.com"})
    assert first.status_code == 200
    sim.advance(days=2)
    assert sim.http.post(url, headers=headers, data={"email": "a@example.com"}).json()["id"] != first.json()["id"]


def test_paging_goes_through_everything_once_newest_first(sim: Running) -> None:
    client = sim.stripe()
    made = [client.v1.customers.create({"name": str(number)}).id for number in range(23)]
    assert [one.id for one in client.v1.customers.list({"limit": 5}).auto_paging_iter()] == made[::-1]
    first = client.v1.customers.list()
    assert (len(first.data), first.has_more, first.url) == (10, True, "/v1/customers")
    back = client.v1.customers.list({"ending_before": made[0], "limit": 2})
    assert ([one.id for one in back.data], back.has_more) == ([made[2], made[1]], True)
    for wrong in ({"limit": 0}, {"limit": 101}, {"starting_after": "cus_nope"}):
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.customers.list(wrong)  # type: ignore[arg-type]


def test_an_object_that_leaves_the_filter_between_two_pages_hides_no_other(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create().id
    subs = client.v1.subscriptions
    made = [subs.create({"customer": customer, "items": [{"price": "price_ent"}]}).id for _ in range(6)]
    first = subs.list({"customer": customer, "limit": 3})
    subs.cancel(first.data[-1].id)
    rest = subs.list({"customer": customer, "limit": 3, "starting_after": first.data[-1].id})
    assert [one.id for one in [*first.data, *rest.data]] == made[::-1]


def test_subscriptions_are_listed_by_status_and_canceled_ones_only_where_asked_for(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create().id
    kept, gone = (
        client.v1.subscriptions.create({"customer": customer, "items": [{"price": "price_ent"}]}).id for _ in "12"
    )
    client.v1.subscriptions.cancel(gone)

    def ids(**more: Any) -> list[str]:
        params: Any = {"customer": customer, **more}
        return [one.id for one in client.v1.subscriptions.list(params).data]

    assert ids() == [kept]
    assert ids(status="all") == [gone, kept]
    assert ids(status="canceled") == ids(status="ended") == [gone]
    assert ids(status="active", price="price_ent") == [kept]
    assert ids(price="price_pro_monthly") == []
    with pytest.raises(stripe.InvalidRequestError):
        ids(status="nonsense")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.subscriptions.list({"customer": "cus_nope"})
    assert caught.value.code == "resource_missing"


def test_expansion_reaches_into_lists_and_ignores_what_it_does_not_know(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create().id
    client.v1.subscriptions.create({"customer": customer, "items": [{"price": "price_ent"}]})
    paths = [
        "data.items.data.price.product",
        "data.latest_invoice",
        "data.customer",
        "data.nope.never",
        "data..",
        "data.items.data",
    ]
    found = client.v1.subscriptions.list({"expand": paths}).data[0]
    assert found["items"].data[0].price.product.name == "Enterprise"
    assert (found.latest_invoice.object, found.customer.object) == ("invoice", "customer")  # type: ignore[union-attr]
    prices = client.v1.prices.list({"lookup_keys": ["pro_monthly"], "expand": ["data.product"]}).data
    assert [(one.id, one.product.name) for one in prices] == [("price_pro_monthly", "Pro")]  # type: ignore[union-attr]


def test_the_catalogue_is_made_filtered_and_its_lookup_keys_move_when_asked_to(sim: Running) -> None:
    client = sim.stripe()
    product = client.v1.products.create(
        {
            "name": "Team",
            "default_price_data": {"currency": "eur", "unit_amount": 500, "recurring": {"interval": "week"}},
        }
    )
    default = client.v1.prices.retrieve(str(product.default_price))
    assert (default.unit_amount, default.currency, default.product) == (500, "eur", product.id)
    new: Any = {
        "product": "prod_pro",
        "currency": "usd",
        "unit_amount": 3900,
        "recurring": {"interval": "month"},
        "lookup_key": "pro_monthly",
    }
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        client.v1.prices.create(new)
    moved = client.v1.prices.create(new | {"transfer_lookup_key": True})
    assert [one.id for one in client.v1.prices.list({"lookup_keys": ["pro_monthly"]}).data] == [moved.id]
    assert client.v1.prices.retrieve("price_pro_monthly").lookup_key is None
    client.v1.prices.update(moved.id, {"active": False})
    assert moved.id not in [one.id for one in client.v1.prices.list({"active": True, "product": "prod_pro"}).data]
    client.v1.products.update("prod_pro", {"name": "Pro+", "default_price": "price_pro_yearly"})
    assert client.v1.products.retrieve("prod_pro").default_price == "price_pro_yearly"
    kinds = [event.type for event in client.v1.events.list().data]
    assert {"price.created", "price.updated", "product.created", "product.updated"} <= set(kinds)


def test_events_are_newest_first_filtered_and_readable_for_thirty_days(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create({"name": "A"})
    client.v1.customers.update(customer.id, {"name": "B"})
    events = client.v1.events.list().data
    assert [event.type for event in events] == ["customer.updated", "customer.created"]
    assert events[0].data.previous_attributes is not None
    assert events[0].data.previous_attributes.to_dict() == {"name": "A"}
    assert events[0].data.object["name"] == "B"
    assert events[1].data.object["name"] == "A", "an event keeps the object as it was"
    assert client.v1.events.retrieve(events[0].id).type == "customer.updated"
    assert [one.type for one in client.v1.events.list({"types": ["customer.created"]}).data] == ["customer.created"]
    later = {"created": {"gte": events[0].created + 5}}
    assert client.v1.events.list(later).data == []  # type: ignore[arg-type]
    sim.advance(days=31)
    assert client.v1.events.list().data == []


def test_saying_the_same_again_is_no_event(sim: Running) -> None:
    client = sim.stripe()
    customer = client.v1.customers.create({"name": "A"})
    client.v1.customers.update(customer.id, {"name": "A"})
    assert [event.type for event in client.v1.events.list().data] == ["customer.created"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/customers/cus_nope", 404, "resource_missing"),
        ("GET", "/v1/subscriptions/%00", 404, "resource_missing"),
        ("GET", "/v1/prices/" + "x" * 3000, 404, "resource_missing"),
        ("POST", "/v1/subscriptions", 400, "parameter_missing"),
        ("GET", "/v1/payouts", 404, None),
        ("DELETE", "/v1/products/prod_pro", 404, None),
        ("GET", "/v1/customers?created[sideways]=1", 400, "parameter_unknown"),
        ("GET", "/v1/customers?limit=ten", 400, "parameter_invalid_integer"),
        ("GET", "/v1/customers?limit[a]=1", 400, None),
        ("GET", "/v1/customers?a=1&a[b]=2", 400, None),
        ("GET", "/v1/customers?a[b=2", 400, None),
        ("GET", "/v1/customers?%5B%5D=2", 400, None),
        ("GET", "/v1/customers?email=%ff", 400, None),
        ("GET", "/v1/customers?" + "a" + "[b]" * 50 + "=1", 400, None),
        ("GET", "/v1/customers?created=99999999999999999999999999", 400, "parameter_invalid_integer"),
        ("GET", "/v1/prices?lookup_keys[x]=a", 400, None),
    ],
)
def test_what_is_wrong_is_answered_in_stripes_shape(
    shared: Running, method: str, path: str, status: int, code: str | None
) -> None:
    answer = shared.http.request(method, shared.base + path, headers=KEY)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.get("code") == code
    assert error["message"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[1]"),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"a":' * 20 + b"1" + b"}" * 20),
        ("application/json", b'{"name": "\\ud800"}'),
        ("application/json", b'{"\\ud800": 1}'),
        ("application/json", b"\xff\xfe"),
        ("application/x-www-form-urlencoded", b"\xff\xfe"),
        ("application/x-www-form-urlencoded", b"name=%ed%a0%80"),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % number for number in range(3000))),
        ("application/x-www-form-urlencoded", b"metadata[" + b"k" * 41 + b"]=1"),
        ("application/x-www-form-urlencoded", b"metadata[k]=" + b"v" * 501),
        ("application/x-www-form-urlencoded", b"metadata=text"),
        ("application/x-www-form-urlencoded", b"name[first]=text"),
        ("application/x-www-form-urlencoded", b"name=" + b"n" * 5001),
        ("text/plain", b"balance=1e400"),
    ],
)
def test_a_body_that_can_not_be_read_is_a_400_with_a_sentence(shared: Running, kind: str, body: bytes) -> None:
    answer = shared.http.post(f"{shared.base}/v1/customers", headers={**KEY, "Content-Type": kind}, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_body_beyond_a_mebibyte_is_a_413(shared: Running) -> None:
    answer = shared.http.post(f"{shared.base}/v1/customers", headers=KEY, content=b"name=" + b"n" * (2 << 20))
    assert answer.status_code == 413


def test_metadata_is_merged_and_cleared_as_stripe_does(sim: Running) -> None:
    url = f"{sim.base}/v1/customers"
    made = sim.http.post(url, headers=KEY, data={"metadata[a]": "1", "metadata[0]": "zero"}).json()
    assert made["metadata"] == {"a": "1", "0": "zero"}

    def update(data: dict[str, str]) -> Any:
        return sim.http.post(f"{url}/{made['id']}", headers=KEY, data=data).json()["metadata"]

    assert update({"metadata[b]": "2", "metadata[a]": ""}) == {"0": "zero", "b": "2"}
    assert update({"metadata": ""}) == {}


def test_json_bodies_are_read_like_forms(sim: Running) -> None:
    body = {"email": "a@example.com", "metadata": {"n": 1, "yes": True}, "name": None, "balance": -500}
    made = sim.http.post(f"{sim.base}/v1/customers", headers=KEY, json=body).json()
    assert (made["email"], made["name"], made["balance"]) == ("a@example.com", None, -500)
    assert made["metadata"] == {"n": "1", "yes": "true"}
    assert json.dumps(made)
