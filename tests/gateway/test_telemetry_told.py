"""What is counted and logged of a request: once, at its end, and never a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.telemetry import AccessLog, Metrics, RequestEnd, Telemetry
from policies.reasons import Reason
from tests.support.house import OPERATOR_TOKEN, SIGNING_KEY, house, token_for
from tests.support.rawclient import RawClient
from tests.support.tokens import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.house import House
    from tests.support.upstreams import Visit

NAMED_IN_THE_DESIGN = (
    "gateway_requests_total", "gateway_request_duration_seconds", "gateway_upstream_duration_seconds",
    "gateway_entitlement_lookups_total", "gateway_config_last_reload_successful", "gateway_build_info",
    "admin_webhook_events_total", "admin_webhook_lag_seconds",
)  # fmt: skip
LABELS = {
    "gateway_requests_total": {"route", "method", "status", "reason"},
    "gateway_request_duration_seconds": {"route"},
    "gateway_upstream_duration_seconds": {"upstream"},
    "gateway_entitlement_lookups_total": {"result"},
    "admin_webhook_events_total": {"type", "outcome"},
}


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, stripe=False) as one:
        yield one


def end(**changes: Any) -> RequestEnd:
    plain: dict[str, Any] = {
        "request_id": "r", "method": "GET", "path": "/x", "route": "/x", "status": 200, "reason": "forwarded",
        "customer": None, "tier": None, "upstream": None, "seconds": 0.1, "upstream_seconds": None, "bytes_sent": 0,
    }  # fmt: skip
    return RequestEnd(**{**plain, **changes})


async def test_every_metric_of_the_design_is_there_under_its_name(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        await one.get("/mine", token_for())
        await one.post("/_gateway/stripe/webhook", content=b"{}")
        shown = await one.operate("GET", "/metrics")
        assert shown.headers["content-type"].startswith("text/plain; version=0.0.4")
        declared = set(re.findall(r"^# TYPE (\S+) ", shown.text, re.MULTILINE))
        assert declared >= set(NAMED_IN_THE_DESIGN)
        for name, labels in LABELS.items():
            for series in re.findall(rf"^{name}(?:_count)?\{{(.*?)\}} ", shown.text, re.MULTILINE):
                assert {pair.partition("=")[0] for pair in series.split('",')} == labels


async def test_labels_come_from_the_configuration_whatever_is_asked(at: House) -> None:
    await at.get("/nothing/secret-path", token_for())
    await at.raw(b"PROPFIND /mine HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    await at.get("/pro/deep/er?q=secret-query", token_for("secret-customer"))
    await at.get("/_gateway/secret-own")
    await at.raw_get("//secret-bad")
    at.answers[0] = b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n"
    await at.get("/open/x")
    text = await at.metrics()
    assert "secret" not in text
    assert "evil" not in text
    assert 'gateway_requests_total{method="_other",reason="token_missing",route="/mine",status="401"} 1.0' in text
    assert 'gateway_requests_total{method="GET",reason="tier_required",route="/pro/**",status="402"} 1.0' in text
    reasons = set(re.findall(r'gateway_requests_total\{.*?reason="(.*?)"', text))
    assert reasons <= {*Reason, "forwarded", "own", "failed"}


async def test_a_request_is_counted_and_logged_once(at: House) -> None:
    for number, (path, token) in enumerate(
        [("/open/x", None), ("/mine", None), ("/pro/x", token_for()), ("/_gateway/plans", None)]
    ):
        await at.get(path, token, headers={"X-Request-Id": f"once-{number}"})
        await at.logged(f"once-{number}")
        assert await at.count() == number + 1
    assert [line["request_id"] for line in at.log()] == [f"once-{number}" for number in range(4)]


async def test_the_line_of_a_request_says_what_was_decided(at: House) -> None:
    await at.grant("alice", "pro")
    await at.until(200, "/pro/x", token_for())
    await at.get("/pro/x?q=1", token_for(), headers={"X-Request-Id": "line-1"})
    line = await at.logged("line-1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line.pop("ms") >= line.pop("upstream_ms") >= 0
    assert line == {
        "request_id": "line-1", "method": "GET", "path": "/pro/x", "route": "/pro/**", "status": 200, "reason": "forwarded",
        "customer": "alice", "tier": "pro", "upstream": "api", "bytes": 2,
    }  # fmt: skip


async def test_no_secret_stands_in_a_log_a_metric_or_an_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # As `gateway.logs` sets it, and louder: libraries at WARNING, this house at everything.
    caplog.set_level(logging.WARNING)
    for room in ("admin", "gateway", "policies"):
        caplog.set_level(logging.DEBUG, room)
    token = token_for()
    auth = "  token_from: [header, cookie:session, query:key]"
    settings = '    headers: {X-Key: "the-upstreams-key"}'
    async with house(tmp_path, auth=auth, upstream_settings=settings) as one:
        answers = [
            await one.get("/mine", token),
            await one.get(f"/mine?key={token}"),
            await one.get("/mine", headers={"Cookie": f"session={token}"}),
            await one.get("/mine", token + "x"),
            await one.get("/pro/x?password=in-the-query", "not.a.token"),
            await one.operate("GET", "/api/customers"),
            await one.operate("GET", "/api/customers", token="a-wrong-operator-token"),
        ]
        link = (await one.get("/pro/x", token)).json()["pay_url"].removeprefix(one.api)
        secret = link.removeprefix("/_gateway/pay/")
        for path in (
            link,
            f"{link}x",
            f"/_GATEWAY/pay/{secret}",
            f"/%5fgateway/pay/{secret}",
            f"/%255Fgateway/pay/{secret}",
        ):
            answers += [await one.get(path), await one.ask("DELETE", path)]
        for path in (
            f"/%5fgateway/pay/{secret}//",
            f"/_gateway;x/pay/{secret}",
            f"//_gateway/pay/{secret}",
            f"/%EF%BC%BFgateway/pay/{secret}//",
        ):
            await one.raw_get(path)
        await one.raw_get("/mine", f"Authorization: Bearer {token}", "Cookie: session=another-credential")
        assert (await one.post(link)).status_code == 303
        await one.buy("alice")
        said = one.printed.getvalue() + json.dumps(one.log()) + await one.metrics() + caplog.text
        said += "".join(
            answer.text + str(answer.headers) for answer in answers if "/_gateway/pay/" not in str(answer.url)
        )
        said += repr(one.process)
    for hidden in (
        token, token.rpartition(".")[2], secret, secret.partition(".")[0], secret.partition(".")[2], "in-the-query", "not.a.token",
        "another-credential", OPERATOR_TOKEN, SIGNING_KEY, SECRET, "the-upstreams-key", "whsec_simulator",
        "sk_test_simulator",
    ):  # fmt: skip
        assert hidden not in said, hidden


async def test_a_path_cannot_forge_a_line(at: House) -> None:
    for target in (
        "/open/%0d%0a{}",
        "/open/a\\b",
        '/open/"},{"status":1',
        "/open/\x7f",
        "/open/\u2028".encode().decode("latin-1"),
    ):
        await at.raw_get(target, "X-Request-Id: forged-1")
    for line in at.process.gateway._telemetry._log._lines:
        assert line.isascii()
        assert line.count("\n") == 1
    assert all(line["request_id"] == "forged-1" for line in at.log())


def test_a_line_holds_control_characters_only_escaped() -> None:
    printed = io.StringIO()
    log = AccessLog(printed, wall=lambda: 0.0)
    log.write(end(path='/a\r\n{"forged": 1}\u2028\x1b[31m', customer="a\nb", note="x\ny"))
    log.flush()
    text = printed.getvalue()
    assert text.count("\n") == 1
    assert text.isascii()
    assert json.loads(text)["path"] == '/a\r\n{"forged": 1}\u2028\x1b[31m'
    assert json.loads(text)["time"] == "1970-01-01T00:00:00.000+00:00"
    assert json.loads(text)["note"] == "x\ny"


def test_lines_are_written_when_a_batch_is_full_and_never_twice() -> None:
    printed = io.StringIO()
    log = AccessLog(printed, wall=lambda: 0.0)
    for _ in range(500):
        log.write(end())
    early = printed.getvalue()
    assert early
    log.flush()
    log.flush()
    assert printed.getvalue().count("\n") == 500


def test_a_log_that_nobody_reads_any_more_ends_no_request(caplog: pytest.LogCaptureFixture) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    metrics = Metrics(CollectorRegistry(), "1")
    log = AccessLog(Gone(), wall=lambda: 0.0)
    telemetry = Telemetry(metrics, log)
    for _ in range(500):
        telemetry.tell(end())
    log.flush()
    log.flush()
    assert (
        metrics.registry.get_sample_value(
            "gateway_requests_total", {"route": "/x", "method": "GET", "status": "200", "reason": "forwarded"}
        )
        == 500.0
    )
    assert caplog.text.count("access log") == 1, "said once, not for every batch"


async def test_a_caller_who_leaves_is_499_and_never_the_upstreams_fault(tmp_path: Path) -> None:
    async def slow(visit: Visit) -> None:
        await visit.request()
        if b"/half" in visit.received:
            await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        while await visit.read():
            pass

    async with house(tmp_path, stripe=False, script=slow) as one:
        for path in ("/open/waiting", "/open/half"):
            client = await RawClient.connect(one.address)
            await client.send(
                f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: left{path[5:].replace('/', '-')}\r\n\r\n".encode()
            )
            if path == "/open/half":
                await client.head()
            else:
                await one.upstream.visit(0)
            client.reset()
            line = await one.logged(f"left{path[5:].replace('/', '-')}")
            assert (line["status"], line["reason"], line["note"]) == (499, "forwarded", "the caller left")
            visit = one.last()
            await asyncio.wait_for(visit.closed.wait(), 20)
        assert await one.count(status="499") == 2
        assert await one.count(status="502") == 0


async def test_an_answer_torn_by_the_upstream_is_logged_with_its_cause(tmp_path: Path) -> None:
    async def dying(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        visit.reset()

    async with house(tmp_path, stripe=False, script=dying) as one:
        answer = await one.raw_get("/open/x", "X-Request-Id: torn-1")
        assert (answer.status, answer.whole) == (200, False)
        line = await one.logged("torn-1")
        assert line["status"] == 200
        assert line["note"].startswith("upstream_")


async def test_a_fault_in_here_is_a_500_that_is_counted_as_one_and_forwards_nothing(
    at: House, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_customer: str, _now: float) -> Any:
        raise RuntimeError("a fault of ours with a secret in it")

    at.process.gateway._resolver.peek = broken  # type: ignore[assignment]
    answer = await at.get("/pro/x", token_for(), headers={"X-Request-Id": "fault-1"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    line = await at.logged("fault-1")
    assert (line["status"], line["reason"], line["note"]) == (500, "failed", "RuntimeError")
    assert at.visit_count() == 0
    assert (await at.get("/open/x")).status_code == 200
    assert "The application failed" in caplog.text


async def test_lookups_are_counted_by_where_the_answer_came_from(at: House) -> None:
    await at.grant("alice", "pro")
    for _ in range(3):
        await at.get("/pro/x", token_for())
    text = await at.metrics()
    found = dict(re.findall(r'gateway_entitlement_lookups_total\{result="(.*?)"\} (\S+)', text))
    assert set(found) <= {"memory", "sql", "redis", "stale", "unavailable"}
    assert float(found["sql"]) >= 1
    assert float(found["memory"]) >= 1
