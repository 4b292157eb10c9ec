"""`/api/explain` against the same gateway's real answers, for requests that nobody chose: routes of every kind, at random."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.gateway.test_explained_is_answered import REQUEST_ID, line_of, links_read
from tests.support.house import PLAIN_ANSWER, house, token_for
from tests.support.upstreams import Visit, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.house import House
    from tests.support.rawclient import RawAnswer

ROUTES: Final = """
  - {path: /open/**, access: public, upstream: api}
  - {path: /mine, access: authenticated, upstream: api}
  - {path: "/pro/{id}", tier: pro, upstream: api}
  - {path: "/pro/{id}", tier: pro, methods: [POST, DELETE], scopes: [w], upstream: api}
  - {path: /pro/admin/**, tier: enterprise, claims: {role: [admin, owner]}, upstream: api}
  - {path: "/repos/{id}", tier: pro, encoded_slash: literal, double_slash: literal, upstream: api}
  - {path: "/repos/admin/**", tier: enterprise, encoded_slash: literal, upstream: api}
  - {path: /cut/**, tier: pro, strip_prefix: /cut, add_prefix: /v2, encoded_slash: literal, double_slash: literal, upstream: api}
  - {path: /cut/free/**, access: public, strip_prefix: /cut/free, upstream: api}
  - {path: /watch/**, tier: pro, enforce: observe, scopes: [w], upstream: api}
  - {path: /part/**, tier: pro, enforce: 50%, upstream: api}
  - {path: /off/**, tier: enterprise, enforce: "off", upstream: api}
  - {path: /body, methods: [POST, PUT], tier: pro, max_body: 10B, upstream: api}
  - {path: /export, tier: pro, features: [export], on_unavailable: allow, upstream: api}
  - {path: /**, host: status.test, access: public, upstream: api}
  - {path: /pro/**, host: a.test, access: authenticated, upstream: api}
  - {path: /exact/Case, tier: pro, spelling: exact, upstream: api}
  - {path: /exact/case, tier: enterprise, spelling: exact, upstream: api}
  - {path: /loose/Open, access: public, spelling: lenient, upstream: api}
  - {path: /other/**, tier: pro, upstream: other}
  - {path: /open/other, access: public, upstream: other}
"""
AUTH: Final = "  token_from: [header, 'cookie:session', 'query:access_token']\n  api_keys: {enabled: true}"
PATHS: Final = (
    "/open/x", "/open/other", "/mine", "/pro/7", "/pro/admin", "/pro/admin/x", "/repos/a", "/repos/a%2Fb", "/repos/admin%2Fx",
    "/repos/admin/x", "/repos/a//b", "/cut/x", "/cut", "/cut/free/x", "/cut/free%2Fx", "/cut/a%2Fb", "/watch/x", "/part/x", "/off/x",
    "/body", "/export", "/exact/Case", "/exact/case", "/loose/Open", "/other/x", "/none", "/_gateway%20/me",
)  # fmt: skip
HOSTS: Final = ("status.test", "a.test", "A.TEST:80", "status.test.", "b.test", "a/b")
QUERIES: Final = ("", "", "", "?a=1", "?", "?access_token=TOK", "?b=1&access%5Ftoken=TOK&access_token=TWO", "?x#y")
CREDENTIALS: Final = (
    "Bearer TOK",
    "Bearer TOK",
    "bearer  TOK",
    "Bearer KEY",
    "Basic abc",
    "Bearer",
    "TOK",
    "Bearer bad",
)
HANDSHAKE: Final = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
KEY_OF_IT: Final = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
ONCE_WRONG: Final[tuple[tuple[str, str, str, dict[str, str]], ...]] = (
    ("HEAD", "/body", "", {"origin": "https://a.test", "access-control-request-method": "POST"}),
    ("GET", "/pro/7", "", HANDSHAKE | KEY_OF_IT | {"cookie": "session=TOK"}),
    ("GET", "/pro/7", "", HANDSHAKE | KEY_OF_IT | {"cookie": "session=TOK", "origin": "https://a.test"}),
    ("GET", "/pro/7", "", HANDSHAKE | {"sec-websocket-key": "short", "authorization": "Bearer TOK"}),
    ("GET", "/watch/x", "", HANDSHAKE | KEY_OF_IT | {"cookie": "session=TOK"}),
    ("GET", "/mine", "", {"authorization": "Bearer"}),
    ("GET", "/x", "status.test", {}),
)
FIELDS: Final[tuple[tuple[float, str, tuple[str, ...]], ...]] = (
    (0.6, "authorization", CREDENTIALS),
    (0.3, "accept", ("text/html", "*/*", "application/json;q=0.1, text/html;q=0.2", "text/html;q=0, */*")),
    (0.15, "origin", ("https://a.test", "https://evil")),
    (0.15, "access-control-request-method", ("GET", "POST", "DELETE", "put")),
    (0.1, "connection", ("x-keep, close", "close, authorization", "x-gateway-tier, close")),
    (0.15, "cookie", ("session=TOK", "a=b; session=TOK; c=d", "session=TOK; session=TWO", "a=1")),
    (0.1, "x-api-key", ("KEY", "gw_bad", "TOK", "")),
    (0.1, "x_gateway.customer", ("root",)),
    (0.1, "content-length", ("0", "5", "11")),
)
APART: Final = {"authorization", "cookie", "x-api-key", "x-secret"}
"""Whose values are masked, where they are shown at all."""
OF_THE_CONNECTION: Final = {"host", "connection", "content-length", "upgrade"}


def drawn(chance: random.Random) -> tuple[str, str, str, dict[str, str]]:
    """A request: method, target, host and fields, with words for the credentials."""
    path = chance.choice(PATHS)
    respelled = (
        str.upper, lambda it: f"{it}/", lambda it: f"{it};v=1", lambda it: it.replace("o", "%6F", 1), lambda it: f"{it}%3F",
        lambda it: it.replace("/", "//", 1), lambda it: f"{it}/..", lambda it: f"http://a.test{it}", lambda it: f"{it}%20",
    )  # fmt: skip
    if chance.random() < 0.3:
        path = chance.choice(respelled)(path)
    fields = {name: chance.choice(values) for odds, name, values in FIELDS if chance.random() < odds}
    method = chance.choice(("GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"))
    if method == "GET" and "content-length" not in fields and chance.random() < 0.15:
        fields |= HANDSHAKE | {"sec-websocket-key": chance.choice(("dGhlIHNhbXBsZSBub25jZQ==", "short"))}
    host = chance.choice(HOSTS) if chance.random() < 0.4 else ""
    return method, path + chance.choice(QUERIES), host, fields


async def asked(at: House, method: str, target: str, fields: dict[str, str]) -> RawAnswer:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if "connection" not in fields:
        lines.append("connection: close")
    body = "x" * int(fields.get("content-length", "0"))
    return await at.raw("\r\n".join([*lines, "", body]).encode(), to_head=method == "HEAD")


def hold_answer(told: dict[str, Any], answer: RawAnswer, *, to_head: bool) -> None:
    shown = told["answer"]
    sent = [(name, links_read(value)) for name, value in answer.headers if name.lower() not in {"date", "connection"}]
    assert [(name, links_read(value)) for name, value in shown["headers"]] == sent
    assert shown["status"] == answer.status
    assert to_head or links_read(shown["body"]) == links_read(answer.body.decode())
    assert told["outcome"] == f"{answer.status} {answer.one('x-gateway-reason')}"


def hold_forwarded(told: dict[str, Any], visit: Visit, secrets: list[str]) -> None:
    def masked(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "********")
        return text

    shown = told["forwarded"]
    assert masked(line_of(visit)) == f"{shown['method']} {shown['target']} HTTP/1.1"
    said = [(name.lower(), value) for name, value in shown["headers"] if name.lower() not in OF_THE_CONNECTION]
    got = [(name, masked(value)) for name, value in visit.headers if name not in OF_THE_CONNECTION]
    assert sorted(name for name, _ in said) == sorted(name for name, _ in got)
    assert [one for one in said if one[0] not in APART] == [one for one in got if one[0] not in APART]
    assert all("********" in value or value == "" for name, value in said if name == "x-secret")


@pytest.mark.parametrize("seed", [1, 32])
async def test_what_nobody_chose_is_explained_as_it_is_answered(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    visits: list[Visit] = []

    async def answering(visit: Visit) -> None:
        visits.append(visit)
        await visit.request()
        await visit.say(PLAIN_ANSWER)

    async with scripted_upstream(answering) as other:
        settings = (
            f"  other:\n    targets: ['{other.url}']\n    forward_token: false\n    headers: {{X-Secret: hush-hush}}"
        )
        async with house(
            tmp_path, stripe=False, routes=ROUTES, auth=AUTH, server="  cors_origins: [https://a.test]",
            script=answering, upstream_settings=settings,
        ) as at:  # fmt: skip
            for name, tier in (("pays", "pro"), ("most", "enterprise"), ("blocked", "enterprise")):
                await at.grant(name, tier)
            await at.operate("POST", "/api/block/blocked", json={"reason": "abuse"})
            made = await at.operate("POST", "/api/keys/pays", json={"name": "w", "scopes": ["w"]})
            key = made.json()["key"]
            tokens = [
                *(token_for(name) for name in ("nothing", "pays", "most", "blocked", "p1", "p2", "p3")),
                token_for("pays", scope="a w"), token_for("most", role="admin", scope="w"),
                token_for("pays", lifetime=-5), token_for("x", aud="no"),
            ]  # fmt: skip
            outcomes: set[str] = set()
            for method, target, host, fields in [*ONCE_WRONG, *(drawn(chance) for _ in range(200))]:
                words = {"TOK": chance.choice(tokens), "TWO": chance.choice(tokens), "KEY": key}

                def filled(text: str, words: dict[str, str] = words) -> str:
                    return re.sub("TOK|TWO|KEY", lambda found: words[found[0]], text)

                sent = {"x-request-id": REQUEST_ID, "host": host or at.api.removeprefix("http://")}
                sent |= {name: filled(value) for name, value in fields.items()}
                asking = {"method": method, "path": filled(target), "headers": sent}
                told = await at.operate("POST", "/api/explain", json=asking)
                assert told.status_code in {200, 422}, asking
                before = len(visits)
                answer = await asked(at, method, filled(target), sent)
                if told.status_code == 422:
                    ends = re.search(r"asked: (\d+) (\w+)", told.json()["detail"])
                    assert ends is not None, (asking, told.text)
                    assert (answer.status, answer.one("x-gateway-reason")) == (int(ends[1]), ends[2]), asking
                    continue
                report = told.json()
                outcomes.add(report["outcome"])
                try:
                    if report["forwarded"] is not None:
                        assert len(visits) == before + 1
                        secrets = sorted({*words.values()}, key=len, reverse=True)
                        hold_forwarded(report, visits[-1], secrets)
                    elif report["outcome"] != "own":
                        assert len(visits) == before
                        hold_answer(report, answer, to_head=method == "HEAD")
                except AssertionError as difference:
                    raise AssertionError(f"{json.dumps(asking)}\n{difference}") from None
    assert len(outcomes) > 10, outcomes
