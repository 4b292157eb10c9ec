"""`policies.verdict` and `policies.explain`: what is said of a request, and that every "if" in it was tried."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.entitlement import Entitlement
from policies.explain import Rules, explain
from policies.explain_table import effective_table
from policies.facts import CustomerFacts
from policies.paths import Target
from policies.reasons import Reason
from policies.routes import Matched, compile_routes
from policies.schema import Config, Route
from policies.supposed import Impossible, Supposition, suppose
from policies.tiers import build_ladder
from policies.verdict import Caller, Question, because, judge
from tests.support.route_tables import config_of, route

NOW = 1_800_000_000
DAY = 86_400


def rules_of(*routes: Route, default: str = "deny") -> Rules:
    return rules_of_config(config_of(*routes, default=default))


def rules_of_config(config: Config) -> Rules:
    table = compile_routes(config).table
    assert table is not None
    return Rules(config, table, build_ladder(config.tiers))


RULES = rules_of(
    route("/status"),
    route("/v1/**", access="authenticated"),
    route("/v1/reports/{id}", tier="pro"),
    route("/v1/reports/summary", tier="enterprise"),
    route("/v1/export/**", methods=("POST",), tier="pro", features=("export",)),
    route("/hosted", host="api.example.com", tier="pro"),
)


def somebody(
    rules: Rules = RULES, tier: str | None = None, status: str | None = None, until: int | None = None
) -> Entitlement:
    facts = suppose(Supposition(tier, status, until), rules.config.tiers, NOW)  # type: ignore[arg-type]
    assert isinstance(facts, CustomerFacts), facts
    return rules.derive(facts)


def told(path: str, caller: Caller, method: str = "GET", host: str = "", rules: Rules = RULES, at: int = NOW) -> str:
    return judge(rules.table, rules.ladder, Question(method, path.encode(), host), caller, at).outcome


@pytest.mark.parametrize(
    ("tier", "status", "outcome"),
    [
        (None, None, "402 tier_required"),
        ("free", "none", "402 tier_required"),
        ("pro", None, "forward"),
        ("pro", "trialing", "forward"),
        ("pro", "canceled", "forward"),
        ("pro", "past_due", "forward"),
        ("pro", "unpaid", "402 payment_failed"),
        ("pro", "expired", "402 subscription_expired"),
        ("pro", "paused", "402 subscription_paused"),
        ("pro", "incomplete", "402 tier_required"),
        ("pro", "blocked", "403 blocked"),
        (None, "blocked", "403 blocked"),
        ("enterprise", None, "forward"),
    ],
)
def test_somebody_made_up_is_judged_as_the_word_says(tier: str | None, status: str | None, outcome: str) -> None:
    assert told("/v1/reports/7", somebody(tier=tier, status=status)) == outcome


@pytest.mark.parametrize(
    ("status", "last_second"),
    [
        ("active", NOW + 48 * 3600 - 1),  # the renewal may be this late
        ("trialing", NOW + 48 * 3600 - 1),
        ("canceled", NOW - 1),  # a planned end is exact
        ("past_due", NOW + 72 * 3600 - 1),
    ],
)
def test_the_end_of_what_was_paid_is_followed_by_the_leeway_of_the_rules(status: str, last_second: int) -> None:
    facts = suppose(Supposition("pro", status, NOW), RULES.config.tiers, NOW)  # type: ignore[arg-type]
    assert isinstance(facts, CustomerFacts)
    entitlement = RULES.derive(facts)

    assert told("/v1/reports/7", entitlement, at=last_second) == "forward"
    assert told("/v1/reports/7", entitlement, at=last_second + 1).startswith("402")


@pytest.mark.parametrize(
    ("supposition", "field"),
    [
        (Supposition("nope"), "tier"),
        (Supposition("free", "active"), "status"),
        (Supposition("pro", "none"), "status"),
        (Supposition(None, "past_due"), "status"),
        (Supposition(None, None, NOW), "until"),
        (Supposition("free", None, NOW), "until"),
        (Supposition("pro", "unpaid", NOW), "until"),
        (Supposition("pro", "blocked", NOW), "until"),
        (Supposition("pro", "past_due", NOW + 1), "until"),
        (Supposition("pro", "expired", NOW + 1), "until"),
    ],
)
def test_nobody_can_be_what_contradicts_itself(supposition: Supposition, field: str) -> None:
    impossible = suppose(supposition, RULES.config.tiers, NOW)

    assert isinstance(impossible, Impossible)
    assert impossible.field == field


def test_a_tier_that_is_not_sold_is_given_by_a_grant() -> None:
    config = config_of(route("/gold", tier="gold"))
    config = config.model_copy(update={"tiers": (*config.tiers, config.tiers[0].model_copy(update={"name": "gold"}))})
    rules = rules_of_config(config)

    assert told("/gold", somebody(rules, "gold"), rules=rules) == "forward"
    assert told("/gold", somebody(rules, "gold", until=NOW), rules=rules).startswith("403")
    impossible = suppose(Supposition("gold", "past_due"), config.tiers, NOW)
    assert isinstance(impossible, Impossible)


def test_a_tier_sold_by_products_or_lookup_keys_alone_can_be_had() -> None:
    config = config_of(route("/p", tier="pro"), route("/e", tier="enterprise"))
    free, pro, enterprise = config.tiers
    tiers = (
        free,
        pro.model_copy(update={"prices": (), "products": ("prod_1",)}),
        enterprise.model_copy(update={"prices": (), "lookup_keys": ("ent",)}),
    )
    rules = rules_of_config(config.model_copy(update={"tiers": tiers}))

    assert told("/p", somebody(rules, "pro"), rules=rules) == "forward"
    assert told("/e", somebody(rules, "pro"), rules=rules) == "402 tier_required"
    assert told("/e", somebody(rules, "enterprise"), rules=rules) == "forward"


@pytest.mark.parametrize(
    ("method", "path", "outcome"),
    [
        ("GET", "/v1//x", "400 bad_path"),
        ("GET", "/_gateway/me", "own"),
        ("GET", "/_GATEWAY/me", "own"),
        ("GET", "/nowhere", "404 no_route"),
        ("GET", "/hosted", "404 no_route"),
        ("GET", "/v1/reports/7", "401 token_missing"),
        ("GET", "/status", "forward"),
        ("HEAD", "/status?x=1", "forward"),
        ("TRACE", "/status", "405 method_not_allowed"),
    ],
)
def test_nobody_is_told_what_a_request_without_a_token_is_told(method: str, path: str, outcome: str) -> None:
    assert told(path, Reason.TOKEN_MISSING, method) == outcome


def test_a_preflight_goes_through_without_a_token_where_the_route_that_it_asks_for_exists() -> None:
    def preflight(path: bytes) -> str:
        question = Question("OPTIONS", path, preflight_for="POST")
        return judge(RULES.table, RULES.ladder, question, Reason.TOKEN_MISSING, NOW).outcome

    assert preflight(b"/v1/export/x") == "forward"
    assert preflight(b"/nowhere") == "404 no_route"


def test_the_why_names_the_route_what_it_asks_and_what_the_caller_has() -> None:
    verdict = judge(RULES.table, RULES.ladder, Question("POST", b"/v1/export/x"), somebody(), NOW)

    assert because(verdict) == (
        "the route '/v1/export/**' asks for tier 'pro' with export, and the caller has 'free' (status none)"
    )


# Who lost, and why


def losers(path: str, method: str = "GET", host: str = "", rules: Rules = RULES) -> dict[str, str]:
    explained = explain(rules, Question(method, path.encode(), host), Reason.TOKEN_MISSING, NOW)
    return {one.route.label: one.why for one in explained.losers}


def test_a_less_specific_route_is_told_where_it_is_less_specific() -> None:
    assert losers("/v1/reports/summary") == {
        "/v1/**": "'/v1/reports/summary' is more specific: it has a literal where this has '/**', in segment 2",
        "/v1/reports/{id}": "'/v1/reports/summary' is more specific: it has a literal where this has a parameter, in segment 3",
    }


def test_a_path_whose_end_an_escape_hides_says_what_an_upstream_may_read_and_whose_that_is() -> None:
    rules = rules_of(route("/{x}", tier="pro", spelling="exact"), route("/{x}/{y}"))
    found = explain(rules, Question("GET", b"/a%3Fx/y"), Reason.TOKEN_MISSING, NOW)

    assert found.verdict.outcome == "401 token_missing"
    (path,) = [check.found for check in found.checks if check.what == "path"]
    assert path == "is taken as it was sent, /a?x/y; an upstream might read /a, and no less is asked than there"
    assert losers("/a%3Fx/y", rules=rules) == {
        "/{x}": "it is for /a, which an upstream may read; what it asks for is asked as well"
    }


def test_a_route_for_other_methods_says_which() -> None:
    assert losers("/v1/export/x")["/v1/export/**"] == "it takes POST, not GET"


def test_a_route_of_another_host_says_which() -> None:
    assert losers("/hosted") == {"/hosted": "it is for the host api.example.com, and the request names no host"}
    assert losers("/hosted", host="evil.example")["/hosted"].endswith("not for 'evil.example'")
    assert losers("/hosted", host="API.example.com:8080") == {}


def test_a_route_that_names_the_host_or_ends_there_is_more_specific() -> None:
    rules = rules_of(route("/a"), route("/a/**"), route("/a", host="h.test", tier="pro"))

    whys = losers("/a", host="h.test", rules=rules)

    assert whys["/a"].endswith("is more specific: it names the host")
    assert whys["/a/**"].endswith("is more specific: it names the host")
    assert losers("/a", rules=rules)["/a/**"].endswith("it ends where this goes on with '/**'")


def test_a_route_in_another_spelling_says_that_it_compares_exactly() -> None:
    rules = rules_of(route("/Status"), route("/**", access="authenticated"))

    assert "compares the path exactly" in losers("/status", rules=rules)["/Status"]


def test_a_lax_route_that_the_guard_set_aside_says_so() -> None:
    rules = rules_of(route("/v1/models", access="authenticated"), route("/**"))

    assert told("/V1/Models", Reason.TOKEN_MISSING, rules=rules) == "401 token_missing"
    assert "a respelling of '/v1/models'" in losers("/V1/Models", rules=rules)["/**"]


def test_a_route_that_names_the_method_wins_over_one_that_names_none() -> None:
    rules = rules_of(route("/a"), route("/a", methods=("GET",), tier="pro"))

    (why,) = losers("/a", rules=rules).values()

    assert why == "'GET /a' names GET"


def test_the_default_says_that_it_is_for_what_no_route_matches() -> None:
    rules = rules_of(route("/a", tier="pro"), default="public")

    assert losers("/a", rules=rules) == {"default": "'/a' matches, and 'default' is for what no route matches"}
    assert losers("/b", rules=rules) == {}


@pytest.mark.parametrize("path", ["/v1//x", "/_gateway/me", "/nowhere"])
def test_where_no_route_was_looked_for_or_fits_nobody_lost(path: str) -> None:
    assert losers(path) == {}


# What would change it


def changes(path: str, caller: Caller, method: str = "GET", at: int = NOW) -> dict[str, str]:
    explained = explain(RULES, Question(method, path.encode()), caller, at)
    return {one.what: one.outcome for one in explained.changes}


def test_nobody_is_told_what_a_token_and_what_each_tier_would_do() -> None:
    assert changes("/v1/reports/summary", Reason.TOKEN_MISSING) == {
        "the request held a good token of a customer who has bought nothing": "402 tier_required",
        "the customer paid for pro": "402 tier_required",
        "the customer paid for enterprise": "forward",
    }


def test_no_tier_is_proposed_that_changes_nothing_and_none_above_the_first_that_helps() -> None:
    assert changes("/v1/reports/summary", somebody(tier="pro")) == {"the customer paid for enterprise": "forward"}
    assert changes("/v1/reports/7", somebody()) == {"the customer paid for pro": "forward"}


def test_a_method_that_is_not_allowed_is_told_what_the_others_would_give() -> None:
    rules = rules_of(route("/read", methods=("GET",)), route("/read", methods=("PUT",), tier="pro"))
    explained = explain(rules, Question("POST", b"/read"), Reason.TOKEN_MISSING, NOW)

    assert [(one.what, one.outcome) for one in explained.changes] == [
        ("the method were GET", "forward"),
        ("the method were HEAD", "forward"),
        ("the method were PUT", "401 token_missing"),
    ]


def test_a_failed_payment_is_told_that_paying_the_invoice_opens_the_route() -> None:
    assert changes("/v1/reports/7", somebody(tier="pro", status="unpaid"))["the open invoice were paid"] == "forward"


def test_a_blocked_customer_is_told_what_lifting_the_block_would_give_and_no_tier() -> None:
    assert changes("/v1/reports/7", somebody(tier="pro", status="blocked")) == {"the block were lifted": "forward"}
    assert changes("/v1/reports/7", somebody(status="blocked")) == {"the block were lifted": "402 tier_required"}


def test_somebody_let_through_is_told_when_that_ends_by_itself() -> None:
    entitlement = somebody(tier="pro", status="canceled", until=NOW + DAY)

    (change,) = explain(RULES, Question("GET", b"/v1/reports/7"), entitlement, NOW).changes

    assert change.outcome == "402 subscription_expired"
    assert told("/v1/reports/7", entitlement, at=NOW + DAY - 1) == "forward"
    assert told("/v1/reports/7", entitlement, at=NOW + DAY) == change.outcome


def test_a_grant_without_end_on_an_open_route_has_nothing_to_change() -> None:
    assert changes("/status", somebody(tier="pro")) == {}
    assert changes("/v1/x", somebody(tier="pro")) == {}


# What was checked


def test_a_refusal_that_stripe_may_contradict_says_that_stripe_is_asked() -> None:
    entitlement = somebody(tier="pro", status="expired")
    doubtful = RULES.derive(replace(entitlement.facts, doubtful_until=NOW + 60))

    checked = {one.what for one in explain(RULES, Question("GET", b"/v1/reports/7"), doubtful, NOW).checks}
    sure = {one.what for one in explain(RULES, Question("GET", b"/v1/reports/7"), entitlement, NOW).checks}

    assert checked - sure == {"Stripe"}


def test_an_open_route_says_that_no_token_was_looked_at() -> None:
    checks = explain(RULES, Question("GET", b"/status"), Reason.TOKEN_MISSING, NOW).checks

    assert (checks[-1].what, checks[-1].found) == ("token", "not looked at")


# The table


def test_the_table_is_in_the_order_of_winning_and_ends_with_the_default() -> None:
    lines = effective_table(RULES.config, RULES.table)

    assert [line.path for line in lines] == [
        "/hosted", "/status", "/v1/reports/summary", "/v1/reports/{id}", "/v1/export/**", "/v1/**", None
    ]  # fmt: skip
    assert [line.order for line in lines] == list(range(1, 8))
    assert (lines[0].host, lines[0].spelling, lines[1].spelling, lines[4].methods) == (
        "api.example.com",
        "lenient",
        "exact",
        ("POST",),
    )
    assert (lines[-1].access, lines[-1].upstream) == ("deny", None)


def test_the_table_does_not_depend_on_the_order_of_the_file() -> None:
    turned = rules_of(*reversed(RULES.config.routes))

    assert effective_table(turned.config, turned.table) == effective_table(RULES.config, RULES.table)


def test_an_open_default_stands_last_with_its_upstream() -> None:
    rules = rules_of(route("/a"), default="authenticated")

    last = effective_table(rules.config, rules.table)[-1]

    assert (last.path, last.access, last.upstream, last.spelling) == (None, "authenticated", "api", None)


# Whatever the table and the request


PATHS = st.sampled_from(["/", "/a", "/A", "/a/", "/a/**", "/a/b", "/a/{x}", "/{x}", "/{x}/b", "/{x}/**", "/**", "/a b"])
WHO = st.sampled_from([{"access": "public"}, {"access": "authenticated"}, {"tier": "pro"}, {"tier": "enterprise"}])
ROUTES = st.builds(
    lambda path, who, methods, host, spelling: Route(path=path, methods=methods, host=host, spelling=spelling, **who),
    PATHS,
    WHO,
    st.sampled_from([(), ("GET",), ("POST",), ("HEAD",)]),
    st.sampled_from([None, None, "h.test"]),
    st.sampled_from([None, None, "exact", "lenient"]),
)
TARGETS = st.sampled_from(
    ["/", "/a", "/A", "/a/", "/a/b", "/A/B;v=1", "/a/c", "/c/b/", "/a%20b", "/a%2520b", "/%41/b", "/a/b/c", "/x?y", "/a%3fb", "/a//b"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.lists(ROUTES, max_size=6),
    st.sampled_from(["deny", "public", "authenticated", "pro"]),
    TARGETS,
    st.sampled_from(["GET", "HEAD", "POST", "TRACE"]),
    st.sampled_from(["", "h.test", "other.test"]),
)
def test_every_request_can_be_explained_and_each_route_that_fits_it_is_the_judge_or_has_lost_for_a_reason(
    routes: list[Route], default: str, target: str, method: str, host: str
) -> None:
    config = config_of(*routes, default=default)
    table = compile_routes(config).table
    if table is None:
        return
    rules = Rules(config, table, build_ladder(config.tiers))
    question = Question(method, target.encode(), host)

    for caller in (Reason.TOKEN_MISSING, somebody(rules), somebody(rules, "pro", "past_due")):
        explained = explain(rules, question, caller, NOW)
        lost = [one.route.index for one in explained.losers]

        assert all(one.why for one in explained.losers)
        assert len(lost) == len(set(lost))
        assert explained.verdict.route is None or explained.verdict.route.index not in lost
        # A route that would have judged the request alone is never passed over in silence.
        for index, one in enumerate(config.routes):
            alone = compile_routes(config.model_copy(update={"routes": (one,), "default": "deny"})).table
            assert alone is not None
            reading = explained.verdict.reading
            if isinstance(reading, Target) and isinstance(alone.match(method, host, reading), Matched):
                assert explained.verdict.route is not None
                assert index in [*lost, explained.verdict.route.index]
