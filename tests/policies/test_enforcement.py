"""`enforce`: for whom a refusal stands, and that a route which refuses few is a way round none that refuses all."""

from __future__ import annotations

import pytest

from policies.access_diff import affected, compare
from policies.caller import MADE_UP
from policies.decision import OBSERVABLE, Forward, Refuse, enforce, lacking
from policies.enforcement import ENFORCED, parse_enforcement
from policies.explain_table import effective_table
from policies.load import load
from policies.reasons import Reason
from policies.routes import Matched
from tests.policies.test_access_diff import NOW, rules, shown, somebody_on
from tests.support.route_tables import config_of, judged, route, table_of, target_of

NAMES = tuple(f"customer-{number}" for number in range(4000))
HEAD = (
    "version: 1\nupstreams: {api: {targets: ['http://127.0.0.1:9000']}}\ntiers: [{name: pro, prices: [p]}]\nroutes:\n"
)
ISSUER = "auth: {issuers: [{issuer: 'https://i.test/', audience: a, algorithms: [HS256], secret: '01234567890123456789012345678901'}]}\n"


def test_a_quarter_is_a_quarter_always_the_same_and_part_of_every_half() -> None:
    quarter, half, other = (parse_enforcement(*one) for one in (("25%", "/a"), ("50%", "/a"), ("25%", "/b")))
    refused = {name for name in NAMES if quarter.binds(name)}

    assert 900 < len(refused) < 1100
    assert refused == {name for name in NAMES if quarter.binds(name)} < {name for name in NAMES if half.binds(name)}
    assert 150 < len(refused & {name for name in NAMES if other.binds(name)}) < 350, "each route draws its own"
    assert not quarter.binds(None)
    assert quarter.binds(MADE_UP)


@pytest.mark.parametrize("reason", list(Reason))
def test_only_what_a_route_asks_of_its_caller_is_let_pass_and_said_to_be(reason: Reason) -> None:
    refusal = Refuse(reason)
    for said in ("observe", "off", "1%"):
        passed = enforce(refusal, parse_enforcement(said), None)
        assert passed == (Forward(None, observed=reason) if reason in OBSERVABLE else refusal)
    assert enforce(refusal, ENFORCED, None) is refusal


def test_a_block_comes_before_a_missing_scope() -> None:
    assert lacking(Refuse(Reason.BLOCKED)) == Refuse(Reason.BLOCKED)
    assert lacking(Forward(None)) == Refuse(Reason.SCOPE_MISSING)
    assert Reason.BLOCKED not in OBSERVABLE


@pytest.mark.parametrize("said", ["observe", "off", "99%"])
@pytest.mark.parametrize("raw", ["/pro%20/y", "/Pro/y", "/pro;x/y", "/pr%256f/y"])
def test_a_respelling_reaches_no_route_that_refuses_fewer_than_the_plain_spelling_does(said: str, raw: str) -> None:
    for asked in ({"tier": "pro"}, {"access": "authenticated"}):
        table = table_of(route("/pro/**", **asked), route("/{x}/y", tier="enterprise", enforce=said))
        found = table.match("GET", "", target_of(raw))
        assert isinstance(found, Matched)
        assert found.route.enforcement is ENFORCED, found


@pytest.mark.parametrize("said", ["observe", "off"])
def test_a_route_that_refuses_nobody_takes_no_request_from_one_that_does(said: str) -> None:
    table = table_of(route("/a/**", tier="enterprise", enforce=said), route("/**", access="authenticated"))
    assert judged(table, "/a%20/x") == "/**"
    assert judged(table, "/a/x") == "/a/**"


def test_beside_its_own_exact_spelling_a_lax_route_gets_no_other_spelling_of_it() -> None:
    for lax in (route("/Models", tier="pro", enforce="observe"), route("/Models", spelling="lenient")):
        table = table_of(route("/models", access="authenticated"), lax)
        found = table.match("GET", "", target_of("/MODELS"))
        assert isinstance(found, Matched)
        assert found.route.pattern == "/models"
        assert judged(table, "/Models") == "/Models"


def test_a_share_and_a_stricter_neighbour_are_both_asked_of_a_respelling() -> None:
    table = table_of(route("/a/b", access="authenticated"), route("/{x}/{y}", tier="pro", enforce="50%"))
    found = table.match("GET", "", target_of("/A/b"))
    assert isinstance(found, Matched)
    assert (found.route.requirement.tier, found.route.enforcement) == ("pro", ENFORCED)


