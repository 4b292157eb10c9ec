"""Keys that are fetched: rotation, removal, outages and floods, against a real server (A20, A21; docs/design.md, section 8)."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from gateway.credentials import Authenticated, Authenticator, Bounds, KeyState, Unauthenticated
from gateway.credentials import authenticator as authenticator_module
from policies.reasons import Reason
from policies.schema import Auth
from tests.support import tokens
from tests.support.fetched_keys import (
    NEW,
    OLD,
    QUICK_RETRIES,
    Clock,
    issuer,
    loaded,
    reason,
    running,
    settled,
    state,
    token,
    until,
)
from tests.support.jwks_server import JwksServer, Page
from tests.support.tokens import NOW, bearer, claims, sign


async def test_an_issuer_out_of_reach_neither_raises_nor_delays_and_is_found_again(
    server: JwksServer, clock: Clock
) -> None:
    server.serve_keys(OLD)
    await server.close()
    async with running(issuer(server), clock, QUICK_RETRIES) as subject:
        await until(lambda: subject.health()[0].last_error is not None)
        outcome = subject.authenticate(token("old"))
        assert reason(outcome) is Reason.KEYS_UNAVAILABLE
        assert isinstance(outcome, Unauthenticated)
        assert outcome.error is None
        assert state(subject) is KeyState.NEVER_LOADED
        await server.open()
        await loaded(subject)
        assert isinstance(subject.authenticate(token("old")), Authenticated)


async def test_a_request_during_the_first_fetch_may_wait_for_it(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD)
    server.gate.clear()
    async with running(issuer(server), clock) as subject:
        first = subject.authenticate(token("old"))
        assert reason(first) is Reason.KEYS_UNAVAILABLE
        waiting = asyncio.create_task(subject.settle(first, token("old")))
        await until(lambda: server.visits["/jwks"] == 1)
        server.gate.set()
        assert isinstance(await waiting, Authenticated)
    assert server.visits["/jwks"] == 1


async def test_a_request_waits_for_a_fetch_no_longer_than_it_may(
    server: JwksServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator_module, "SETTLE_SECONDS", 0.05)
    server.gate.clear()
    async with running(issuer(server), clock) as subject:
        assert reason(await settled(subject, token("old"))) is Reason.KEYS_UNAVAILABLE
        server.gate.set()


async def test_a_new_key_is_fetched_when_a_token_names_it_and_the_old_one_serves_on(
    server: JwksServer, clock: Clock
) -> None:
    server.serve_keys(OLD)
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        assert isinstance(subject.authenticate(token("old")), Authenticated)
        server.serve_keys(OLD, NEW)
        assert reason(subject.authenticate(token("new"))) is Reason.TOKEN_INVALID
        assert isinstance(await settled(subject, token("new")), Authenticated)
        assert isinstance(subject.authenticate(token("old")), Authenticated)
        assert server.visits["/jwks"] == 2


async def test_a_key_that_replaces_another_one_is_found_where_neither_has_an_id(
    server: JwksServer, clock: Clock
) -> None:
    server.serve_keys(tokens.public_jwk(tokens.ec_key("old")))
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        assert isinstance(subject.authenticate(token("old", kid=None)), Authenticated)
        server.serve_keys(tokens.public_jwk(tokens.ec_key("new")))
        assert isinstance(await settled(subject, token("new", kid=None)), Authenticated)
        assert reason(subject.authenticate(token("old", kid=None))) is Reason.TOKEN_INVALID


async def test_a_removed_key_is_gone_for_remembered_tokens_too(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD, NEW)
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        assert isinstance(subject.authenticate(token("old")), Authenticated)
        server.serve_keys(NEW)
        await settled(subject, token("old", kid="never heard of"))
        assert reason(subject.authenticate(token("old"))) is Reason.TOKEN_INVALID
        assert isinstance(subject.authenticate(token("new")), Authenticated)


async def test_a_set_without_a_usable_key_is_honoured_and_is_the_operators_fault(
    server: JwksServer, clock: Clock
) -> None:
    secret = {"kty": "oct", "k": tokens.b64("s" * 64), "kid": "old", "alg": "HS256"}
    server.serve_keys(OLD)
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        server.serve_keys(secret, {**OLD, "use": "enc"}, tokens.public_jwk(tokens.rsa_key(), "old"), {"kty": "PQ"})
        await settled(subject, token("old", kid="unknown"))
        assert reason(subject.authenticate(token("old"))) is Reason.KEYS_UNAVAILABLE
        (health,) = subject.health()
        assert (health.state, health.keys) == (KeyState.UNUSABLE, 0)
        assert health.last_error is not None
        assert "is a secret, and one that is published" in health.last_error
        clock.at += 60
        server.serve_keys(OLD)
        assert isinstance(await settled(subject, token("old")), Authenticated)


async def test_an_unchanged_set_is_the_same_set_so_that_remembered_tokens_stay(
    server: JwksServer, clock: Clock
) -> None:
    server.serve_keys(OLD, NEW, headers={"Cache-Control": "public, max-age=0"})
    async with running(issuer(server), clock, Bounds(refresh_least=0.01)) as subject:
        await loaded(subject)
        (remote,) = subject._remote
        before = remote.current(NOW)
        seen = server.visits["/jwks"]
        await until(lambda: server.visits["/jwks"] >= seen + 2)
        assert remote.current(NOW) is before


async def test_the_last_good_set_serves_on_through_an_outage_but_not_for_ever(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD, headers={"Cache-Control": "max-age=0"})
    bounds = Bounds(refresh_least=0.02, retry_first=0.02, retry_most=0.02, max_stale=3600)
    async with running(issuer(server), clock, bounds) as subject:
        await loaded(subject)
        long_lived = token("old", exp=NOW + 90_000)
        assert isinstance(subject.authenticate(long_lived), Authenticated)
        server.pages["/jwks"] = Page(status=503)
        await until(lambda: state(subject) is KeyState.STALE)
        (health,) = subject.health()
        assert (health.failing_since, health.fetched_at) == (NOW, NOW)
        assert health.last_error == "key set was answered with 503"
        clock.at = NOW + 3600
        assert isinstance(subject.authenticate(long_lived), Authenticated)
        assert isinstance(subject.authenticate(token("old", exp=NOW + 90_001)), Authenticated)
        clock.at = NOW + 3601
        assert reason(subject.authenticate(long_lived)) is Reason.KEYS_UNAVAILABLE
        assert state(subject) is KeyState.EXPIRED
        server.serve_keys(OLD)
        await loaded(subject)
        assert isinstance(subject.authenticate(long_lived), Authenticated)


async def test_a_flood_of_unknown_key_ids_causes_one_fetch_per_cooldown(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD)
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        good = token("old")
        forged = sign(claims(), tokens.ec_key("mallory"), "ES256", kid="0").split(".")
        for number in range(1000):
            clock.at = NOW + number / 100
            forged[0] = tokens.b64({"alg": "ES256", "kid": str(number)})
            outcome = await settled(subject, bearer(".".join(forged)))
            assert reason(outcome) is Reason.TOKEN_INVALID
            assert isinstance(subject.authenticate(good), Authenticated)
        assert server.visits["/jwks"] == 2
        clock.at = NOW + 31
        await settled(subject, bearer(".".join(forged)))
        assert server.visits["/jwks"] == 3


async def test_requests_at_one_time_share_one_fetch(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD)
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        server.serve_keys(NEW)
        outcomes = await asyncio.gather(*(settled(subject, token("new", jti=str(number))) for number in range(50)))
        assert all(isinstance(outcome, Authenticated) for outcome in outcomes)
        assert server.visits["/jwks"] == 2


async def test_a_clock_that_is_set_back_does_not_stop_the_search_for_new_keys(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD)
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        await settled(subject, token("new"))
        server.serve_keys(NEW)
        clock.at = NOW - 86_400
        headers = token("new", iat=NOW - 86_400, exp=NOW)
        assert isinstance(await settled(subject, headers), Authenticated)


async def test_a_wrong_signature_under_a_known_key_id_fetches_nothing(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD)
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        outcome = subject.authenticate(token("mallory", kid="old"))
        assert isinstance(outcome, Unauthenticated)
        assert outcome.awaited is None
        for others in (token("old", iss="https://evil.example.com/"), bearer(sign(claims(), kid="x"))):
            outcome = subject.authenticate(others)
            assert isinstance(outcome, Unauthenticated)
            assert outcome.awaited is None
    assert server.visits["/jwks"] == 1


async def test_a_token_without_key_id_is_tried_with_few_keys_and_not_with_many(
    server: JwksServer, clock: Clock
) -> None:
    strangers = [tokens.public_jwk(tokens.ec_key(f"stranger {number}"), f"s{number}") for number in range(4)]
    server.serve_keys(*strangers[:3], OLD)
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        assert isinstance(subject.authenticate(token("old", kid=None)), Authenticated)
        server.serve_keys(*strangers, OLD)
        await settled(subject, token("old", kid="unknown"))
        assert reason(subject.authenticate(token("old", kid=None))) is Reason.TOKEN_INVALID
        assert isinstance(subject.authenticate(token("old")), Authenticated)


@pytest.mark.parametrize("parameter", ["jku", "x5u", "jwk"])
async def test_a_header_that_points_at_keys_makes_nobody_call_there(
    server: JwksServer, clock: Clock, parameter: str
) -> None:
    server.serve_keys(OLD)
    server.pages["/theirs"] = Page(json.dumps({"keys": [NEW]}).encode())
    async with running(issuer(server), clock) as subject:
        await loaded(subject)
        pointing = sign(claims(), tokens.ec_key("new"), "ES256", kid="new", **{parameter: f"{server.origin}/theirs"})
        assert reason(await settled(subject, bearer(pointing))) is Reason.TOKEN_INVALID
    assert dict(server.visits) == {"/jwks": 1}


async def test_a_fault_of_our_own_does_not_end_the_renewal(
    server: JwksServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A transport that breaks its promise can't be had from a real server."""
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if len(calls) == 1:
            raise RuntimeError("not one of httpx's own")
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps({"keys": [OLD]}).encode()))

    subject = Authenticator(
        Auth(issuers=(issuer(server),)),
        now=clock,
        bounds=QUICK_RETRIES,
        client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)),
    )
    await subject.start()
    try:
        await loaded(subject)
    finally:
        await subject.stop()
    assert "in an unforeseen way" in caplog.text


