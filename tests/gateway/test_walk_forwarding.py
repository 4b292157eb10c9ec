"""What reaches the upstream, and what comes back: identity, tokens, preflights and the reserved prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import pytest

from tests.support.house import PLAIN_ANSWER, house, token_for
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.house import House


@pytest.fixture
async def at(tmp_path: Path) -> Any:
    async with house(tmp_path, stripe=False) as one:
        yield one


async def test_a_public_route_adds_no_identity_and_does_not_look_at_a_token(at: House) -> None:
    for token in (None, "garbage", token_for(lifetime=-3600), token_for()):
        answer = await at.get("/open/a", token)
        assert answer.status_code == 200
        assert [name for name, _ in at.last().headers if name.startswith("x-gateway-")] == []
        assert at.seen("authorization") == ([f"Bearer {token}"] if token else [])
    two = await at.raw_get("/open/a", "Authorization: Bearer x", "Authorization: Bearer y")
    assert two.status == 200
    assert at.seen("authorization") == ["Bearer x", "Bearer y"]


async def test_an_authenticated_route_takes_any_valid_token_and_names_the_customer(at: House) -> None:
    assert (await at.get("/mine", token_for())).status_code == 200
    identity = {name: value for name, value in at.last().headers if name.startswith("x-gateway-")}
    assert identity == {
        "x-gateway-customer": "alice",
        "x-gateway-tier": "free",
        "x-gateway-features": "",
        "x-gateway-status": "none",
    }


async def test_the_identity_of_a_granted_customer_has_the_features_of_all_tiers_below(at: House) -> None:
    await at.grant("alice", "enterprise")
    await at.until(200, "/ent", token_for())
    assert at.seen("x-gateway-tier") == ["enterprise"]
    assert at.seen("x-gateway-features") == ["export,sso"]
    assert at.seen("x-gateway-customer") == ["alice"]


@pytest.mark.parametrize("customer", ["Zoë Müller", "顧客 七", "org/1?x=%41", "a,b;c=d", "x" * 255])
async def test_any_printable_customer_arrives_and_decodes_to_itself(at: House, customer: str) -> None:
    assert (await at.get("/mine", token_for(customer))).status_code == 200
    (sent,) = at.seen("x-gateway-customer")
    assert sent.isascii()
    assert unquote(sent) == customer


async def test_no_inbound_identity_survives_in_any_spelling(at: House) -> None:
    forged = [
        "X-Gateway-Tier: enterprise", "x_gateway_customer: root", "X-GATEWAY_Status: active", "X-Gateway-Anything: 1",
        "Connection: X-Gateway-Customer, X-Gateway-Tier",
    ]  # fmt: skip
    await at.raw_get("/open/a", *forged)
    assert b"gateway" not in at.last().received.lower().replace(b"host", b"")
    await at.raw_get("/mine", f"Authorization: Bearer {token_for()}", *forged)
    assert at.seen("x-gateway-customer") == ["alice"]
    assert at.seen("x-gateway-tier") == ["free"]
    assert at.seen("x-gateway-anything") == []
    assert b"root" not in at.last().received


async def test_what_the_upstream_says_in_our_name_is_removed_and_its_own_refusals_pass(at: House) -> None:
    for status in (b"401 Unauthorized", b"402 Payment Required", b"500 Oops", b"503 Later"):
        at.answers[0] = (
            b"HTTP/1.1 %b\r\nX-Gateway-Reason: tier_required\r\nx_gateway_tier: x\r\nWWW-Authenticate: Digest a=b\r\n"
            b"Retry-After: 7\r\nContent-Type: text/x-mine\r\nContent-Length: 4\r\n\r\nmine" % status
        )
        answer = await at.get("/mine", token_for())
        assert answer.status_code == int(status[:3])
        assert answer.content == b"mine"
        assert dict(answer.headers) == {
            "www-authenticate": "Digest a=b", "retry-after": "7", "content-type": "text/x-mine", "content-length": "4",
        }  # fmt: skip


async def test_head_is_judged_like_get_and_forwarded_as_head(at: House) -> None:
    await at.grant("alice", "pro")
    await at.until(200, "/read", token_for())
    at.answers[0] = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-Mine: 1\r\n\r\n"
    async with await RawClient.connect(at.address) as client:
        head = f"HEAD /read HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token_for()}\r\n\r\n".encode()
        answer = await client.ask(head, to_head=True)
        assert answer.status == 200
        assert answer.one("content-length") == "1234"
        assert at.last().received.startswith(b"HEAD /read HTTP/1.1\r\n")
        refused = await client.ask(b"HEAD /read HTTP/1.1\r\nHost: a\r\n\r\n", to_head=True)
        assert refused.status == 401


async def test_the_target_goes_out_byte_for_byte(at: House) -> None:
    for target in ("/open/a%20b?x=%zz&y=/../z", "/open/a?", "/open/~!$&'()*+,;=:@", "/open/%41%6a", "/open/x/"):
        assert (await at.raw_get(target)).status == 200, target
        assert at.last().received.startswith(f"GET {target} HTTP/1.1\r\n".encode())


async def test_a_route_with_a_tier_is_as_strict_in_another_spelling(at: House) -> None:
    for target in ("/PRO/x", "/pro/x/", "/pro;a=b/x", "/%70ro/x", "/Pro"):
        assert (await at.raw_get(target)).status == 401, target
    assert at.visit_count() == 0


async def test_a_preflight_of_a_known_route_goes_to_the_upstream_without_a_token(at: House) -> None:
    asks = {"Origin": "https://app.test", "Access-Control-Request-Method": "GET"}
    answer = await at.ask("OPTIONS", "/pro/x", headers=asks)
    assert answer.status_code == 200
    assert at.last().received.startswith(b"OPTIONS /pro/x HTTP/1.1")
    assert at.seen("x-gateway-customer") == []
    reached = at.visit_count()
    # A preflight of what is not served, or an OPTIONS that is none, is judged like any request.
    assert (await at.ask("OPTIONS", "/nothing", headers=asks)).status_code == 404
    assert (
        await at.ask("OPTIONS", "/write", headers={**asks, "Access-Control-Request-Method": "DELETE"})
    ).status_code == 405
    assert (await at.ask("OPTIONS", "/pro/x")).status_code == 401
    assert (await at.ask("OPTIONS", "/pro/x", headers={"Origin": "https://app.test"})).status_code == 401
    assert (await at.ask("GET", "/pro/x", headers=asks)).status_code == 401
    assert at.visit_count() == reached


async def test_own_answers_are_readable_from_listed_origins_alone(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, server="  cors_origins: [https://app.test]") as one:
        for path, token in (("/pro/x", token_for()), ("/pro/x", None), ("/nothing", None), ("/_gateway/plans", None)):
            answer = await one.get(path, token, headers={"Origin": "https://app.test"})
            assert answer.headers["access-control-allow-origin"] == "https://app.test", path
            exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
            assert exposed >= {"X-Gateway-Reason", "X-Request-Id", "Link", "Retry-After", "WWW-Authenticate"}
            assert "Origin" in answer.headers["vary"]
            assert "access-control-allow-credentials" not in answer.headers
            for other in ("https://evil.test", "null", "https://app.test.evil.test", "HTTPS://APP.TEST"):
                answer = await one.get(path, token, headers={"Origin": other})
                assert "access-control-allow-origin" not in answer.headers
                assert "Origin" in answer.headers["vary"], "a cache must not hand one origin's answer to another"
        # The upstream's own answers are the upstream's business.
        answer = await one.get("/open/x", headers={"Origin": "https://app.test"})
        assert "access-control-allow-origin" not in answer.headers


async def test_a_preflight_of_our_own_endpoints_is_ours_to_answer(tmp_path: Path) -> None:
    asks = {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}
    async with house(tmp_path, stripe=False, server="  cors_origins: [https://app.test]") as one:
        answer = await one.ask("OPTIONS", "/_gateway/checkout", headers=asks)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://app.test"
        assert answer.headers["access-control-allow-methods"] == "GET, POST"
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        assert answer.headers["x-request-id"]
        answer = await one.ask("OPTIONS", "/_gateway/checkout", headers={**asks, "Origin": "https://evil.test"})
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert one.visit_count() == 0


async def test_where_cookies_are_tokens_a_listed_origin_may_read_with_credentials(tmp_path: Path) -> None:
    server, auth = "  cors_origins: [https://app.test]", "  token_from: [cookie:session]"
    async with house(tmp_path, stripe=False, server=server, auth=auth) as one:
        answer = await one.get("/pro/x", headers={"Origin": "https://app.test", "Cookie": f"session={token_for()}"})
        assert answer.status_code == 402
        assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize(
    "target",
    [
        "/_gateway", "/_gateway/", "/_gateway/x", "/_GATEWAY/x", "/_Gateway/me", "/_gateway;x/me", "/%5fgateway/x",
        "/%5Fgateway/me", "/_gatewa%79/x", "/_gateway%3bx/me", "/_gateway/%2e%2e/open/x", "/_gateway/../open/x",
        "//_gateway/me", "/%255fgateway/x", "/_gateway%3fx", "/_gateway%20/x", "/open/../_gateway/me",
        "/%EF%BC%BFgateway/x", "/_gateway\\me", "/_gateway./x", "/_gateway%00/x",
    ],
)  # fmt: skip
async def test_nothing_under_the_reserved_prefix_is_forwarded_in_any_spelling(tmp_path: Path, target: str) -> None:
    routes = "\n  - path: /**\n    access: public\n"
    async with house(tmp_path, stripe=False, routes=routes) as one:
        assert (await one.raw_get("/elsewhere")).status == 200
        reached = one.visit_count()
        answer = await one.raw_get(target)
        assert answer.status in {400, 401, 404}, answer.status
        assert answer.one("x-gateway-reason") in {"bad_path", "no_route", "token_missing"}
        assert one.visit_count() == reached


class TestForwardTokenFalse:
    """The caller's credential stops at the gateway; everything else goes on byte for byte."""

    STOPS: Final = "    forward_token: false"

    async def test_a_header_token_stops_here(self, tmp_path: Path) -> None:
        async with house(tmp_path, stripe=False, upstream_settings=self.STOPS) as one:
            assert (await one.get("/mine", token_for())).status_code == 200
            assert one.seen("authorization") == []
            assert one.seen("x-gateway-customer") == ["alice"]
            assert token_for().encode() not in one.last().received

    async def test_a_cookie_token_stops_here_and_the_other_cookies_do_not(self, tmp_path: Path) -> None:
        token = token_for()
        async with house(
            tmp_path, stripe=False, auth="  token_from: [cookie:session]", upstream_settings=self.STOPS
        ) as one:
            answer = await one.raw_get("/mine", f"Cookie: a=1; session={token}; b=2")
            assert answer.status == 200
            assert one.seen("cookie") == ["a=1; b=2"]
            await one.raw_get("/mine", f"Cookie: session={token}")
            assert one.seen("cookie") == []

    async def test_a_query_token_stops_here_and_the_other_parameters_do_not(self, tmp_path: Path) -> None:
        token = token_for()
        async with house(tmp_path, stripe=False, auth="  token_from: [query:key]", upstream_settings=self.STOPS) as one:
            for query, left in (
                (f"?a=%41&key={token}&&b", "?a=%41&&b"),
                (f"?key={token}", ""),
                (f"?%6bey={token}&z=1", "?z=1"),
            ):
                assert (await one.raw_get(f"/mine{query}")).status == 200
                assert one.last().received.startswith(f"GET /mine{left} HTTP/1.1".encode())

    async def test_it_stops_on_public_routes_and_preflights_too(self, tmp_path: Path) -> None:
        places = "  token_from: [header, cookie:session, query:key]"
        async with house(tmp_path, stripe=False, auth=places, upstream_settings=self.STOPS) as one:
            for path, *headers in (
                ("/open/x?key=SECRET", "Cookie: session=SECRET", "Authorization: Bearer SECRET"),
                (
                    "/pro/x?key=SECRET",
                    "Cookie: session=SECRET",
                    "Origin: https://a.test",
                    "Access-Control-Request-Method: GET",
                ),
            ):
                lines = [f"OPTIONS {path} HTTP/1.1", "Host: a", *headers, "Connection: close", "", ""]
                assert (await one.raw("\r\n".join(lines).encode())).status == 200
                assert b"SECRET" not in one.last().received


