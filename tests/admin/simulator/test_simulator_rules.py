"""The rules behind the simulator that need no server: periods, parameters, the catalogue, the clock."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.simulator import Simulator
from admin.simulator.clock import SimulatedClock
from admin.simulator.periods import INTERVALS, LONGEST_COUNT, Interval, end_of_period
from admin.simulator.seeding import Offer, offers_from
from admin.simulator.wire import ApiError, Params, parse_form, parse_json
from policies.schema import SimulatedPrice, Tier

MOMENTS = st.integers(0, 4_000_000_000)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("anchor", "after", "interval", "count", "end"),
    [
        ("2027-01-31T10:00", "2027-01-31T10:00", "month", 1, "2027-02-28T10:00"),
        ("2027-01-31T10:00", "2027-02-28T10:00", "month", 1, "2027-03-31T10:00"),
        ("2028-02-29T00:00", "2028-02-29T00:00", "year", 1, "2029-02-28T00:00"),
        ("2028-02-29T00:00", "2031-02-28T00:00", "year", 1, "2032-02-29T00:00"),
        ("2027-01-15T00:00", "2027-01-15T00:00", "month", 3, "2027-04-15T00:00"),
        ("2027-12-31T23:59", "2027-12-31T23:59", "week", 2, "2028-01-14T23:59"),
    ],
)
def test_a_period_ends_where_a_calendar_says(anchor: str, after: str, interval: Interval, count: int, end: str) -> None:
    assert end_of_period(at(anchor), at(after), interval, count) == at(end)


@given(MOMENTS, st.integers(0, 20 * 366 * 86400), st.sampled_from(INTERVALS), st.data())
def test_a_period_ends_after_the_moment_asked_for_and_periods_meet_without_a_gap(
    anchor: int, later: int, interval: Interval, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, LONGEST_COUNT[interval]))
    end = end_of_period(anchor, anchor + later, interval, count)
    assert end > anchor + later
    assert end_of_period(anchor, end - 1, interval, count) == end
    assert end_of_period(anchor, end, interval, count) > end


TREES = st.recursive(
    st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.dictionaries(st.text("abcxyz019_", min_size=1, max_size=4), inner, min_size=1, max_size=4),
    max_leaves=8,
)


def flatten(prefix: str, tree: Any) -> list[tuple[str, str]]:
    if isinstance(tree, str):
        return [(prefix, tree)]
    return [pair for key, inner in tree.items() for pair in flatten(f"{prefix}[{key}]" if prefix else key, inner)]


@given(st.dictionaries(st.text("abcxyz_", min_size=1, max_size=4), TREES, max_size=4))
def test_what_is_written_in_bracket_form_is_read_back(tree: dict[str, Any]) -> None:
    pairs = flatten("", tree)
    if all(key.count("[") < 7 for key, _ in pairs):
        text = "&".join(f"{quote(key)}={quote(value)}" for key, value in pairs)
        assert parse_form(text) == tree


@given(st.text(st.characters(codec="ascii"), max_size=80))
def test_no_text_makes_the_form_reader_do_anything_but_read_or_refuse(text: str) -> None:
    with suppress(ApiError):
        assert isinstance(Params(parse_form(text)).texts("expand"), list)


@given(st.binary(max_size=80))
def test_no_bytes_make_the_json_reader_do_anything_but_read_or_refuse(body: bytes) -> None:
    with suppress(ApiError):
        assert isinstance(parse_json(body), dict)


def test_lists_are_read_by_position_and_by_empty_brackets() -> None:
    params = Params(parse_form("a[1]=two&a[0]=one&b[]=x&b[]=y&c[0][p]=1&c[10][p]=3&c[2][p]=2&d=single"))
    assert params.texts("a") == ["one", "two"]
    assert params.texts("b") == ["x", "y"]
    assert [child.need("p") for child in params.children("c")] == ["1", "2", "3"]
    assert params.texts("d") == ["single"]


def test_the_clock_is_real_time_plus_an_offset_that_only_grows() -> None:
    real = [1000.0]
    clock = SimulatedClock(lambda: real[0])
    assert clock.advance(50) == 1050
    real[0] += 1
    assert clock.now() == 1051
    with clock.held_at(1020):
        assert clock.now() == 1020
    assert clock.set(2000) == 2000
    for wrong in (1999.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="forward"):
            clock.set(wrong)
    assert clock.now() == 2000


def test_any_tiers_can_be_rehearsed_with_exactly_the_ids_they_name() -> None:
    tiers = (
        Tier(name="free"),
        Tier(name="pro", prices=("price_pro_monthly", "price_pro_yearly")),
        Tier(name="team", products=("prod_XyZ",), lookup_keys=("team_annual",)),
        Tier(name="enterprise", prices=("price_ent",)),
    )
    simulator = Simulator(wall_clock=lambda: 1_800_000_000.0, public_base="http://127.0.0.1:1")
    simulator.seed_from_tiers(tiers)
    simulator.seed_from_tiers(tiers)
    store = simulator.world.store
    shown = {
        price.id: (price.product, price.unit_amount, price.interval, price.lookup_key)
        for price in store.prices.values()
    }
    assert shown == {
        "price_pro_monthly": ("prod_pro", 2900, "month", None),
        "price_pro_yearly": ("prod_pro", 29000, "year", None),
        "price_prod_xyz_monthly": ("prod_XyZ", 9900, "month", None),
        "price_prod_xyz_yearly": ("prod_XyZ", 99000, "year", None),
        "price_team_annual": ("prod_team", 99000, "year", "team_annual"),
        "price_ent": ("prod_enterprise", 29900, "month", None),
    }
    assert store.products["prod_XyZ"].default_price == "price_prod_xyz_monthly"
    assert store.events == {}, "a seeded catalogue has always been there"


def test_a_price_is_what_gateway_yaml_states_and_else_what_its_name_or_its_place_says() -> None:
    tiers = (
        Tier(name="pro", prices=("price_1Qa", "price_1Qb"), lookup_keys=("pro_quarterly",), products=("prod_Rk2p",)),
        Tier(name="team", prices=("price_1Qc", "price_team_yearly", "price_1Qd"), lookup_keys=("t",)),
    )
    stated = {
        "price_1Qa": SimulatedPrice(interval="year", amount=4321, currency="eur"),
        "prod_Rk2p": SimulatedPrice(interval="week", interval_count=2),
        "t": SimulatedPrice(amount=7),
    }
    shown = {offer.price: (offer.interval, offer.interval_count, offer.amount) for offer in offers_from(tiers, stated)}
    assert shown == {
        "price_1Qa": ("year", 1, 4321),
        "price_1Qb": ("month", 1, 2900),
        "price_pro_quarterly": ("month", 3, 8700),
        "price_prod_rk2p": ("week", 2, 1450),
        "price_1Qc": ("month", 1, 9900),
        "price_team_yearly": ("year", 1, 99000),
        "price_1Qd": ("month", 3, 29700),
        "price_t": ("month", 6, 7),
    }
    assert [offer.currency for offer in offers_from(tiers, stated)][:2] == ["eur", "usd"]


def test_amounts_grow_with_every_tier_however_many_there_are() -> None:
    offers = offers_from([Tier(name=f"t{number}", prices=(f"price_{number}",)) for number in range(9)])
    amounts = [offer.amount for offer in offers]
    assert amounts == sorted(set(amounts))


def test_two_prices_can_not_be_seeded_with_one_lookup_key() -> None:
    simulator = Simulator(wall_clock=lambda: 0.0, public_base="http://127.0.0.1:1")
    with pytest.raises(ValueError, match="lookup key 'k'"):
        simulator.seed([Offer("price_a", "A", 1, lookup_key="k"), Offer("price_b", "B", 1, lookup_key="k")])