@pytest.mark.parametrize(
    ("said", "code"),
    [("0%", "bad-value"), ("100%", "bad-value"), ("true", "bad-value"), ("On", "bad-value"), ("-1%", "bad-value"), ("[on]", "wrong-type")],
)  # fmt: skip
def test_what_enforce_can_not_say_is_an_error(said: str, code: str) -> None:
    text = f"{HEAD}  - path: /a\n    tier: pro\n    enforce: {said}\n{ISSUER}"
    loaded = load(text, file="gateway.yaml", environ={}, read_file=lambda _: "")
    assert [(found.code, found.line) for found in loaded.errors] == [(code, 7)]


@pytest.mark.parametrize("refuses", ["access: public", "tier: pro, enforce: observe", "tier: pro, enforce: 25%"])
def test_outliving_a_token_that_nobody_needs_is_warned_of(refuses: str) -> None:
    text = f"{HEAD}  - {{path: /a, {refuses}, outlive_token: true}}\n{ISSUER}"
    loaded = load(text, file="gateway.yaml", environ={}, read_file=lambda _: "")
    assert [(found.code, found.line) for found in loaded.diagnostics] == [("no-effect", 5)]
    needed = load(text.replace(refuses, "tier: pro"), file="gateway.yaml", environ={}, read_file=lambda _: "")
    assert not needed.diagnostics


@pytest.mark.parametrize(("access", "said"), [("public", "observe"), ("authenticated", "25%")])
def test_enforcing_what_refuses_nobody_is_warned_of(access: str, said: str) -> None:
    text = f"{HEAD}  - path: /a\n    access: {access}\n    enforce: {said}\n{ISSUER}"
    loaded = load(text, file="gateway.yaml", environ={}, read_file=lambda _: "")
    assert [(found.code, found.line) for found in loaded.diagnostics] == [("no-effect", 7)]


def test_the_table_and_the_difference_say_how_far_a_route_is_enforced() -> None:
    observed = route("/a", tier="pro", enforce="observe")
    lines = effective_table(config_of(observed, route("/b")), table_of(observed, route("/b")))
    assert [line.enforce for line in lines] == ["observe", None, None]
    open_, watched, quarter, half, paid = (
        rules(route("/a", tier="pro", enforce=said)) for said in ("off", "observe", "25%", "50%", "on")
    )
    assert ("differs", "/a", "forward, observed 402 tier_required", "free") in shown(compare(open_, watched))
    assert not compare(open_, watched).somebody_loses
    assert ("loses", "/a", "402 tier_required for 25%", "free") in shown(compare(watched, quarter))
    assert ("loses", "/a", "402 tier_required for 50%", "free") in shown(compare(quarter, half))
    assert ("gains", "/a", "402 tier_required for 25%", "free") in shown(compare(half, quarter))
    assert ("loses", "/a", "402 tier_required", "free") in shown(compare(half, paid))
    assert ("gains", "/a", "forward, observed 401 token_missing", "nobody") in shown(compare(paid, watched))


@pytest.mark.parametrize("target", ["/a", "/A", "/a/", "/a;x", "/%61"])
@pytest.mark.parametrize("said", ["observe", "25%", "on"])
def test_a_route_is_enforced_as_far_in_every_spelling_that_it_takes(target: str, said: str) -> None:
    """A route is its own guard, and must not be taken for another one that asks for more."""
    table = table_of(route("/a", tier="pro", enforce=said), route("/**", access="authenticated"))
    found = table.find("GET", "", target.encode())
    assert isinstance(found, Matched)
    assert (found.route.label, found.route.enforcement) == ("/a", table.routes[0].enforcement)


def test_of_a_ledger_just_those_are_counted_whom_the_percentage_refuses() -> None:
    before, after = rules(route("/a", tier="pro", enforce="observe")), rules(route("/a", tier="pro", enforce="25%"))
    everybody = [somebody_on(name) for name in NAMES[:400]]
    counted = affected(compare(before, after), before, after, everybody, NOW)
    refused = sum(after.table.routes[0].enforcement.binds(name) for name in NAMES[:400])
    assert {one.losing for one in counted} == {refused}
    assert 60 < refused < 140