class TestForwardTokenTrue:
    """In a header the credential goes on; in a cookie or the query it would be kept and repeated, and stops (0011)."""

    PLACES: Final = "  token_from: [header, cookie:session, query:key]"

    async def test_a_header_token_goes_on_and_nothing_else_is_touched(self, tmp_path: Path) -> None:
        token = token_for()
        async with house(tmp_path, stripe=False, auth=self.PLACES) as one:
            lines = (f"Authorization: Bearer {token}", "Cookie: a = b;;c", "Cookie: ;")
            assert (await one.raw_get("/mine?&a=%2f&&b=+", *lines)).status == 200
            assert one.seen("authorization") == [f"Bearer {token}"]
            assert one.seen("cookie") == ["a = b;;c", ";"]
            assert one.last().received.startswith(b"GET /mine?&a=%2f&&b=+ HTTP/1.1")

    async def test_a_cookie_token_goes_no_further_than_this(self, tmp_path: Path) -> None:
        token = token_for()
        async with house(tmp_path, stripe=False, auth=self.PLACES) as one:
            assert (await one.raw_get("/mine?x=%41", f"Cookie: a=1; session={token}; b=2")).status == 200
            assert one.seen("cookie") == ["a=1; b=2"]
            assert one.seen("x-gateway-customer") == ["alice"]
            assert one.last().received.startswith(b"GET /mine?x=%41 HTTP/1.1")
            assert token.encode() not in one.last().received

    async def test_a_query_token_goes_no_further_than_this(self, tmp_path: Path) -> None:
        token = token_for()
        async with house(tmp_path, stripe=False, auth=self.PLACES) as one:
            for query, left in (
                (f"?a=%41&key={token}&&b", "?a=%41&&b"),
                (f"?key={token}", ""),
                (f"?%6bey={token}&z=1", "?z=1"),
                (f"?key={token}&key={token}", ""),
            ):
                assert (await one.raw_get(f"/mine{query}")).status == 200
                assert one.last().received.startswith(f"GET /mine{left} HTTP/1.1".encode())
                assert token.encode() not in one.last().received

    async def test_one_token_in_every_place_goes_on_in_the_header_alone(self, tmp_path: Path) -> None:
        token = token_for()
        async with house(tmp_path, stripe=False, auth=self.PLACES) as one:
            lines = (f"Authorization: Bearer {token}", f"Cookie: session={token}")
            assert (await one.raw_get(f"/mine?key={token}", *lines)).status == 200
            assert one.last().received.count(token.encode()) == 1

    async def test_where_nobody_looked_for_a_token_the_bytes_are_the_apis_own(self, tmp_path: Path) -> None:
        async with house(tmp_path, stripe=False, auth=self.PLACES) as one:
            assert (await one.raw_get("/open/x?key=THEIRS", "Cookie: session=THEIRS")).status == 200
            assert one.seen("cookie") == ["session=THEIRS"]
            assert one.last().received.startswith(b"GET /open/x?key=THEIRS HTTP/1.1")

    async def test_a_place_that_only_one_issuer_names_is_cleared_too(self, tmp_path: Path) -> None:
        async with house(tmp_path, stripe=False, issuer="      token_from: [cookie:own]") as one:
            assert (await one.raw_get("/mine", f"Cookie: own={token_for()}; a=1")).status == 200
            assert one.seen("cookie") == ["a=1"]
            refused = await one.raw_get("/mine", f"Authorization: Bearer {token_for()}")
            assert (refused.status, refused.one("x-gateway-reason")) == (401, "token_invalid")


