"""Routes that ask for scopes and claims: what is missing, what a respelling can't get round, what `diff` and `explain` say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policies.access_diff import compare
from policies.caller import Caller
from policies.explain import Rules, explain
from policies.facts import CustomerFacts
from policies.load import load
from policies.requirement import AUTHENTICATED, Requirement
from policies.routes import Matched, compile_routes
from policies.schema import Route
from policies.scopes import challenge_of, missing_of, scopes_in, values_of
from policies.setting_changes import Effect
from policies.supposed import Supposition, suppose
from policies.tiers import build_ladder
from policies.verdict import Question, judge
from tests.support.route_tables import config_of, route, target_of

NOW = 1_800_000_000


def needs(*scopes: str, **claims: tuple[str, ...]) -> Requirement:
    return replace(AUTHENTICATED, scopes=scopes, claims=tuple(claims.items()))


def caller(*scopes: str, **claims: tuple[str, ...]) -> Caller:
    return Caller("alice", "", NOW + 60, scopes=scopes, claims=tuple(claims.items()))


def asking(path: str, *scopes: str, **rest: Any) -> Route:
    return route(path, **{"access": None if "tier" in rest else "authenticated", **rest}).model_copy(
        update={"scopes": scopes}
    )


def rules_of(*routes: Route) -> Rules:
    config = config_of(*routes)
    outcome = compile_routes(config)
    assert outcome.table is not None, outcome.problems
    return Rules(config, outcome.table, build_ladder(config.tiers))


def problems(*lines: str) -> list[tuple[str, int, int]]:
    text = (
        "version: 1\nupstreams: {api: {targets: ['http://127.0.0.1:9000']}}\n"
        "auth: {api_keys: {enabled: true}, issuers: [{issuer: 'https://i.test/', audience: a, algorithms: [HS256],"
        " secret: '01234567890123456789012345678901'}]}\nroutes:\n  - path: /a\n"
        + "".join(f"    {line}\n" for line in lines)
    )
    loaded = load(text, file="gateway.yaml", environ={}, read_file=lambda _: "")
    return [(found.code, found.line, found.column) for found in loaded.diagnostics]


# What a credential holds


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "a b:c"}, ("a", "b:c")),
        ({"scope": "  a   b "}, ("a", "b")),
        ({"scp": ["a", "b"]}, ("a", "b")),
        ({"scp": "a b", "scope": "b c", "scopes": ["d"]}, ("b", "c", "a", "d")),
        ({"scopes": ["a b"]}, ("a b",)),
        ({"scope": ["a", 1, None, ["b"]]}, ("a",)),
        ({"scope": {"a": "b"}}, ()),
        ({"scope": 7}, ()),
        ({"scope": None}, ()),
        ({"scope": "a\tb\nc"}, ("a\tb\nc",)),
        ({}, ()),
    ],
)
def test_scopes_are_the_whole_words_of_the_claims_that_are_known_for_them(
    claims: dict[str, Any], scopes: tuple[str, ...]
) -> None:
    assert scopes_in(claims) == scopes


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("admin", ("admin",)), (["a", "b"], ("a", "b")), (True, ("true",)), (False, ("false",)), (7, ("7",)),
        (None, ()), ({"a": 1}, ()), (1.5, ()), (["a", None, {"b": 1}], ("a",)), ([], ()),
    ],
)  # fmt: skip
def test_a_claims_values_are_texts_whole_numbers_and_truths(claim: object, values: tuple[str, ...]) -> None:
    assert values_of(claim) == values


@pytest.mark.parametrize("held", ["reports", "reports:writeall", "REPORTS:WRITE", "reports:read", ""])
def test_a_scope_is_held_whole_or_not_at_all(held: str) -> None:
    assert missing_of(needs("reports:write"), caller(held)) is not None
    assert missing_of(needs("reports:write"), caller(held, "reports:write")) is None


def test_what_is_missing_is_named_and_the_challenge_names_all_that_is_needed() -> None:
    wanted = needs("a", "b", org_role=("admin", "owner"))

    missing = missing_of(wanted, caller("a", org_role=("member",)))

    assert missing is not None
    assert str(missing) == "the scope 'b' and the claim 'org_role' as 'admin' or 'owner'"
    assert challenge_of(wanted, missing) == b'Bearer realm="gateway", error="insufficient_scope", scope="a b"'
    assert missing_of(wanted, caller("b", "a", org_role=("x", "owner"))) is None
    assert missing_of(wanted, replace(caller(), is_made_up=True)) is None
    assert missing_of(wanted, Caller("alice", "", NOW, key_id="gw_x", scopes=None)) is not None


# P1: a respelling asks for no less


@pytest.mark.parametrize(
    "spelled", ["/v1/admin", "/V1/Admin", "/v1/admin/", "/v1;x/admin", "/%761/admin", "/v1/admin%20"]
)
@pytest.mark.parametrize("fallback", ["public", "authenticated", "pro"])
def test_no_respelling_of_a_route_with_a_scope_reaches_one_without(spelled: str, fallback: str) -> None:
    open_route = route("/**", tier="pro") if fallback == "pro" else route("/**", access=fallback)
    for config in (
        config_of(asking("/v1/admin", "admin"), open_route),
        config_of(asking("/v1/admin", "admin"), default=fallback),
    ):
        table = compile_routes(config).table
        assert table is not None

        found = table.match("GET", "", target_of(spelled))

        assert isinstance(found, Matched)
        assert found.route.requirement.scopes == ("admin",)


def test_where_neither_of_two_routes_is_the_stricter_a_guess_at_the_path_asks_for_both() -> None:
    table = rules_of(asking("/v1/Ädmin", "admin"), route("/v1/{x}", tier="pro")).table

    found = table.match("GET", "", target_of("/v1/%C3%A4dmin"))

    assert isinstance(found, Matched)
    assert (found.route.requirement.tier, found.route.requirement.scopes) == ("pro", ("admin",))
    plain = table.match("GET", "", target_of("/v1/%C3%84dmin"))
    assert isinstance(plain, Matched)
    assert (plain.route.requirement.tier, plain.route.requirement.scopes) == (None, ("admin",))


def test_claims_with_fewer_values_ask_for_more() -> None:
    few, many = needs(role=("a",)), needs(role=("a", "b"))
    assert few.narrows_as_much_as(many)
    assert not many.narrows_as_much_as(few)
    assert needs("x", role=("a",)).narrows_as_much_as(needs("x"))
    assert not needs("x").narrows_as_much_as(needs("x", role=("a",)))


# The file


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (("access: public", "scopes: [a]"), [("public-and-scopes", 7, 5)]),
        (("access: public", "claims: {a: b}"), [("public-and-scopes", 7, 5)]),
        (("tier: pro", "scopes: [a]"), [("unknown-tier", 6, 11)]),
        (("access: authenticated", "scopes: [a, 'b c']"), [("bad-scope", 7, 17)]),
        (("access: authenticated", "scopes: [a, 'b\"']"), [("bad-scope", 7, 17)]),
        (("access: authenticated", "scopes: ['']"), [("bad-scope", 7, 14)]),
        (("access: authenticated", "scopes: [a, a]"), [("duplicate-entry", 7, 17)]),
        (("access: authenticated", "scopes: []"), [("empty", 7, 13)]),
        (("access: authenticated", "scopes: a"), [("wrong-type", 7, 13)]),
        (("access: authenticated", "claims: {role: []}"), [("empty", 7, 20)]),
        (("access: authenticated", "claims: {role: [a], x: {y: z}}"), [("wrong-type", 7, 28)]),
        (("access: authenticated", "claims: {}"), [("empty", 7, 13)]),
        (("scopes: [a]",), [("who-may", 5, 5)]),
        (("access: authenticated", "scopes: [a, 'b:c']", "claims: {role: [a, b], org: x}"), []),
    ],
)
def test_a_slip_in_scopes_or_claims_is_told_where_it_stands(
    lines: tuple[str, ...], found: list[tuple[str, int, int]]
) -> None:
    assert problems(*lines) == found


# What is said of them


def test_explain_says_what_the_credential_lacks_and_what_it_would_get_with_it() -> None:
    rules = rules_of(asking("/v1/reports", "reports:write", tier="pro"))
    facts = suppose(Supposition("free"), rules.config.tiers, NOW)
    assert isinstance(facts, CustomerFacts)
    who = rules.derive(facts)

    found = explain(rules, Question("GET", b"/v1/reports", credential=caller("other")), who, NOW)

    assert found.verdict.outcome == "403 scope_missing"
    assert "the scope 'reports:write'" in found.why
    assert ("credential", "lacks the scope 'reports:write'") in [(one.what, one.found) for one in found.checks]
    assert [(one.what, one.outcome) for one in found.changes] == [
        ("the credential held the scope 'reports:write'", "402 tier_required")
    ]
    enough = judge(
        rules.table, rules.ladder, Question("GET", b"/v1/reports", credential=caller("reports:write")), who, NOW
    )
    assert enough.outcome == "402 tier_required"


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        ((), ("a",), Effect.LOSES),
        (("a",), (), Effect.GAINS),
        (("a",), ("a", "b"), Effect.LOSES),
        (("a",), ("b",), Effect.LOSES),
    ],
)
def test_a_scope_that_is_asked_for_anew_takes_access_away(
    before: tuple[str, ...], after: tuple[str, ...], effect: Effect
) -> None:
    old, new = rules_of(asking("/a", *before, tier="free")), rules_of(asking("/a", *after, tier="free"))

    found = compare(old, new)

    assert {one.effect for one in found.differences} == {effect}
    assert found.somebody_loses is (effect is Effect.LOSES)
    assert any("the scope" in one.before + one.after for one in found.differences)
    assert not compare(old, old).differences
