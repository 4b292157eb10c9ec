"""`/_gateway/keys` and what a key opens, on a whole gateway: one customer by token and by key, and nobody's key in sight."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from admin.key_use import KeyUse
from policies.api_key import KEY_PATTERN, make_key
from policies.reasons import ANSWERS, Reason
from tests.support.house import house, token_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from tests.support.house import House

KEYS = "  api_keys: {enabled: true}\n"
DAY = 86_400


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, stripe=False, auth=KEYS) as opened:
        yield opened


def refused(answer: httpx.Response, reason: Reason) -> str:
    assert (answer.status_code, answer.headers.get("x-gateway-reason")) == (ANSWERS[reason].status, reason.value), (
        answer.text
    )
    detail: str = answer.json()["detail"]
    return detail


async def make(one: House, customer: str = "alice", **body: Any) -> dict[str, Any]:
    token = token_for(customer, scope=" ".join(body.get("scopes", ())))
    answer = await one.post("/_gateway/keys", token, json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def keys_of(one: House, customer: str = "alice") -> list[dict[str, Any]]:
    answer = await one.get("/_gateway/keys", token_for(customer))
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["keys"]
    return listed


async def test_a_key_leads_to_the_same_customer_and_the_same_decision_as_their_token(one: House) -> None:
    made = await make(one)
    await one.grant("alice", "pro")
    await one.until(200, "/pro/x", token_for())
    for path in ("/mine", "/free", "/pro/x", "/read", "/write", "/export", "/ent", "/gold", "/nowhere"):
        by_token = await one.get(path, token_for())
        told = [one.seen(f"x-gateway-{name}") for name in ("customer", "tier", "features", "status")]
        by_key = await one.get(path, made["key"])
        by_header = await one.get(path, headers={"X-API-Key": made["key"]})
        seen = {
            (answer.status_code, answer.headers.get("x-gateway-reason")) for answer in (by_token, by_key, by_header)
        }
        assert len(seen) == 1, (path, seen)
        if by_token.status_code == 200:
            assert told == [one.seen(f"x-gateway-{name}") for name in ("customer", "tier", "features", "status")]
    assert (await one.get("/_gateway/me", made["key"])).json() == (await one.get("/_gateway/me", token_for())).json()


async def test_a_402_for_a_key_has_the_link_of_its_customer(one: House) -> None:
    made = await make(one)
    answer = await one.get("/pro/x", made["key"])
    assert refused(answer, Reason.TIER_REQUIRED)
    assert "alice" in (await one.http.get(answer.json()["pay_url"])).text


async def test_a_new_key_is_shown_once_and_found_by_scanners(one: House) -> None:
    made = await make(one, name="ci", expires="90d", scopes=["reports:read"])
    assert re.fullmatch(KEY_PATTERN, made["key"])
    assert made["id"] == made["key"][:15]
    (listed,) = await keys_of(one)
    assert "key" not in listed
    assert made["key"][16:] not in json.dumps(await keys_of(one))
    assert (listed["name"], listed["status"], listed["scopes"]) == ("ci", "active", ["reports:read"])
    assert 0 <= listed["expires_at"] - 90 * DAY - listed["created_at"] <= 1
    assert not listed.keys() & {"created_by", "revoked_by", "digest", "customer"}


async def test_a_revoked_key_is_401_at_once_and_the_others_go_on(one: House) -> None:
    first, second = await make(one), await make(one)
    for made in (first, second):
        assert (await one.get("/mine", made["key"])).status_code == 200
    answer = await one.post(f"/_gateway/keys/{first['id']}/revoke", token_for())
    assert answer.json() == {"revoked": True}
    gone = await one.get("/mine", first["key"])
    assert "revoked" in refused(gone, Reason.TOKEN_INVALID)
    assert gone.headers["www-authenticate"].startswith('Bearer realm="gateway", error="invalid_token"')
    assert (await one.get("/mine", second["key"])).status_code == 200
    again = await one.post(f"/_gateway/keys/{first['id']}/revoke", token_for())
    assert "not in force" in refused(again, Reason.BAD_REQUEST)
    assert [key["status"] for key in await keys_of(one)].count("revoked") == 1


async def test_no_key_reaches_further_than_the_token_that_made_or_rotated_it(one: House) -> None:
    answer = await one.post("/_gateway/keys", token_for(scope="a"), json={"scopes": ["a", "b"]})
    assert "'b'" in refused(answer, Reason.SCOPE_MISSING)
    assert await keys_of(one) == []
    made = await make(one, scopes=["a", "b"])
    rotated = await one.post(f"/_gateway/keys/{made['id']}/rotate", token_for(scope="a"))
    assert "'b'" in refused(rotated, Reason.SCOPE_MISSING)
    assert [key["status"] for key in await keys_of(one)] == ["active"]


async def test_rotation_keeps_both_for_the_overlap(one: House) -> None:
    old = await make(one, name="ci", scopes=["a"])
    token = token_for(scope="a b")
    answer = await one.post(f"/_gateway/keys/{old['id']}/rotate", token, json={"overlap": "1h"})
    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert (new["name"], new["scopes"]) == ("ci", ["a"])
    for key in (old["key"], new["key"]):
        assert (await one.get("/mine", key)).status_code == 200
    before = next(key for key in await keys_of(one) if key["id"] == old["id"])
    assert (before["status"], before["replaced_by"]) == ("rotated", new["id"])
    assert 3590 <= before["expires_at"] - time.time() <= 3600
    twice = await one.post(f"/_gateway/keys/{old['id']}/rotate", token, json={})
    assert new["id"] in refused(twice, Reason.BAD_REQUEST)
    at_once = await one.post(f"/_gateway/keys/{new['id']}/rotate", token, json={"overlap": "0s"})
    assert at_once.status_code == 201
    refused(await one.get("/mine", new["key"]), Reason.TOKEN_EXPIRED)


async def test_a_key_of_somebody_else_is_no_key_at_all(one: House) -> None:
    made = await make(one, "alice")
    for what in ("revoke", "rotate"):
        foreign = await one.post(f"/_gateway/keys/{made['id']}/{what}", token_for("mallory"))
        unknown = await one.post(f"/_gateway/keys/gw_{'0' * 12}/{what}", token_for("mallory"))
        assert refused(foreign, Reason.NO_ROUTE).replace(made["id"], "") == refused(unknown, Reason.NO_ROUTE).replace(
            f"gw_{'0' * 12}", ""
        )
    assert await keys_of(one, "mallory") == []
    assert (await one.get("/mine", made["key"])).status_code == 200


async def test_a_key_makes_no_keys_and_opens_no_portal(one: House) -> None:
    made = await make(one)
    for headers in ({"Authorization": f"Bearer {made['key']}"}, {"X-API-Key": made["key"]}):
        for method, path in (
            ("GET", "/_gateway/keys"),
            ("POST", "/_gateway/keys"),
            ("POST", f"/_gateway/keys/{made['id']}/rotate"),
            ("POST", f"/_gateway/keys/{made['id']}/revoke"),
            ("POST", "/_gateway/portal"),
            ("GET", "/_gateway/%6beys"),
        ):
            refused(await one.ask(method, path, headers=headers), Reason.FORBIDDEN)
    refused(await one.get("/_gateway/keys"), Reason.TOKEN_MISSING)
    assert (await one.get("/mine", made["key"])).status_code == 200


@pytest.mark.parametrize(
    "path", ["/_gateway/keys/", "/_gateway/keys/x", "/_gateway/keys//revoke", "/_gateway/keys/x/y", "/_gateway/keysx"]
)
async def test_what_is_near_the_endpoints_is_nothing(one: House, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = await one.ask(method, path, token_for())
        assert answer.status_code in {400, 404, 405}, (method, answer.text)


async def test_a_malformed_request_is_a_sentence_and_makes_no_key(one: House) -> None:
    for body in (
        "[]", "7", "null", '"x"', "{", "\\", '{"nam": "x"}', '{"name": 7}', '{"name": "a\\nb"}', '{"name": "\\ud800"}',
        '{"\\ud800": 1}', '{"expires": "yesterday"}', '{"expires": "2001-01-01"}', '{"expires": ""}', '{"scopes": []}',
        '{"scopes": "a"}', '{"scopes": [1]}', '{"scopes": ["a b"]}', '{"scopes": ["a", "a"]}', '{"scopes": null}',
        '{"overlap": "1h"}', f'{{"name": "{"x" * 101}"}}', "[" * 60000,
    ):  # fmt: skip
        answer = await one.post("/_gateway/keys", token_for(), content=body.encode())
        refused(answer, Reason.BAD_REQUEST)
    refused(await one.post("/_gateway/keys", token_for(), content=b" " * 70_000), Reason.BODY_TOO_LARGE)
    assert await keys_of(one) == []
    made = await make(one)
    for overlap in ("31d", "x", "-1s", "1", "é"):
        answer = await one.post(f"/_gateway/keys/{made['id']}/rotate", token_for(), json={"overlap": overlap})
        refused(answer, Reason.BAD_REQUEST)
    for key in ("x", "gw_", made["id"] + "x", "é" * 54, "gw_" + "0" * 51):
        refused(await one.post(f"/_gateway/keys/{key}/revoke", token_for()), Reason.NO_ROUTE)
    assert len(await keys_of(one)) == 1


async def test_a_blocked_customer_gets_403_with_a_key_and_no_new_one(one: House) -> None:
    made = await make(one)
    assert (await one.get("/mine", made["key"])).status_code == 200
    await one.operate("POST", "/api/block/alice", json={"reason": "a test"})
    refused(await one.until(403, "/mine", made["key"]), Reason.BLOCKED)
    refused(await one.post("/_gateway/keys", token_for(), json={}), Reason.BLOCKED)
    refused(await one.post(f"/_gateway/keys/{made['id']}/rotate", token_for()), Reason.BLOCKED)
    assert (await one.post(f"/_gateway/keys/{made['id']}/revoke", token_for())).status_code == 200


async def test_two_credentials_are_400_and_reach_nobody(one: House) -> None:
    first, second = (await make(one))["key"], (await make(one))["key"]
    visits = one.visit_count()
    refused(await one.get("/mine", token_for(), headers={"X-API-Key": first}), Reason.BAD_REQUEST)
    refused(await one.get("/mine", first, headers={"X-API-Key": second}), Reason.BAD_REQUEST)
    refused(await one.get("/_gateway/me", token_for(), headers={"X-API-Key": first}), Reason.BAD_REQUEST)
    answer = await one.raw_get("/mine", f"X-API-Key: {first}", f"X_API_Key: {first}")
    assert answer.status == 400
    assert one.visit_count() == visits
    assert (await one.get("/mine", first, headers={"X-API-Key": first})).status_code == 200


async def test_the_key_stops_here_where_the_upstream_shall_not_have_it(tmp_path: Path) -> None:
    settings = "    forward_token: false\n"
    async with house(tmp_path, stripe=False, auth=KEYS, upstream_settings=settings) as one:
        key = (await make(one))["key"]
        for path in ("/mine", "/open/x"):
            for headers in (
                [f"X-API-Key: {key}"],
                [f"x_api_key: {key}"],
                [f"Authorization: Bearer {key}"],
                [f"X-API-Key: {key}", f"Authorization: Bearer {key}"],
            ):
                assert (await one.raw_get(path, *headers, "X-Other: kept")).status == 200
                assert key.encode() not in one.last().received
                assert one.seen("x-other") == ["kept"]


async def test_without_the_ledger_a_known_key_goes_on_and_an_unknown_one_is_503(one: House) -> None:
    known, unseen = (await make(one))["key"], (await make(one))["key"]
    assert (await one.get("/free", known)).status_code == 200
    one.lose_the_ledger()
    assert (await one.get("/free", known)).status_code == 200
    for key in (unseen, make_key(lambda _below: 7).text):
        answer = await one.get("/mine", key)
        refused(answer, Reason.KEYS_UNAVAILABLE)
        assert answer.headers["retry-after"]
    refused(await one.get("/mine", "gw_garbage"), Reason.TOKEN_INVALID)
    refused(await one.post("/_gateway/keys", token_for(), json={}), Reason.KEYS_UNAVAILABLE)
    refused(await one.get("/_gateway/keys", token_for()), Reason.KEYS_UNAVAILABLE)


async def test_no_key_and_no_hash_stands_anywhere_it_may_not(
    one: House,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A handler of another test's would write to stderr what the client of this test says at DEBUG: whole URLs.
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    caplog.set_level(0)
    made = await make(one, name="ci")
    key = made["key"]
    answers = [
        await one.get("/mine", key),
        await one.get("/pro/x", headers={"X-API-Key": key}),
        await one.get("/mine", key[:-1] + ("0" if key[-1] != "0" else "1")),
        await one.get("/mine", key, headers={"X-API-Key": key + "x"}),
        await one.get("/_gateway/keys", key),
        await one.get("/_gateway/keys", token_for()),
        await one.get(f"/nowhere/{key}"),
        await one.get(f"/mine?api_key={key}&token={key}"),
        await one.get("/mine", headers={"Cookie": f"token={key}; session={key}"}),
        await one.get(f"/pro/{key}", token_for()),
        await one.get(f"/_gateway/keys/{key}", token_for()),
        await one.post(f"/_gateway/keys/{key}/revoke", token_for()),
        await one.get("/mine", key),
        await one.operate("GET", "/api/keys/alice"),
        await one.operate("GET", "/api/customers/alice"),
    ]
    assert answers[11].status_code == 200
    ours = [record.getMessage() for record in caplog.records if record.name.partition(".")[0] in {"gateway", "admin"}]
    said = "\n".join(
        [
            *(answer.text + str(answer.headers) for answer in answers),
            json.dumps(one.log()),
            await one.metrics(),
            *ours,
        ]
    ) + "".join(capfd.readouterr())
    assert key[16:48] not in said
    assert made["id"] in said
    with sqlite3.connect(one.ledger) as ledger:
        digests = [row[0] for row in ledger.execute("select digest from api_keys")]
        dump = "\n".join(ledger.iterdump())
    assert len(digests) == 1
    assert digests[0] not in said
    assert key[16:48] not in dump


async def test_when_a_key_was_last_used_is_written_down_after_the_request(one: House) -> None:
    made = await make(one)
    await one.get("/mine", made["key"])
    (listed,) = await keys_of(one)
    assert listed["last_used_at"] is None
    (job,) = [task for task in asyncio.all_tasks() if task.get_name() == "key use"]
    assert not job.done()
    authenticator = one.process.gateway.plan.authenticator
    assert authenticator._api_keys is not None
    ledger = authenticator._api_keys._read.__self__  # type: ignore[attr-defined]
    await KeyUse(authenticator._api_keys, ledger, seconds=300).write()
    (listed,) = await keys_of(one)
    assert abs(listed["last_used_at"] - time.time()) < 30


async def test_where_keys_are_off_there_are_none(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False) as one:
        for method in ("GET", "POST"):
            assert "no API keys" in refused(await one.ask(method, "/_gateway/keys", token_for()), Reason.NO_ROUTE)
        made = await one.operate("POST", "/api/keys/alice", json={})
        assert made.status_code == 422
        assert "auth.api_keys.enabled" in made.text
        refused(await one.get("/mine", make_key(lambda _below: 1).text), Reason.TOKEN_INVALID)
        assert (await one.get("/mine", token_for(), headers={"X-API-Key": "upstreams own"})).status_code == 200
        assert one.seen("x-api-key") == ["upstreams own"]


async def test_keys_work_without_any_issuer(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False, auth=KEYS) as one:
        answer = await one.operate("POST", "/api/keys/org%2F7", json={"name": "x"})
        assert answer.status_code == 201, answer.text
        assert (await one.get("/mine", answer.json()["key"])).status_code == 200
        assert one.seen("x-gateway-customer") == ["org/7"]


class TestOfTheOperator:
    async def test_makes_lists_rotates_and_revokes_for_anybody(self, one: House) -> None:
        made = (
            await one.operate("POST", "/api/keys/alice", json={"name": "ci", "expires": "30d", "by": "dora"})
        ).json()
        assert (await one.get("/mine", made["key"])).status_code == 200
        (listed,) = (await one.operate("GET", "/api/keys/alice")).json()
        assert (listed["created_by"], listed["customer"], listed["status"]) == ("dora", "alice", "active")
        assert "key" not in listed
        rotated = (await one.operate("POST", f"/api/key/{made['id']}/rotate", json={"overlap": "0s"})).json()
        refused(await one.get("/mine", made["key"]), Reason.TOKEN_EXPIRED)
        assert (await one.get("/mine", rotated["key"])).status_code == 200
        ended = await one.operate("POST", f"/api/key/{rotated['key']}/revoke", json={})
        assert ended.json() == {"detail": f"{rotated['id']} of alice is revoked."}
        refused(await one.get("/mine", rotated["key"]), Reason.TOKEN_INVALID)

    async def test_ends_all_of_a_customer_at_once(self, one: House) -> None:
        mine = [(await make(one))["key"] for _ in range(3)]
        bobs = (await make(one, "bob"))["key"]
        ended = await one.operate("POST", "/api/revoke-keys/alice", json={})
        assert ended.json() == {"detail": "3 keys of alice revoked."}
        for key in mine:
            refused(await one.get("/mine", key), Reason.TOKEN_INVALID)
        assert (await one.get("/mine", bobs)).status_code == 200
        assert (await one.operate("POST", "/api/revoke-keys/alice", json={})).status_code == 422

    async def test_is_told_what_is_wrong(self, one: House) -> None:
        for path, body, status in (
            ("/api/keys/alice", {"expires": "soon"}, 422),
            ("/api/keys/alice", {"scopes": []}, 422),
            ("/api/keys/alice", {"nam": "x"}, 422),
            ("/api/keys/alice", {"by": "a\nb"}, 422),
            (f"/api/keys/{'x' * 256}", {}, 422),
            ("/api/key/gw_000000000000/revoke", {}, 404),
            ("/api/key/gw_000000000000/rotate", {}, 404),
            ("/api/key/nonsense/revoke", {}, 404),
        ):
            answer = await one.operate("POST", path, json=body)
            assert answer.status_code == status, (path, answer.text)
        assert (await one.operate("GET", f"/api/keys/{'x' * 256}")).json() == []
        assert (await one.operate("GET", "/api/keys/alice", token=None)).status_code == 401
