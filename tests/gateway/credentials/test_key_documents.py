"""What counts as a good answer of an issuer: discovery, key sets, their age, and everything that is none of these."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from gateway.credentials import Authenticated, Bounds, KeyState, key_documents
from gateway.credentials.jwks import RemoteKeys
from gateway.credentials.key_documents import MOST_KEYS, Place
from policies.reasons import Reason
from tests.support.fetched_keys import NEW, OLD, Clock, issuer, loaded, reason, running, settled, state, token, until
from tests.support.jwks_server import JwksServer, Page
from tests.support.tokens import NOW

BAD_PAGES: dict[str, tuple[Page, str]] = {
    "a redirect": (Page(status=302, headers={"Location": "/elsewhere"}), "answered with 302"),
    "a permanent redirect": (Page(status=308, headers={"Location": "/elsewhere"}), "answered with 308"),
    "no such page": (Page(status=404), "answered with 404"),
    "an empty success": (Page(status=204, headers={"Content-Length": "0"}), "answered with 204"),
    "no body": (Page(), "is not JSON"),
    "HTML": (Page(b"<html>Sign in to the Wi-Fi</html>"), "is not JSON"),
    "a list": (Page(b"[]"), "is not a JSON object"),
    "no keys": (Page(b"{}"), "has no list 'keys'"),
    "keys as an object": (Page(b'{"keys": {}}'), "has no list 'keys'"),
    "two lists of keys": (Page(b'{"keys": [], "keys": []}'), "names a member twice"),
    "too many keys": (Page(json.dumps({"keys": [{}] * (MOST_KEYS + 1)}).encode()), "more than 100 keys"),
    "more than a mebibyte": (Page(b'{"keys": []' + b" " * (1 << 20) + b"}"), "is larger than 1048576 bytes"),
    "a compressed body": (Page(gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}), "came compressed"),
    "half a body": (Page(b'{"keys": []}', headers={"Content-Length": "100"}), "could not be fetched"),
    "deep nesting": (Page(b'{"keys": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "is nested too deeply"),
    "an answer too late": (Page(b"{}", delay=5), "gave no whole answer"),
    "an answer that drips": (Page(b" " * 1000, drip=0.02), "gave no whole answer"),
}


@pytest.mark.parametrize("fault", BAD_PAGES)
async def test_a_bad_answer_is_a_failure_that_leaves_the_last_good_set_in_force(
    server: JwksServer, clock: Clock, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, message = BAD_PAGES[fault]
    server.serve_keys(OLD)
    server.pages["/elsewhere"] = Page(json.dumps({"keys": [NEW]}).encode())
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        # Short only where the wait is the point: a busy machine must not turn another fault into this one.
        monkeypatch.setattr(key_documents, "VISIT_SECONDS", 0.3 if message == "gave no whole answer" else 5.0)
        server.pages["/jwks"] = page
        assert reason(await settled(subject, token("new"))) is Reason.TOKEN_INVALID
        await until(lambda: state(subject) is KeyState.STALE)
        assert message in (subject.health()[0].last_error or "")
        assert isinstance(subject.authenticate(token("old", jti="another")), Authenticated)
    assert server.visits["/elsewhere"] == 0


async def test_keys_that_can_not_be_used_leave_the_others_in_force(server: JwksServer, clock: Clock) -> None:
    server.pages["/jwks"] = Page(json.dumps({"keys": [7, None, {}, {**NEW, "x": "?"}, OLD]}).encode())
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        assert isinstance(subject.authenticate(token("old")), Authenticated)
        assert subject.health()[0].keys == 1


async def test_a_set_is_fetched_again_when_its_age_is_reached(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD, headers={"Cache-Control": "public, max-age=3600", "Age": "3600"})
    async with running(issuer(server), clock, Bounds(refresh_least=0.02)):
        await until(lambda: server.visits["/jwks"] >= 3)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 600),
        ({"Cache-Control": "no-store"}, 60),
        ({"Cache-Control": "private, No-Cache"}, 60),
        ({"Cache-Control": "max-age=7200, no-cache"}, 60),
        ({"Cache-Control": "no-store,max-age=7200", "Expires": "Fri, 27 Nov 2026 12:00:00 GMT"}, 60),
        ({"Cache-Control": 'no-cache="Set-Cookie", max-age=7200'}, 7200),
        ({"Cache-Control": "no-storerooms"}, 600),
        ({"Expires": "Fri, 27 Nov 2026 12:00:00 GMT", "Date": "Fri, 27 Nov 2026 10:00:00 GMT"}, 7200),
        ({"Expires": "Fri, 27 Nov 2026 12:00:00 GMT", "Date": "Fri, 27 Nov 2026 10:00:00 GMT", "Age": "200"}, 7000),
        ({"Expires": "Fri, 27 Nov 2026 12:00:00 GMT", "Date": "Sat, 28 Nov 2026 10:00:00 GMT"}, 60),
        ({"Expires": "Fri, 27 Nov 9999 12:00:00 GMT", "Date": "Fri, 27 Nov 2026 10:00:00 GMT"}, 86_400),
        ({"Expires": "Fri, 27 Nov 2026 12:00:00 GMT"}, 60),
        ({"Expires": "0", "Date": "Fri, 27 Nov 2026 10:00:00 GMT"}, 60),
        ({"Expires": "Fri, 27 Nov 2026 99:00:00 GMT", "Date": "Fri, 27 Nov 2026 10:00:00 GMT"}, 60),
        ({"Expires": "Mon, 01 Jan 0001 00:00:00 -2359", "Date": "Fri, 27 Nov 2026 10:00:00 GMT"}, 60),
        ({"Expires": "0", "Cache-Control": "max-age=7200"}, 7200),
        ({"Cache-Control": "max-age=7200"}, 7200),
        ({"Cache-Control": 'public, Max-Age="7200"'}, 7200),
        ({"Cache-Control": "max-age=7200,public", "Age": "200"}, 7000),
        ({"Cache-Control": "max-age=7200", "Age": "99999"}, 60),
        ({"Cache-Control": "max-age=7200", "Age": "soon"}, 7200),
        ({"Cache-Control": "max-age=0"}, 60),
        ({"Cache-Control": "max-age=999999999"}, 86_400),
        ({"Cache-Control": "max-age=9999999999999"}, 600),
        ({"Cache-Control": "max-age=-1"}, 600),
        ({"Cache-Control": "s-max-age=7"}, 600),
    ],
)
def test_the_age_of_a_set_follows_the_cache_headers_within_bounds(headers: dict[str, str], seconds: float) -> None:
    keys = RemoteKeys(Place("https://a/", "https://a/jwks"), frozenset(), now=lambda: NOW, bounds=Bounds())
    assert keys._due_in(key_documents._max_age(httpx.Headers(headers))) == seconds


async def test_discovery_leads_to_the_keys(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD)
    server.serve_discovery(f"{server.origin}/")
    entry = issuer(server, issuer=f"{server.origin}/", discovery=True)
    async with running(entry, clock) as subject:
        await loaded(subject)
        assert isinstance(subject.authenticate(token("old", iss=f"{server.origin}/")), Authenticated)
    assert dict(server.visits) == {"/.well-known/openid-configuration": 1, "/jwks": 1}


@pytest.mark.parametrize(
    ("named", "jwks_uri", "message"),
    [
        ("https://evil.example.com/", None, "is not of"),
        ("without the slash", None, "is not of"),
        ("itself", "http://keys.example.com/jwks", "has no 'jwks_uri' that is an https URL"),
        ("itself", "file:///etc/passwd", "has no 'jwks_uri' that is an https URL"),
        ("itself", "https://user:password@keys.example.com/jwks", "has no 'jwks_uri' that is an https URL"),
        ("itself", "https://", "has no 'jwks_uri' that is an https URL"),
        ("itself", "https://[::1", "has no 'jwks_uri' that is an https URL"),
        ("itself", "//keys.example.com/jwks", "has no 'jwks_uri' that is an https URL"),
    ],
)
async def test_a_discovery_document_that_is_not_the_issuers_is_a_failure(
    server: JwksServer, clock: Clock, named: str, jwks_uri: str | None, message: str
) -> None:
    own = f"{server.origin}/"
    server.serve_keys(OLD)
    server.serve_discovery({"itself": own, "without the slash": server.origin}.get(named, named), jwks_uri)
    async with running(issuer(server, issuer=own, discovery=True), clock) as subject:
        await until(lambda: subject.health()[0].last_error is not None)
        assert message in (subject.health()[0].last_error or "")
    assert server.visits["/jwks"] == 0


async def test_no_cookie_and_no_demand_for_compression_is_sent(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD, headers={"Set-Cookie": "a=b; Path=/", "Cache-Control": "max-age=0"})
    async with running(issuer(server), clock, Bounds(refresh_least=0.01)) as subject:
        await loaded(subject)
        await until(lambda: server.visits["/jwks"] >= 3)
    assert all(b"cookie" not in head.lower() for head in server.request_heads)
    assert all(b"accept-encoding: identity" in head.lower() for head in server.request_heads)