async def test_a_reload_during_an_outage_begins_with_the_keys_that_were_known(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD)
    async with running(issuer(server), clock) as before:
        await loaded(before)
        await server.close()
        after = Authenticator(Auth(issuers=(issuer(server, audience=("my-api", "more")),)), now=clock)
        after.inherit_keys(before)
        assert isinstance(after.authenticate(token("old")), Authenticated)
        clock.at = NOW + Bounds().max_stale + 1
        assert reason(after.authenticate(token("old", exp=NOW + 10**6))) is Reason.KEYS_UNAVAILABLE


async def test_keys_are_not_inherited_from_another_place_or_for_other_algorithms(
    server: JwksServer, clock: Clock
) -> None:
    server.serve_keys(OLD)
    async with running(issuer(server), clock) as before:
        await loaded(before)
        for changed in (
            issuer(server, jwks_url=f"{server.origin}/other"),
            issuer(server, algorithms=("ES256", "RS256")),
        ):
            after = Authenticator(Auth(issuers=(changed,)), now=clock)
            after.inherit_keys(before)
            assert reason(after.authenticate(token("old"))) is Reason.KEYS_UNAVAILABLE


async def test_starting_twice_and_stopping_twice_changes_nothing(server: JwksServer, clock: Clock) -> None:
    server.serve_keys(OLD)
    subject = Authenticator(Auth(issuers=(issuer(server),)), now=clock)
    await subject.stop()
    await subject.start()
    await subject.start()
    await loaded(subject)
    await subject.stop()
    await subject.stop()
    assert server.visits["/jwks"] == 1
    assert isinstance(subject.authenticate(token("old")), Authenticated)
    outcome = subject.authenticate(token("new"))
    assert isinstance(outcome, Unauthenticated)
    assert outcome.awaited is None


async def test_stopping_in_the_middle_of_a_fetch_ends_it_and_whoever_waits(server: JwksServer, clock: Clock) -> None:
    server.gate.clear()
    subject = Authenticator(Auth(issuers=(issuer(server),)), now=clock)
    await subject.start()
    await until(lambda: server.visits["/jwks"] == 1)
    waiting = asyncio.create_task(settled(subject, token("old")))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await subject.stop()
        assert reason(await waiting) is Reason.KEYS_UNAVAILABLE
