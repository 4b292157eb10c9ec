"""The operator's JSON API: customers, grants, blocks and events, and a sentence for whatever is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.support.house import OPERATOR_TOKEN, house, token_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.house import House

AWKWARD = [
    "org/1",
    "a//b",
    "/lead",
    "trail/",
    "Zoë Müller",
    "顧客",
    "100%",
    "a%2Fb",
    "a?b=c",
    "a#b",
    "a b",
    "x" * 255,
    "'; --",
]


def path_of(customer: str) -> str:
    return quote(customer, safe="")


async def post(one: House, path: str, status: int = 200, **body: Any) -> str:
    """The sentence that comes back."""
    answer = await one.operate("POST", path, json=body)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    return detail


@pytest.mark.parametrize("slashes", ["escaped", "plain"])
async def test_any_customer_can_be_granted_shown_and_found(unpaid: House, slashes: str) -> None:
    for customer in AWKWARD:
        path = path_of(customer) if slashes == "escaped" else quote(customer, safe="/")
        assert f"{customer} has 'pro' without end." == await post(
            unpaid, f"/api/grant/{path}", tier="pro", reason="a test"
        )
        shown = await unpaid.operate("GET", f"/api/customers/{path}")
        assert (shown.status_code, shown.json()["customer"], shown.json()["tier"]) == (200, customer, "pro")
        found = await unpaid.operate("GET", "/api/customers", params={"search": customer})
        assert customer in [line["customer"] for line in found.json()]
        assert (await unpaid.until(200, "/pro/x", token_for(customer))).status_code == 200


async def test_a_customer_is_shown_with_everything_on_record(unpaid: House) -> None:
    await post(unpaid, "/api/grant/alice", tier="pro", until="30d", reason="a friend of the house", by="eve")
    await post(unpaid, "/api/block/alice", reason="too many requests", by="mallory")
    shown = (await unpaid.operate("GET", "/api/customers/alice")).json()
    assert (shown["blocked"], shown["blocked_by"]) == ("too many requests", "mallory")
    assert [(one["tier"], one["reason"], one["by"], one["revoked_at"]) for one in shown["grants"]] == [
        ("pro", "a friend of the house", "eve", None)
    ]
    assert shown["features"] == ["export"]
    assert shown["access_until"] == shown["grants"][0]["until"]
    assert shown["subscriptions"] == shown["links"] == shown["conflicts"] == shown["events"] == []
    line = (await unpaid.operate("GET", "/api/customers")).json()
    assert [(one["customer"], one["tier"], one["blocked"]) for one in line] == [("alice", "pro", "too many requests")]


async def test_a_paying_customer_is_shown_with_subscription_link_and_events(at: House) -> None:
    await at.buy("alice")
    shown = (await at.operate("GET", "/api/customers/alice")).json()
    assert [one["status"] for one in shown["subscriptions"]] == ["active"]
    assert (shown["tier"], shown["status"]) == ("pro", "active")
    assert [link["owner"] for link in shown["links"]] == ["alice"]
    stripe_customer = shown["links"][0]["stripe_customer"]
    by_stripe = (await at.operate("GET", "/api/customers", params={"search": stripe_customer})).json()
    assert [line["customer"] for line in by_stripe] == ["alice"]
    assert await post(at, "/api/sync/alice") == f"Fetched from Stripe: {stripe_customer}."
    assert await post(at, f"/api/sync/{stripe_customer}") == f"Fetched from Stripe: {stripe_customer}."
    events = (await at.operate("GET", "/api/events", params={"limit": 3})).json()
    assert 0 < len(events) <= 3
    event = next(one for one in events if one["status"] == "done")
    assert await post(at, f"/api/events/{event['id']}/replay") == "The event is pending again."


async def test_an_event_that_was_given_up_is_counted_until_it_is_replayed_and_not_longer(at: House) -> None:
    await at.buy("alice")
    assert await at.steer("settle") == {"settled": True}  # every event is told, and none of hers is touched below
    with contextlib.closing(sqlite3.connect(at.ledger)) as connection, connection:
        connection.execute(
            "INSERT INTO inbox (account, livemode, event_id, type, object_id, wire, created, received_at, status, error,"
            " next_attempt_at) SELECT account, livemode, 'evt_unlucky', 'invoice.paid', 'in_gone', 'thin', created,"
            " received_at, 'dead', 'no luck', 0 FROM inbox LIMIT 1"
        )
    assert 'admin_inbox_events{status="dead"} 1.0' in await at.metrics()
    assert await post(at, "/api/events/evt_unlucky/replay") == "The event is pending again."
    assert 'admin_inbox_events{status="dead"} 0.0' in await at.metrics(), "else the alert would never end"


async def test_an_id_that_stripe_does_not_know_is_told_and_leaves_nothing(at: House) -> None:
    told = await post(at, "/api/sync/cus_aSlip", status=422)
    assert told == "Stripe has no customer cus_aSlip in this account and mode."
    found = await at.operate("GET", "/api/customers", params={"search": "cus_aSlip"})
    assert found.json() == []
    with contextlib.closing(sqlite3.connect(at.ledger)) as connection:
        assert connection.execute("SELECT * FROM stripe_customers WHERE id = 'cus_aSlip'").fetchall() == []


async def test_the_list_goes_on_after_the_last_of_the_page_before(unpaid: House) -> None:
    for number in range(5):
        await post(unpaid, f"/api/grant/c{number}", tier="pro", reason="a test")
    seen: list[str] = []
    after = ""
    while page := (await unpaid.operate("GET", "/api/customers", params={"limit": 2, "after": after})).json():
        seen += [line["customer"] for line in page]
        after = seen[-1]
    assert seen == [f"c{number}" for number in range(5)]


async def test_what_is_not_there_is_a_404_with_a_sentence(unpaid: House) -> None:
    assert (await unpaid.operate("GET", "/api/customers/new%0Aline")).status_code == 404
    for customer in ("nobody", "org/none", "a\x00b", "x" * 300):
        answer = await unpaid.operate("GET", f"/api/customers/{path_of(customer)}")
        assert answer.status_code == 404, customer
        assert answer.json()["detail"].startswith("There is nothing on record about '")
    for event in ("evt_none", "a%00b", "%C3%A9"):
        assert await post(unpaid, f"/api/events/{event}/replay", 404) == "There is no such event."
    for path in ("/api", "/api/nothing", "/api/customer/alice"):
        assert (await unpaid.operate("GET", path)).status_code == 404


async def test_what_is_wrong_is_a_422_with_a_sentence_and_does_nothing(unpaid: House) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("/api/grant/alice", {"tier": "platinum", "reason": "x"}, "'platinum' is not a tier of gateway.yaml"),
        ("/api/grant/alice", {"tier": "pro", "reason": " "}, "A reason is needed"),
        ("/api/grant/alice", {"tier": "pro", "reason": "x" * 501}, "must be one printable line"),
        ("/api/grant/alice", {"tier": "pro", "reason": "a\nb"}, "must be one printable line"),
        ("/api/grant/alice", {"tier": "pro", "reason": "\ud800"}, ""),
        ("/api/grant/alice", {"tier": "\ud800", "reason": "x"}, ""),
        ("/api/grant/alice", {"tier": "pro", "reason": "x", "until": "soon"}, "neither a duration"),
        ("/api/grant/alice", {"tier": "pro", "reason": "x", "until": "\ud800"}, ""),
        ("/api/grant/alice", {"tier": "pro", "reason": "x", "until": "2001-01-01"}, "has passed already"),
        ("/api/grant/alice", {"tier": "pro", "reason": "x", "until": "0s"}, "has passed already"),
        ("/api/grant/alice", {"tier": "pro", "reason": "x", "until": "99999999d"}, "at most ten years"),
        (
            "/api/grant/alice",
            {"tier": "pro", "reason": "x", "until": "9999-12-31T23:59:59-23:59"},
            "beyond the year 9999",
        ),
        ("/api/grant/alice", {"tier": "pro"}, "body.reason"),
        ("/api/grant/alice", {"tier": 7, "reason": "x"}, "body.tier"),
        ("/api/grant/alice", {"tier": "pro", "reason": "x", "forever": True}, "body.forever"),
        ("/api/grant/alice", {"tier": "pro", "reason": "x", "by": ""}, "who does it"),
        ("/api/grant/", {"tier": "pro", "reason": "x"}, "is empty"),
        ("/api/grant/a%00b", {"tier": "pro", "reason": "x"}, "can't be printed"),
        (f"/api/grant/{'x' * 256}", {"tier": "pro", "reason": "x"}, "longer than 255"),
        ("/api/revoke/alice", {"reason": "x"}, "alice has no running grant."),
        ("/api/revoke/alice", {"reason": "x", "tier": "\ud800"}, "no name of a tier"),
        ("/api/revoke/alice", {"reason": "x", "tier": "pro"}, "no running grant of 'pro'"),
        ("/api/block/a%00b", {"reason": "x"}, "can't be printed"),
        ("/api/block/alice", {}, "body.reason"),
        ("/api/unblock/a%00b", {}, "can't be printed"),
        ("/api/sync/a%00b", {}, "can't be printed"),
        ("/api/sync/alice", {}, "no Stripe key"),
    ]
    for path, body, sentence in wrong:
        content = json.dumps(body).encode()  # which spells half a surrogate pair as an escape
        answer = await unpaid.operate("POST", path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, (path, body, answer.text)
        assert sentence in answer.json()["detail"], (path, body, answer.text)
    for broken in (b"", b"{", b"[]", b"\xff", b"null", b"[" * 50000):
        answer = await unpaid.operate(
            "POST", "/api/grant/alice", content=broken, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in {400, 422}, broken[:10]
    form = await unpaid.operate("POST", "/api/grant/alice", content=b'{"tier": "pro"}')  # as curl -d sends it
    assert (form.status_code, "'Content-Type: application/json'" in form.json()["detail"]) == (422, True)
    for query in ("limit=0", "limit=501", "limit=x", "search=%00", "after=%00", f"search={'x' * 256}"):
        assert (await unpaid.operate("GET", f"/api/customers?{query}")).status_code == 422, query
    for query in ("status=odd", "before=0", "before=99999999999999999999", "limit=-1"):
        assert (await unpaid.operate("GET", f"/api/events?{query}")).status_code == 422, query
    grants = (await unpaid.operate("GET", "/api/customers/alice")).json().get("grants", [])
    assert [one for one in grants if one["revoked_at"] is None] == []


async def test_a_grant_and_its_end_are_in_force_within_a_second(unpaid: House) -> None:
    assert (await unpaid.get("/pro/x", token_for())).status_code == 402
    granted = await post(unpaid, "/api/grant/alice", tier="pro", until="30d", reason="a test")
    assert granted.startswith("alice has 'pro' until 20")
    await asyncio.wait_for(unpaid.until(200, "/pro/x", token_for()), 1)
    assert await post(unpaid, "/api/revoke/alice", reason="a test") == "1 grant of alice ended."
    await asyncio.wait_for(unpaid.until(402, "/pro/x", token_for()), 1)
    assert await post(unpaid, "/api/block/alice", reason="a test") == "alice is blocked."
    await asyncio.wait_for(unpaid.until(403, "/pro/x", token_for()), 1)
    assert await post(unpaid, "/api/unblock/alice") == "alice is no longer blocked."
    await asyncio.wait_for(unpaid.until(402, "/pro/x", token_for()), 1)


async def test_a_grant_ends_by_itself_at_its_time(unpaid: House) -> None:
    await post(unpaid, "/api/grant/alice", tier="pro", until="1h", reason="a test")
    await unpaid.until(200, "/pro/x", token_for())
    unpaid.clock.offset = 3601
    assert (await unpaid.get("/pro/x", token_for())).status_code == 402


async def test_revoking_says_what_a_subscription_still_admits(at: House) -> None:
    await at.buy("alice")
    await post(at, "/api/grant/alice", tier="enterprise", reason="a test")
    await at.until(200, "/ent", token_for())
    said = await post(at, "/api/revoke/alice", reason="a test")
    assert said.startswith("1 grant of alice ended. They still have 'pro' until 20")
    await at.until(402, "/ent", token_for())
    assert (await at.get("/pro/x", token_for())).status_code == 200


@contextlib.contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    other = sqlite3.connect(ledger, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


async def test_a_ledger_that_another_process_keeps_locked_is_503_and_reads_go_on(unpaid: House) -> None:
    with locked(unpaid.ledger):
        writes = asyncio.gather(
            *(
                unpaid.operate("POST", path, json={"tier": "pro", "reason": "x"})
                for path in ("/api/grant/alice", "/api/grant/bob")
            )
        )
        assert (await unpaid.get("/free", token_for())).status_code == 200
        assert (await unpaid.operate("GET", "/api/customers")).status_code == 200
        for answer in await writes:
            assert (answer.status_code, answer.json()["detail"]) == (503, "The ledger can't be reached right now.")
    assert (await unpaid.operate("GET", "/api/customers")).json() == []
    await post(unpaid, "/api/grant/alice", tier="pro", reason="a test")


async def test_the_api_has_no_door_of_its_own(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False) as one:
        for method, path in (
            ("POST", "/api/grant/alice"),
            ("POST", "/api/events/evt_1/replay"),
            ("GET", "/api/customers/a/b"),
        ):
            assert (await one.operate(method, path, token=None)).status_code == 401
            assert (await one.operate(method, path, token=OPERATOR_TOKEN[:-1])).status_code == 401
