"""A person in a real browser: from the page of a 402 to Checkout, and back to the gateway's return page.

It needs Chromium on PATH, of any distribution; nothing is downloaded.
"""

from __future__ import annotations

import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.stack import Stack, bearer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if chromium is None:
        pytest.skip("there is no Chromium on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test for whatever its console complains of: a style that the policy blocks, for one."""
    context = browser.new_context(locale="en-US", viewport={"width": 1000, "height": 700})
    page = context.new_page()
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    # A browser reports each answer of 4xx, and the icon that it asks for by itself.
    assert [one for one in complaints if "Failed to load resource" not in one] == []


def _meet_402(page: Any, stack: Stack, customer: str, path: str = "/pro/x") -> None:
    # The token goes with this one request; what follows is a browser without one.
    page.route(
        f"{stack.gateway.base}{path}",
        lambda route: route.continue_(headers={**route.request.headers, **bearer(customer)}),
    )
    answer = page.goto(f"{stack.gateway.base}{path}")
    assert answer is not None
    assert answer.status == 402


def test_a_person_goes_from_the_402_to_checkout_and_comes_back_with_the_tier(page: Any, stack: Stack) -> None:
    _meet_402(page, stack, "browser-1")
    assert page.inner_text("h1") == "Payment required"
    assert page.inner_text("p >> nth=0") == "GET /pro/x needs tier 'pro'; you are on 'free'."
    page.click("text=Continue to payment")

    assert "/_gateway/pay/" in page.url
    assert page.inner_text("h1") == "Upgrade to pro"
    assert "browser-1" in page.inner_text("main")
    page.locator("button").first.click()

    page.wait_for_url(f"{stack.stripe.base}/c/pay/**")
    page.click("text=Decline card")
    assert "declined" in page.inner_text("[role=alert]")
    page.click("button:text-is('Pay')")

    page.wait_for_url(f"{stack.gateway.base}/_gateway/return**")
    assert page.inner_text("h1") == "You now have pro"
    assert stack.gateway.status("/pro/x", "browser-1") == 200
    page.reload()
    assert page.inner_text("h1") == "You now have pro"


def test_a_person_who_pays_for_less_confirms_the_change_in_the_portal(page: Any, stack: Stack) -> None:
    stack.subscribe("browser-2")
    _meet_402(page, stack, "browser-2", "/ent/x")
    page.click("text=Continue to payment")
    assert page.inner_text("h1") == "Upgrade to enterprise"
    page.locator("button").first.click()
    page.wait_for_url(f"{stack.stripe.base}/p/session/**")
    page.click("button:text-is('Confirm')")
    page.wait_for_url(f"{stack.gateway.base}/_gateway/return**")
    stack.gateway.until("/ent/x", "browser-2", 200)


def test_the_pages_fit_a_telephone_and_are_readable_by_their_roles(page: Any, stack: Stack) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    link = stack.refusal("browser-3")["pay_url"]
    for address in (
        link,
        f"{stack.gateway.base}/_gateway/problems/tier_required",
        f"{stack.gateway.base}/_gateway/return",
    ):
        page.goto(address)
        assert page.get_attribute("html", "lang") == "en"
        assert page.get_by_role("heading", level=1).count() == 1
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{address[-30:]} is {overflow} px wider than the screen"
    page.goto(link)
    buttons = page.get_by_role("button", name="Continue to payment").all()
    # Each button says by itself what it buys.
    assert len({button.get_attribute("aria-label") for button in buttons}) == len(buttons) == 2


def test_a_link_is_not_given_away_by_the_page_that_it_opens(page: Any, stack: Stack) -> None:
    referers: list[str | None] = []
    page.on("request", lambda request: referers.append(request.headers.get("referer")))
    page.goto(stack.refusal("browser-4")["pay_url"])
    page.locator("button").first.click()
    page.wait_for_url(f"{stack.stripe.base}/c/pay/**")
    assert [one for one in referers if one and "/_gateway/pay/" in one] == []


def test_billing_is_rehearsed_from_the_simulators_pages_alone(page: Any, stack: Stack) -> None:
    page.goto(stack.checkout_of("browser-rehearsal"))
    page.get_by_role("button", name="Pay", exact=True).click()
    stack.gateway.until("/pro/x", "browser-rehearsal", 200)
    [owner] = stack.stripe.customers_of("browser-rehearsal")
    page.goto(f"{stack.stripe.base}/")
    with page.expect_navigation():
        page.locator(f'a[href="/customers/{owner["id"]}"]').click()
    page.get_by_label("Pays with a card that").select_option("fails")
    page.get_by_role("button", name="Set card").click()
    page.get_by_label("seats").fill("4")
    page.get_by_role("button", name="Set seats").click()
    page.get_by_role("heading", level=2).filter(has_text=re.compile(r"Pro . 4: active")).wait_for()
    page.get_by_role("button", name="Refund all").first.click()
    page.get_by_text("succeeded, refunded").wait_for()
    page.get_by_role("button", name="Open the billing portal").click()
    page.get_by_role("button", name="Cancel at period end").click()
    page.get_by_role("link", name="Return").click()
    page.get_by_role("button", name="Renew automatically").wait_for()
    page.get_by_role("button", name="Cancel now").click()
    stack.gateway.until("/pro/x", "browser-rehearsal", 402)
    page.get_by_role("link", name="All customers").click()
    now = stack.stripe.http.get(f"{stack.stripe.base}/_sim/clock").json()["now"]
    page.get_by_label("to (UTC)").fill(time.strftime("%Y-%m-%dT%H:%M", time.gmtime(now + 7200)))
    page.get_by_role("button", name="Advance to then").click()
    assert stack.stripe.http.get(f"{stack.stripe.base}/_sim/clock").json()["now"] >= now + 7100
