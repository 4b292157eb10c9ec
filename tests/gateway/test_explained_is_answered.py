"""What `gateway explain` and `GET /api/explain` say is what the running gateway does, byte for byte."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.bootstrap import running
from gateway.cli_explain import explained
from gateway.loading import LoadedFile, load_file
from gateway.rehearsal import OwnAnswer, rehearse
from gateway.serving import CannotStart
from policies.caller import Caller
from policies.explain import Rules
from policies.explain_report import Asking, NotExplained, Report
from policies.facts import CustomerFacts
from policies.reasons import Reason
from policies.schema import SupposedStatus
from policies.signed import Claim, Purpose, verify
from policies.supposed import STATUSES, Supposition, suppose
from policies.verdict import Question, judge
from tests.support.house import OPERATOR_TOKEN, SIGNING_KEY, configuration, house, token_for
from tests.support.ledgers import fresh_sqlite

if TYPE_CHECKING:
    from pathlib import Path

    from policies.routes import RouteTable
    from policies.schema import Config
    from tests.support.house import House
    from tests.support.rawclient import RawAnswer
    from tests.support.upstreams import Visit

REQUEST_ID: Final = "explained-1"
LINK: Final = re.compile(r"/_gateway/pay/([\w.-]+)")

REQUESTS: Final = [
    ("GET", "/open/x?q=%20y", {}),
    ("GET", "/mine", {}),
    ("GET", "/free", {}),
    ("GET", "/pro/x", {}),
    ("GET", "/PRO/x;v=1/", {}),
    ("POST", "/read", {}),
    ("HEAD", "/read", {}),
    ("DELETE", "/write", {}),
    ("PUT", "/write", {}),
    ("GET", "/export", {}),
    ("GET", "/ent", {}),
    ("GET", "/gold", {}),
    ("GET", "/nowhere", {}),
    ("GET", "/pro//x", {}),
    ("GET", "/pro/%2e%2e/ent", {}),
    ("GET", "/ent", {"accept": "text/html"}),
    ("GET", "/ent", {"accept": "text/html;q=0.1, application/json"}),
    ("OPTIONS", "/ent", {"origin": "https://a.test", "access-control-request-method": "GET"}),
    ("OPTIONS", "/ent", {}),
    ("PURGE", "/read", {}),
    ("QUERY", "/open/x", {}),
    ("GET", "/mine", {"x-gateway-tier": "enterprise", "x-forwarded-for": "1.2.3.4", "connection": "x-forwarded-for"}),
]


async def really(at: House, method: str, target: str, headers: dict[str, str], token: str | None) -> RawAnswer:
    """The same request, over the wire."""
    fields = {"x-request-id": REQUEST_ID, **headers}
    if token is not None:
        fields["authorization"] = f"Bearer {token}"
    host = at.api.removeprefix("http://")
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in fields.items())]
    if "connection" not in fields:
        lines.append("connection: close")
    return await at.raw("\r\n".join([*lines, "", ""]).encode(), to_head=method == "HEAD")


def asking(house: House, method: str, target: str, headers: dict[str, str], **who: Any) -> Asking:
    host = house.api.removeprefix("http://")
    return Asking(method, target, host, (("x-request-id", REQUEST_ID), *headers.items()), **who)


def line_of(visit: Visit) -> str:
    """The request line that reached the upstream."""
    return visit.received.split(b"\r\n", 1)[0].decode()


def links_read(text: str) -> str:
    """A payment link by what it says: its end is a second later a second later."""

    def says(link: re.Match[str]) -> str:
        claim = verify(SIGNING_KEY.encode(), Purpose.PAY, link[1], time.time())
        assert isinstance(claim, Claim), claim
        return f"pay {claim.customer} {claim.tier}"

    return LINK.sub(says, text)


def config_of(at: House, directory: Path) -> tuple[Config, RouteTable]:
    loaded = load_file(directory / "gateway.yaml", {})
    assert isinstance(loaded, LoadedFile)
    assert loaded.ready is not None
    return loaded.ready


def hold_equal(report: Report, answer: RawAnswer, at: House, visits_before: int) -> None:
    if report.answer is not None:
        assert at.visit_count() == visits_before, "refused in the report, forwarded in truth"
        shown = [(name, links_read(value)) for name, value in report.answer.headers]
        sent = [
            (name, links_read(value)) for name, value in answer.headers if name.lower() not in {"date", "connection"}
        ]
        assert (report.answer.status, shown) == (answer.status, sent)
        body = "" if report.request.startswith("HEAD ") else report.answer.body
        assert links_read(body) == links_read(answer.body.decode())
        assert report.outcome == f"{answer.status} {answer.one('x-gateway-reason')}"
    else:
        assert report.forwarded is not None
        assert report.outcome == "forward"
        assert at.visit_count() == visits_before + 1, "forwarded in the report, refused in truth"
        visit = at.last()
        assert line_of(visit) == f"{report.forwarded.method} {report.forwarded.target} HTTP/1.1"
        not_said = {"host", "connection", "authorization", "content-length"}
        sent_on = {(name.lower(), value) for name, value in report.forwarded.headers if name not in not_said}
        assert sent_on == {(name, value) for name, value in visit.headers if name not in not_said}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("get", "/open/x"), ("TRACE", "/open/x"), ("CONNECT", "/open/x"), ("GET", "*"), ("GET", "http://a/b"), ("GET", "/a b"),
        ("GET", "nonsense"), ("GET", "/" + "x" * 9000), ("G(T", "/"),
    ],
)  # fmt: skip
async def test_what_never_becomes_a_request_is_said_to_end_at_the_listener_as_it_does(
    tmp_path: Path, method: str, target: str
) -> None:
    async with house(tmp_path, stripe=False) as at:
        told = await explained(*config_of(at, tmp_path), asking(at, method, target, {}))
        answer = await really(at, method, target, {}, None)

    assert isinstance(told, NotExplained)
    assert f"asked: {answer.status} {answer.one('x-gateway-reason')}." in told.detail
    assert at.visit_count() == 0


@pytest.mark.parametrize("customer", [None, "nothing", "granted", "blocked", "over"])
async def test_each_request_is_answered_as_the_command_line_explains_it(tmp_path: Path, customer: str | None) -> None:
    async with house(tmp_path, stripe=False, server="  cors_origins: [https://a.test]") as at:
        await at.grant("granted", "pro")
        await at.grant("over", "enterprise", "1s")
        await at.operate("POST", "/api/block/blocked", json={"reason": "abuse"})
        at.clock.offset = 5.0 if customer == "over" else 0.0
        ready = config_of(at, tmp_path)
        for method, target, headers in REQUESTS:
            asked = asking(at, method, target, headers, customer=customer, at=int(at.clock()) if customer else None)
            report = await explained(*ready, asked)
            assert isinstance(report, Report), report
            before = at.visit_count()
            answer = await really(at, method, target, headers, None if customer is None else token_for(customer))
            hold_equal(report, answer, at, before)


async def test_a_token_is_explained_as_it_is_judged(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False) as at:
        await at.grant("alice", "pro")
        ready = config_of(at, tmp_path)
        for token in (
            token_for("alice"),
            token_for("alice", lifetime=-9),
            token_for("alice", aud="x"),
            "nonsense",
            "a.b.c",
        ):
            for method, target, headers in REQUESTS[:12]:
                fields = {**headers, "authorization": f"Bearer {token}"}
                report = await explained(*ready, asking(at, method, target, fields))
                assert isinstance(report, Report), report
                before = at.visit_count()
                hold_equal(report, await really(at, method, target, headers, token), at, before)


async def test_a_subscriber_is_explained_with_prices_as_they_are_sold(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        await at.buy("alice")
        ready = config_of(at, tmp_path)
        for target in ("/pro/x", "/ent", "/export"):
            report = await explained(*ready, asking(at, "GET", target, {}, customer="alice"))
            assert isinstance(report, Report), report
            before = at.visit_count()
            answer = await really(at, "GET", target, {}, token_for("alice"))
            hold_equal(report, answer, at, before)
        assert '"amount": ' in answer.body.decode() or answer.status == 200


async def test_the_operators_api_explains_what_this_very_gateway_answers(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        await at.buy("alice")
        log_before = len(at.log())
        for method, target, headers in REQUESTS:
            if headers:
                continue  # the API takes none
            params = {"method": method, "path": target, "host": at.api.removeprefix("http://"), "customer": "alice"}
            told = await at.operate("GET", "/api/explain", params=params)
            assert told.status_code == 200, told.text
            report = told.json()
            before = at.visit_count()
            answer = await really(at, method, target, {}, token_for("alice"))
            if report["answer"] is None:
                assert at.visit_count() == before + 1
                assert report["forwarded"]["target"] in line_of(at.last())
            else:
                made_up_id = dict(report["answer"]["headers"])["x-request-id"]
                shown = links_read(report["answer"]["body"].replace(made_up_id, REQUEST_ID))
                assert report["answer"]["status"] == answer.status
                assert method == "HEAD" or shown == links_read(answer.body.decode())
        # Nothing that was explained is in the log or the metrics: only what really came.
        assert len(at.log()) - log_before == sum(not headers for _, _, headers in REQUESTS)


async def test_the_operators_api_says_what_is_wrong_with_a_question(tmp_path: Path) -> None:
    async with house(tmp_path, stripe=False) as at:
        for params, said in (
            ({"path": "/pro/x", "tier": "prp"}, "There is no tier 'prp'"),
            ({"path": "/pro/x", "tier": "pro", "customer": "a"}, "about somebody made up"),
            ({"path": "/pro/x", "at": "soon"}, "'at' is not a time"),
            ({"path": "/pro/x", "tier": "pro", "until": "soon"}, "'until' is not a time"),
            ({"path": "/pro/x", "status": "late"}, "status"),
            ({"path": "/pro/x", "method": "G T"}, "method"),
            ({}, "path"),
        ):
            told = await at.operate("GET", "/api/explain", params=params)
            assert (told.status_code, said in told.text) == (422, True), told.text
        made_up = await at.operate("GET", "/api/explain", params={"path": "/pro/x", "tier": "pro", "status": "expired"})
        assert made_up.json()["outcome"] == "402 subscription_expired"
        stranger = await at.operate("GET", "/api/explain", params={"path": "/pro/x"}, token=None)
        assert stranger.status_code == 401
        assert OPERATOR_TOKEN not in made_up.text


# The pure verdict against the walk: whoever asks, whatever they ask, the two agree.

TARGETS: Final = ["/open/x", "/mine", "/free", "/pro/x", "/PRO/x", "/read", "/write", "/export", "/ent", "/gold", "/x", "/a//b", "/Open/x"]  # fmt: skip


@pytest.fixture(scope="module")
def plan_text() -> str:
    return configuration(public_url="http://127.0.0.1", ledger="LEDGER", upstream="http://127.0.0.1:9", stripe=None)


async def test_the_verdict_is_the_walks(tmp_path: Path, plan_text: str) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(plan_text.replace("LEDGER", fresh_sqlite(tmp_path)), encoding="utf-8")
    loaded = load_file(path, {})
    assert isinstance(loaded, LoadedFile)
    assert loaded.ready is not None, loaded.diagnostics
    config, table = loaded.ready
    async with running(config, table, time.time) as process:
        assert not isinstance(process, CannotStart)
        plan = process.gateway.plan
        now = 1_800_000_000
        rules = Rules(config, table, plan.ladder)
        for tier in (None, "free", "pro", "enterprise", "gold"):
            for status in (None, *STATUSES):
                facts = suppose(Supposition(tier, _status(status)), config.tiers, now)
                if not isinstance(facts, CustomerFacts):
                    continue
                entitlement = rules.derive(facts)
                for method in ("GET", "HEAD", "POST", "PURGE"):
                    for target in TARGETS:
                        verdict = judge(table, plan.ladder, Question(method, target.encode()), entitlement, now)
                        result = await rehearse(
                            plan, method=method, target=target.encode(), headers=[],
                            vouched=Caller(facts.customer, "", 2**40), entitlement=entitlement, now=now,
                        )  # fmt: skip
                        got = _reason(result.headers) if isinstance(result, OwnAnswer) else None
                        assert got == verdict.reason, (tier, status, method, target)


def _status(text: str | None) -> SupposedStatus | None:
    return text  # type: ignore[return-value]


def _reason(headers: list[tuple[bytes, bytes]]) -> Reason:
    return Reason(dict(headers)[b"x-gateway-reason"].decode())
