"""The controls under /_sim and the front page, by JSON, by form, and by mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from admin.simulator import Simulator
from tests.support.simulator import Receiver, Running, running_simulator

TYPED = {
    "to_utc": datetime.now(UTC).replace(year=datetime.now(UTC).year + 9, day=1).strftime("%Y-%m-%dT%H:%M"),
    "lookup_key": "reports",
}
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """For tests that change nothing."""
    with running_simulator() as running:
        yield running


@pytest.fixture
def sim() -> Iterator[Running]:
    with running_simulator(receiver=Receiver()) as running:
        yield running


def subscription_of(sim: Running) -> Any:
    client = sim.stripe()
    customer = client.v1.customers.create({"name": "<b>Mallory</b>"})
    return client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": "price_ent"}]})


@pytest.mark.parametrize("as_form", [True, False])
def test_the_clock_moves_forward_by_seconds_days_or_to_a_moment(sim: Running, as_form: bool) -> None:
    def advance(**body: Any) -> float:
        sent: Any = {"data": body} if as_form else {"json": body}
        answer = sim.http.post(f"{sim.base}/_sim/clock/advance", **sent)
        assert answer.status_code == 200
        return float(answer.json()["offset"])

    assert advance(seconds=90) == 90
    assert advance(days=1.5) == 90 + 1.5 * 86400
    now = sim.http.get(f"{sim.base}/_sim/clock").json()["now"]
    advance(to=now + 1000)
    assert sim.http.get(f"{sim.base}/_sim/clock").json()["now"] == pytest.approx(now + 1000, abs=60)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"seconds": -1},
        {"seconds": "nan"},
        {"seconds": "1e999"},
        {"seconds": "soon"},
        {"days": 100000},
        {"days": 1, "seconds": 1},
        {"to": 5},
        {"to": "tomorrow"},
        {"to": "2027-01-31T12:00:00"},
        {"to": "9999-01-01T00:00:00Z"},
        {"to": "nan"},
        {"seconds": {"a": 1}},
    ],
)
def test_a_step_that_can_not_be_is_a_400_with_a_sentence_and_moves_nothing(
    shared: Running, body: dict[str, Any]
) -> None:
    answer = shared.http.post(f"{shared.base}/_sim/clock/advance", json=body)
    assert answer.status_code == 400
    assert len(answer.json()["error"]["message"]) > 10
    assert shared.http.get(f"{shared.base}/_sim/clock").json()["offset"] == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("webhooks", {}),
        ("webhooks", {"enabled": "perhaps"}),
        ("webhooks", {"payload": "obese"}),
        ("settings", {"after_final_failure": "party"}),
        ("settings", {"retry_days": [0]}),
        ("settings", {"retry_days": [1] * 21}),
        ("settings", {"draft_seconds": -1}),
        ("faults", {}),
        ("faults", {"api": "418"}),
        ("faults", {"api": "500", "delivery": "drop"}),
        ("faults", {"api": "500", "count": 0}),
        ("faults", {"api": "hang", "seconds": -1}),
    ],
)
def test_a_control_that_makes_no_sense_is_a_400(shared: Running, path: str, body: dict[str, Any]) -> None:
    assert shared.http.post(f"{shared.base}/_sim/{path}", json=body).status_code == 400


def test_controls_of_what_is_not_there_are_a_404(shared: Running) -> None:
    for path in ("customers/cus_nope/card", "subscriptions/sub_nope/auto_renew"):
        assert shared.http.post(f"{shared.base}/_sim/{path}", json={"works": True, "enabled": True}).status_code == 404


def test_automatic_renewal_is_switched_off_and_on(sim: Running) -> None:
    subscription = subscription_of(sim)
    off = sim.control(f"subscriptions/{subscription.id}/auto_renew", enabled=False)
    assert (off["cancel_at_period_end"], off["cancel_at"]) == (True, off["items"]["data"][0]["current_period_end"])
    on = sim.control(f"subscriptions/{subscription.id}/auto_renew", enabled=True)
    assert (on["cancel_at_period_end"], on["cancel_at"]) == (False, None)
    sim.stripe().v1.subscriptions.cancel(subscription.id)
    answer = sim.http.post(f"{sim.base}/_sim/subscriptions/{subscription.id}/auto_renew", json={"enabled": True})
    assert answer.status_code == 400


def test_every_button_of_the_front_page_works_and_leads_back_to_it(sim: Running) -> None:
    subscription_of(sim)
    page = sim.http.get(sim.base, headers=BROWSER).text
    assert "<script" not in page
    assert "&lt;b&gt;Mallory" in page or "Mallory" not in page
    forms = re.findall(r'<form method="post" action="([^"]+)">(.*?)</form>', page)
    assert len(forms) >= 7
    for action, inside in forms:
        fields = TYPED | dict(re.findall(r'<input type="(?:hidden|number)" name="([^"]+)" value="([^"]*)"', inside))
        fields |= dict(re.findall(r'<input name="([^"]+)" value="([^"]*)"', inside))
        fields |= dict(re.findall(r'<select name="([^"]+)"><option[^>]*>([^<]+)', inside))
        fields |= dict(re.findall(r'<select name="(card)"[^>]*>.*?<option value="(fails)"', inside))
        fields = {name: value for name, value in fields.items() if f'name="{name}"' in inside}
        answer = sim.http.post(sim.base + action, data=fields, headers=BROWSER)
        assert (answer.status_code, answer.headers.get("location")) == (303, "/"), f"{action} {fields} {answer.text}"
    after = sim.http.get(sim.base, headers=BROWSER)
    assert after.status_code == 200
    assert "Switch webhooks on" in after.text
    assert '<option value="fails" selected>' in after.text
    assert "<code>reports</code>" in after.text


def test_the_settings_of_the_front_page_are_kept_and_a_wrong_one_is_told_in_words(sim: Running) -> None:
    sent = {"after_final_failure": "unpaid", "retry_days": "1, 2.5", "draft_seconds": "60"}
    assert sim.http.post(f"{sim.base}/_sim/settings", data=sent, headers=BROWSER).status_code == 303
    page = sim.http.get(sim.base).text
    assert "<option selected>unpaid</option>" in page
    assert 'value="1, 2.5"' in page
    wrong = sim.http.post(f"{sim.base}/_sim/settings", data={"retry_days": "0"}, headers=BROWSER)
    assert (wrong.status_code, "retry_days holds" in wrong.text, "<html" in wrong.text) == (400, True, True)
    assert 'value="1, 2.5"' in sim.http.get(sim.base).text


def test_a_date_without_a_zone_is_utc_on_the_page(sim: Running) -> None:
    now = sim.http.get(f"{sim.base}/_sim/clock").json()["now"]
    wanted = datetime.fromtimestamp(now + 3 * 86400, UTC).replace(second=0, microsecond=0)
    typed = wanted.strftime("%Y-%m-%dT%H:%M")
    assert sim.http.post(f"{sim.base}/_sim/clock/advance", data={"to_utc": typed}, headers=BROWSER).status_code == 303
    assert 0 <= sim.http.get(f"{sim.base}/_sim/clock").json()["now"] - wanted.timestamp() < 60
    back = sim.http.post(f"{sim.base}/_sim/clock/advance", data={"to_utc": typed}, headers=BROWSER)
    assert (back.status_code, "never back" in back.text) == (400, True)


def test_every_button_of_a_customers_page_does_what_the_api_does(sim: Running) -> None:
    subscription = subscription_of(sim)
    place = f"/customers/{subscription.customer}"

    def press(label: str, **typed: str) -> str:
        page = sim.http.get(sim.base + place).text
        for action, inside in re.findall(r'<form method="post" action="([^"]+)">(.*?)</form>', page):
            if label in re.findall(r"<button[^>]*>([^<]*)</button>", inside):
                fields = dict(re.findall(r'<input type="(?:hidden|number)" name="([^"]+)" value="([^"]*)"', inside))
                pressed = sim.http.post(sim.base + action, data=fields | typed, headers=BROWSER)
                assert pressed.status_code == 303, pressed.text
                return str(pressed.headers["location"])
        raise AssertionError(f"there is no button {label!r}")

    def now() -> Any:
        return sim.stripe().v1.subscriptions.retrieve(subscription.id)

    assert press("Set seats", **{"items[0][quantity]": "7"}) == place
    assert now()["items"].data[0].quantity == 7
    press("Change plan", **{"items[0][price]": "price_pro_yearly"})
    assert now()["items"].data[0].price.id == "price_pro_yearly"
    press("Pause")
    assert now().status == "paused"
    press("Resume")
    assert now().status == "active"
    press("Stop collecting", **{"pause_collection[behavior]": "void"})
    assert now().pause_collection.behavior == "void"
    press("Collect invoices again")
    assert now().pause_collection is None
    press("Do not renew")
    assert now().cancel_at_period_end
    press("Renew automatically")
    assert press("Set card", card="fails") == place
    assert press("Open the billing portal").startswith(f"{sim.base}/p/session/bps_")
    press("Cancel now")
    assert now().status == "canceled"
    press("Delete this customer")
    assert sim.stripe().v1.customers.retrieve(str(subscription.customer)).deleted


def test_a_button_that_names_no_endpoint_or_a_wrong_value_is_refused_as_the_api_does(sim: Running) -> None:
    subscription = subscription_of(sim)
    for body, status in (
        ({"call": "GET /v1/moon"}, 404),
        ({"call": f"POST /v1/subscriptions/{subscription.id}", "cancel_at": "5"}, 400),
        ({"call": f"POST /v1/subscriptions/{subscription.id}/resume"}, 400),
        ({}, 400),
    ):
        assert sim.http.post(f"{sim.base}/_sim/merchant", json=body).status_code == status
    page = sim.http.post(f"{sim.base}/_sim/merchant", data={"call": "POST /v1/<b>"}, headers=BROWSER)
    assert (page.status_code, "<b>" in page.text) == (404, False)


def test_faults_are_made_and_ended_on_the_front_page(sim: Running) -> None:
    assert "Everything works." in sim.http.get(f"{sim.base}/").text
    for form in ({"api": "429", "count": "3"}, {"delivery": "reorder", "count": "1"}):
        answer = sim.http.post(f"{sim.base}/_sim/faults", data=form, headers=BROWSER)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    page = sim.http.get(f"{sim.base}/").text
    assert "The next 3 calls: <strong>429</strong>" in page
    assert "The next 1 events: <strong>reorder</strong>" in page
    assert sim.http.post(f"{sim.base}/_sim/faults/clear", headers=BROWSER).status_code == 303
    assert "Everything works." in sim.http.get(f"{sim.base}/").text


def test_every_control_stands_in_the_openapi_document_with_what_may_be_sent(shared: Running) -> None:
    paths = shared.http.get(f"{shared.base}/openapi.json").json()["paths"]
    assert set(paths) >= {
        "/_sim/clock",
        "/_sim/clock/advance",
        "/_sim/webhooks",
        "/_sim/deliveries",
        "/_sim/customers/{identifier}/card",
        "/_sim/subscriptions/{identifier}/auto_renew",
        "/_sim/settings",
        "/_sim/merchant",
        "/_sim/refunds",
        "/_sim/disputes",
        "/_sim/customers/{identifier}/portal",
        "/_sim/products/{identifier}/features",
        "/_sim/faults",
    }
    for path, methods in paths.items():
        if "post" in methods:
            content = methods["post"]["requestBody"]["content"]
            assert set(content) == {"application/json", "application/x-www-form-urlencoded"}, path


def test_pages_of_what_is_not_there_say_so(shared: Running) -> None:
    for path in ("c/pay/cs_nope", "i/in_nope", "p/session/bps_nope"):
        assert shared.http.get(f"{shared.base}/{path}").status_code == 404
        assert shared.http.post(f"{shared.base}/{path}").status_code in (404, 405)


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://127.0.0.1/", "http://"])
def test_an_address_that_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL"):
        Simulator(wall_clock=lambda: 0.0, public_base=url)
    with pytest.raises(ValueError, match="not a URL"):
        Simulator(wall_clock=lambda: 0.0, public_base="http://127.0.0.1:1", webhook=[(url, "whsec")])
