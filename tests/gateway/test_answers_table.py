"""The gateway's own answers, built from nothing but a reason: one shape, whatever the words in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answers import Answer, Answers, Asked, prefers_html, raw_refusal
from policies.entitlement import Standing
from policies.offers import Offer, Payment
from policies.reason_pages import PAGES
from policies.reasons import ANSWERS, Reason
from policies.requirement import Access, Requirement
from policies.signed import Claim, Purpose, verify

# docs/design.md, section 4, word for word: what stands there is what there is.
TABLE = {
    400: {"bad_path", "bad_request"},
    408: {"request_timeout"},
    413: {"body_too_large"},
    414: {"uri_too_long"},
    431: {"headers_too_large"},
    401: {"token_missing", "token_invalid", "token_expired"},
    402: {
        "subscription_required", "tier_required", "subscription_expired", "payment_failed", "subscription_paused",
        "quota_exhausted",
    },
    403: {"scope_missing", "forbidden", "blocked"},
    409: {"already_subscribed"},
    404: {"no_route"},
    405: {"method_not_allowed"},
    429: {"rate_limited"},
    502: {"upstream_unreachable", "upstream_protocol_error"},
    503: {"entitlement_unavailable", "keys_unavailable", "overloaded", "billing_unavailable", "billing_not_configured"},
    504: {"upstream_timeout"},
}  # fmt: skip
KEY = b"a-signing-key"
NOW = 1_800_000_000.0
ASKED = Asked("GET", "/x", "r1")


def answers(**changes: Any) -> Answers:
    settings: dict[str, Any] = {
        "public_url": "https://api.example.com/", "signing_key": KEY, "pay_link_ttl": 3600.0, "cors_origins": (),
        "cors_credentials": False, "wall": lambda: NOW,
        "offers": lambda tier: (Offer(tier, "price_1", 2900, "usd", "month"),),
    }  # fmt: skip
    return Answers(**{**settings, **changes})


def fields(answer: Answer) -> dict[str, str]:
    names = [name for name, _ in answer.headers]
    assert len(names) == len(set(names)), "no header stands twice"
    return {name.decode(): value.decode("latin-1") for name, value in answer.headers}


def test_the_reasons_are_those_of_the_design_with_their_status() -> None:
    assert {reason.value: known.status for reason, known in ANSWERS.items()} == {
        reason: status for status, reasons in TABLE.items() for reason in reasons
    }
    assert set(ANSWERS) == set(PAGES) == set(Reason)


def test_a_reason_that_is_not_in_the_table_has_no_answer() -> None:
    with pytest.raises(KeyError):
        answers().refuse("made_up", "x", ASKED)  # type: ignore[arg-type]


def test_every_503_says_when_to_come_again() -> None:
    for reason, known in ANSWERS.items():
        sent = fields(answers().refuse(reason, "x", ASKED))
        assert ("retry-after" in sent) == (known.status == 503), reason


@given(
    reason=st.sampled_from(list(Reason)), detail=st.text(st.characters(exclude_categories=["Cs"])), html=st.booleans()
)
def test_any_detail_makes_an_answer_that_can_be_sent(reason: Reason, detail: str, html: bool) -> None:
    asked = Asked("GET", detail, "r1", accept=b"text/html" if html else b"")
    answer = answers().refuse(reason, detail, asked)
    sent = fields(answer)
    assert sent["content-length"] == str(len(answer.body))
    for value in sent.values():
        assert not {"\r", "\n", "\0"} & set(value)
    if html:
        assert b"<script" not in answer.body
    else:
        assert json.loads(answer.body)["detail"] == detail
    assert (answer.status == 401) == ("www-authenticate" in sent), "RFC 9110, section 15.5.2: a 401 must challenge"


def test_a_challenge_stays_one_field_whatever_the_detail_holds() -> None:
    answer = answers().refuse(Reason.TOKEN_INVALID, 'a"b\\c\r\nX-Evil: 1, é', ASKED)
    challenge = fields(answer)["www-authenticate"]
    assert challenge == 'Bearer realm="gateway", error="invalid_token", error_description="a\'b\'c  X-Evil: 1, ?"'


def test_a_402_has_a_link_that_is_bound_to_customer_and_tier_for_its_time() -> None:
    payment = Payment("alice", Requirement(Access.TIER, 1, "pro"), Standing(0, "free", "none", None, ()), "pro")
    answer = answers().payment_required(Reason.TIER_REQUIRED, payment, ASKED)
    link = json.loads(answer.body)["pay_url"].removeprefix("https://api.example.com/_gateway/pay/")
    assert verify(KEY, Purpose.PAY, link, NOW) == Claim(Purpose.PAY, "alice", "pro", int(NOW) + 3600)
    assert fields(answer)["link"].startswith(f"<https://api.example.com/_gateway/pay/{link}>; ")


@pytest.mark.parametrize("reason", [reason for reason, known in ANSWERS.items() if known.status == 402])
def test_every_402_says_in_words_what_is_the_matter_and_what_helps(reason: Reason) -> None:
    payment = Payment("alice", Requirement(Access.TIER, 1, "pro"), Standing(-1, None, "expired", 5, ()), "pro")
    shown = json.loads(answers().payment_required(reason, payment, ASKED).body)
    assert shown["reason"] == reason
    assert shown["current"] == {"tier": None, "status": "expired", "access_until": 5}
    assert shown["detail"].startswith("GET /x needs tier 'pro'; ")
    assert shown["detail"].endswith(shown["pay_url"])


def test_origins_get_exactly_what_was_configured() -> None:
    built = answers(cors_origins=("https://a.test",), cors_credentials=True)
    assert built.readable_from(b"https://b.test") == []
    assert built.readable_from(b"") == []
    allowed = dict(built.readable_from(b"https://a.test"))
    assert allowed[b"access-control-allow-origin"] == b"https://a.test"
    assert allowed[b"access-control-allow-credentials"] == b"true"
    assert answers().readable_from(b"https://a.test") == []


@given(st.binary(max_size=200))
def test_no_accept_field_breaks_the_choice(accept: bytes) -> None:
    assert prefers_html(accept) in {True, False}
    assert prefers_html(accept + b",text/html;q=0.1,application/json") in {True, False}


def test_a_refusal_below_asgi_is_one_whole_answer_that_ends_the_connection() -> None:
    answer = answers().refuse(Reason.URI_TOO_LONG, "Too long.", Asked("", "", "r1"))
    raw = raw_refusal(answer)
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 414 Request-URI Too Long"
    assert b"connection: close" in lines
    assert body == answer.body
