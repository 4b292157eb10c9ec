"""What a gateway.yaml sells, as the oracle is told of it."""

from __future__ import annotations

from pathlib import Path

from admin.rehearsal.oracle import NOTHING, Bought, Oracle
from admin.rehearsal.terms import Terms, terms_from
from gateway.loading import LoadedFile, load_file
from policies.schema import Config


def config(tmp_path: Path, tiers: str, billing: str = "") -> Config:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        f"version: 1\nupstreams: {{api: {{targets: ['http://127.0.0.1:9']}}}}\ntiers: {tiers}\n{billing}\n"
        "routes: [{path: /**, access: public}]\n",
        encoding="utf-8",
    )
    loaded = load_file(path, {})
    assert isinstance(loaded, LoadedFile)
    assert loaded.ready is not None, loaded.diagnostics
    return loaded.ready[0]


def terms(tmp_path: Path, tiers: str, billing: str = "") -> Terms:
    found = terms_from(config(tmp_path, tiers, billing))
    assert found is not None
    return found


def test_prices_products_and_lookup_keys_are_worth_their_tier_and_one_price_is_worth_nothing(tmp_path: Path) -> None:
    found = terms(
        tmp_path,
        "[{name: free}, {name: a, prices: [price_a]}, {name: b, products: [prod_b]}, {name: c, lookup_keys: [c_now]}]",
    )
    assert found.ranks == {
        "price_a": 1,
        "price_prod_b_monthly": 2,
        "price_prod_b_yearly": 2,
        "price_c_now": 3,
        **dict.fromkeys(found.extras, NOTHING),
    }
    assert len(found.extras) >= 10
    assert (found.everybody, found.extra, found.on_sale) == (0, "price_extra", ("a", "b", "c"))
    assert "price_extra" not in found.prices


def test_without_a_free_tier_who_pays_nothing_has_nothing(tmp_path: Path) -> None:
    assert terms(tmp_path, "[{name: a, prices: [price_a]}]").everybody == NOTHING


def test_the_price_that_is_worth_nothing_is_none_of_the_files(tmp_path: Path) -> None:
    found = terms(
        tmp_path, "[{name: free}, {name: a, prices: [price_extra]}, {name: b, products: [prod_price_extra_]}]"
    )
    assert (found.extra, found.ranks[found.extra]) == ("price_extra__", NOTHING)
    assert found.ranks["price_extra"] == 1


def test_a_tier_keeps_its_own_grace(tmp_path: Path) -> None:
    found = terms(
        tmp_path,
        "[{name: free}, {name: a, prices: [price_a]}, {name: b, prices: [price_b], past_due_grace: 5h}]",
        "billing: {renewal_leeway: 7h, past_due_grace: 9h}",
    )
    oracle = Oracle(found.leniency, found.ranks)
    for price in ("price_a", "price_b"):
        oracle.agreed(price, "payer", on_credit=True)
        oracle.sold(price, (Bought(price, 1, 1_000, 2_000),), None)
    assert [opening.until for opening in oracle.openings("payer")] == [2_000 + 7 * 3600, 2_000 + 7 * 3600]
    for price in ("price_a", "price_b"):
        oracle.not_collected(price, given_up=False)
    assert [opening.until for opening in oracle.openings("payer")] == [1_000 + 9 * 3600, 1_000 + 5 * 3600]


def test_the_options_of_billing_are_the_oracles_too(tmp_path: Path) -> None:
    tiers = "[{name: a, prices: [price_a], features: [f]}, {name: b, prices: [price_b], features: [g]}]"
    plain = terms(tmp_path, tiers)
    assert not plain.asks_for_money
    assert plain.features == (frozenset({"f"}), frozenset({"f", "g"}))
    found = terms(
        tmp_path, tiers, "billing: {require_paid_invoice: true, revoke_on_dispute: true, features_from: stripe}"
    )
    leniency = found.leniency
    assert (leniency.only_paid, leniency.refunds_end, leniency.disputes_end) == (True, False, True)
    assert found.rules.features_from_stripe


def test_nothing_for_sale_is_no_terms(tmp_path: Path) -> None:
    assert terms_from(config(tmp_path, "[{name: free}]")) is None
