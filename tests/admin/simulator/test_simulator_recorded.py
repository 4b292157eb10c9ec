"""The simulator's objects beside recorded ones: whatever field Stripe was seen to send is there, and of the same type.

Recordings are of many API versions; each kind is held against the shape of 2020 and today's together. `LEFT_OUT` is what
is not there, and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin.simulator.test_simulator_shapes import _everything
from tests.support.simulator import Receiver, running_simulator

RECORDED = Path(__file__).parents[4] / "shared" / "fixtures" / "stripe"
pytestmark = [pytest.mark.fixtures, pytest.mark.skipif(not RECORDED.is_dir(), reason="the recordings are not here")]

BEFORE_2020 = "gone by API 2020-08-27"
EXPANDED = "only where expanded, which the simulator doesn't offer"
CONNECT = "of Connect alone, left out where it isn't used"
LEFT_OUT: dict[str, dict[str, str]] = {
    "account": dict.fromkeys(
        ("capabilities", "company", "external_accounts", "individual", "requirements", "statement_descriptor",
         "tos_acceptance", "future_requirements", "controller"),
        "of onboarding",
    ),
    "event": {"account": CONNECT},
    "charge": {"dispute": BEFORE_2020, "destination": BEFORE_2020, "refunds": EXPANDED, "radar_options": "of Radar alone"},
    "checkout.session": dict.fromkeys(("shipping", "shipping_rate", "shipping_details"), "of payments for goods"),
    "customer": dict.fromkeys(("sources", "subscriptions", "tax_ids"), EXPANDED)
    | dict.fromkeys(("account_balance", "tax_info", "tax_info_verification"), BEFORE_2020),
    "dispute": {"balance_transaction": "replaced by balance_transactions"},
    "invoice": dict.fromkeys(("application_fee_amount", "transfer_data"), CONNECT)
    | {"tax_percent": BEFORE_2020, "rendering_options": "replaced by rendering"}
    | dict.fromkeys(("redaction", "paper_checks"), "of previews"),
    "invoice_payment": {"parent": "a slip of the recording, which is an invoice's"},
    "line_item": dict.fromkeys(("amount_excluding_tax", "unit_amount_excluding_tax"), "of taxes alone")
    | dict.fromkeys(("period_start", "period_end", "created", "invoice_item", "rendering"), "of invoice items"),
    "list": {"total_count": BEFORE_2020},
    "plan": dict.fromkeys(("tiers", "aggregate_usage"), "of metered or tiered prices") | {"name": BEFORE_2020},
    "price": dict.fromkeys(("tiers", "aggregate_usage"), "of metered or tiered prices")
    | dict.fromkeys(
        ("amount", "interval", "interval_count", "name", "statement_descriptor", "transform_usage", "trial_period_days",
         "usage_type"),
        "a slip of the recording, whose price is a plan",
    ),
    "product": {"attributes": BEFORE_2020},
    "subscription": dict.fromkeys(("billing", "start", "tax_percent"), BEFORE_2020)
    | {"price": "a slip of the recording, which is an item's"},
}  # fmt: skip


def objects_in(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("object"), str) and not value.get("deleted"):
            yield value
        for inner in value.values():
            yield from objects_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from objects_in(inner)


@pytest.fixture(scope="module")
def ours() -> dict[str, dict[str, set[type]]]:
    """Kind → field → the types that were seen in it, of the shape of 2020 and of today's."""
    lists = (
        "products", "prices", "customers", "subscriptions?status=all&expand[]=data.latest_invoice", "invoices", "charges",
        "refunds", "disputes", "checkout/sessions", "invoice_payments", "entitlements/features",
    )  # fmt: skip
    found: dict[str, dict[str, set[type]]] = {}
    with running_simulator(receiver=Receiver()) as sim:
        told = _everything(sim)
        for version in ("2020-08-27", "2026-10-28.endive"):
            headers = {"Authorization": "Bearer sk_test_simulator", "Stripe-Version": version}
            told += [sim.http.get(f"{sim.base}/v1/{one}", headers=headers).json() for one in lists]
    for one in objects_in(told):
        for name, value in one.items():
            found.setdefault(one["object"], {}).setdefault(name, set()).add(type(value))
    return found


def recorded() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(RECORDED.rglob("*.json")):
        if "stripe_openapi" not in path.parts:  # its values are dummies
            for one in objects_in(json.loads(path.read_text(encoding="utf-8"))):
                yield f"{path.parent.name}/{path.name}", one


def test_every_recorded_field_is_there_or_stands_with_its_reason(ours: dict[str, dict[str, set[type]]]) -> None:
    missing = {
        (one["object"], name): where
        for where, one in recorded()
        if one["object"] in ours
        for name in set(one) - set(ours[one["object"]]) - set(LEFT_OUT.get(one["object"], {}))
    }
    assert missing == {}, str(missing)


def test_what_is_left_out_is_not_there_after_all(ours: dict[str, dict[str, set[type]]]) -> None:
    assert {(kind, name) for kind, names in LEFT_OUT.items() for name in names if name in ours.get(kind, {})} == set()


def test_a_recorded_value_and_ours_are_of_one_type(ours: dict[str, dict[str, set[type]]]) -> None:
    nothing = type(None)
    differ = {}
    for where, one in recorded():
        for name, value in one.items():
            types = ours.get(one["object"], {}).get(name, set()) - {nothing}
            # An id may stand expanded, an amount be of another recording's currency.
            if value is None or not types or types & {type(value)} or {type(value), *types} == {str, dict}:
                continue
            differ[one["object"], name] = (type(value), types, where)
    assert differ == {}