async def test_the_secret_headers_of_an_upstream_replace_the_callers(tmp_path: Path) -> None:
    settings = '    headers: {Authorization: "Bearer of-the-upstream", X-Api-Key: k1}'
    async with house(tmp_path, stripe=False, upstream_settings=settings) as one:
        assert (await one.get("/mine", token_for(), headers={"x-api-key": "mine"})).status_code == 200
        assert one.seen("authorization") == ["Bearer of-the-upstream"]
        assert one.seen("x-api-key") == ["k1"]


async def test_when_the_lookup_fails_only_the_routes_that_depend_on_it_refuse(at: House) -> None:
    async def gone(_customer: str) -> Any:
        raise OSError("the ledger is gone")

    at.process.gateway._resolver._read_facts = gone
    for path in ("/mine", "/free"):
        assert (await at.get(path, token_for("bob"))).status_code == 200
        assert at.seen("x-gateway-customer") == ["bob"]
        for absent in ("x-gateway-tier", "x-gateway-features", "x-gateway-status"):
            assert at.seen(absent) == []
    refused = await at.get("/pro/x", token_for("bob"))
    assert (refused.status_code, refused.headers["x-gateway-reason"]) == (503, "entitlement_unavailable")
    assert refused.headers["retry-after"]
    assert (await at.get("/open/x")).status_code == 200


