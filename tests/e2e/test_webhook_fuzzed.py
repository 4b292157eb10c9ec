"""Signed bodies of every kind at a real webhook endpoint: 200 or 400, and whatever is a 200 is in the inbox (P6)."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.stripe.webhook import KNOWN_TYPES
from tests.support.stack import Stack, signature

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

EXAMPLES = 150
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "\0", "\ud800", "cus_1", "sub_1", "evt_1", "x" * 300, "v1.", "active"])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
OBJECT = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["sub_1", "cus_1", "in_1", "cs_1", "price_1"]) | ANYTHING,
        "object": st.sampled_from(["subscription", "customer", "invoice", "checkout.session", "price"]) | ANYTHING,
        "customer": st.sampled_from(["cus_1", "cus_2"]) | ANYTHING,
        "customer_account": ANYTHING,
        "metadata": ANYTHING,
        "client_reference_id": ANYTHING,
        "items": ANYTHING,
        "parent": ANYTHING,
    },
)


@st.composite
def events(draw: DrawFn) -> bytes:
    """An event, some fields of which hold anything or are missing; or bytes that were one."""
    number = draw(st.integers(0, 10**12))
    kind = draw(st.sampled_from(sorted(KNOWN_TYPES)) | st.text(max_size=30))
    thin = draw(st.booleans())
    event: dict[str, Any] = {
        "id": f"evt_fuzz_{number}",
        "object": "v2.core.event" if thin else "event",
        "type": f"v1.{kind}" if thin else kind,
        "created": "2026-11-01T00:00:00.000Z" if thin else 1_790_000_000,
        "livemode": draw(st.sampled_from([False, False, False, True])),
        "account": draw(st.sampled_from([None, None, "acct_other"])),
    }
    about = draw(OBJECT)
    event |= {"related_object": about} if thin else {"data": {"object": about}}
    for name in draw(st.lists(st.sampled_from(sorted(event)), max_size=2, unique=True)):
        if draw(st.booleans()):
            event[name] = draw(ANYTHING)
        else:
            del event[name]
    body = json.dumps(event).encode()
    if draw(st.integers(0, 4)) == 0:
        cut = draw(st.integers(0, len(body)))
        body = body[:cut] + draw(st.binary(max_size=3)) + body[draw(st.integers(cut, len(body))) :]
    return body


def test_whatever_is_signed_is_taken_and_kept_or_is_the_senders_fault(stack: Stack) -> None:
    acknowledged: set[str] = set()
    statuses: set[int] = set()

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(body=events(), times=st.sampled_from([1, 1, 1, 2]))
    def deliver(body: bytes, times: int) -> None:
        for _ in range(times):
            answer = stack.gateway.http.post(
                f"{stack.gateway.base}/_gateway/stripe/webhook", content=body, headers=signature(body)
            )
            assert answer.status_code in {200, 400}, (answer.status_code, answer.text, body)
            statuses.add(answer.status_code)
            if answer.status_code == 200:
                acknowledged.add(json.loads(body)["id"])

    deliver()
    assert statuses == {200, 400}
    assert len(acknowledged) > EXAMPLES / 50  # few are drawn that are whole, and some of those alike
    with closing(sqlite3.connect(f"file:{stack.gateway.directory / 'gateway.db'}?mode=ro", uri=True)) as ledger:
        kept = {row[0] for row in ledger.execute("SELECT event_id FROM inbox")}
    assert acknowledged <= kept
    assert stack.gateway.status("/free/x", "after-the-fuzzer") == 200