async def test_the_id_of_the_request_reaches_the_upstream(at: House) -> None:
    await at.raw_get("/open/x", "X-Request-Id: mine-1")
    assert at.seen("x-request-id") == ["mine-1"]
    await at.raw_get("/open/x", "X-Request-Id: not plain")
    assert len(at.seen("x-request-id")[0]) == 16


async def test_default_public_forwards_what_no_route_names_and_a_tier_guards_it(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, default="public") as one:
        assert (await one.get("/anything")).status_code == 200
        assert (await one.get("/pro/x")).status_code == 401
    (tmp_path / "second").mkdir()
    async with house(tmp_path / "second", stripe=False, default="pro") as one:
        assert (await one.get("/anything", token_for())).status_code == 402


async def test_a_304_with_a_length_passes_and_the_callers_connection_serves_the_next_request(at: House) -> None:
    said = b'HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: "x"\r\n\r\n'
    async with await RawClient.connect(at.address) as client:
        for answer in (said, PLAIN_ANSWER, said, PLAIN_ANSWER):
            at.answers[0] = answer
            got = await client.ask(b"GET /open/a HTTP/1.1\r\nHost: a\r\n\r\n")
            if answer is said:
                assert (got.status, got.body, got.one("content-length"), got.one("etag")) == (304, b"", "1234", '"x"')
            else:
                assert (got.status, got.body) == (200, b"ok")
    assert at.visit_count() == 4
