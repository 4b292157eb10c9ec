"""Attacks over raw sockets on the whole gateway, in front of an API that records every byte: nothing gets past it.

`F` stands for a customer on the free tier, `P` for one on pro. A refusal leaves the API's record empty.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.rawsocket import Raw, ask, lines
from tests.support.stack import Stack, eventually, token_for

if TYPE_CHECKING:
    from tests.support.recorder import Recorder

F, P = "Authorization: Bearer {F}", "Authorization: Bearer {P}"
HOST = "Host: {host}"
SECRET_QUERY = "key=a-secret-of-the-query"


@pytest.fixture(scope="module")
def box(stack: Stack) -> Stack:
    stack.gateway.grant("P")
    return stack


@pytest.fixture(autouse=True)
def nothing_recorded_yet(recorder: Recorder) -> None:
    recorder.taken()


def _send(box: Stack, *request: str) -> Raw:
    """The answer to these lines, with tokens and host filled in."""
    filled = [
        line.replace("{F}", token_for("F")).replace("{P}", token_for("P")).replace("{host}", box.gateway.base[7:])
        for line in request
    ]
    return ask(box.gateway.address, lines(*filled))


def _target(recorder: Recorder) -> bytes:
    [request] = recorder.taken()
    return request.split(b" ", 2)[1]


REFUSED: dict[str, tuple[set[int], list[str]]] = {
    "A01 no token": ({401}, ["GET /pro/x HTTP/1.1", HOST]),
    "A01 garbage": ({401}, ["GET /pro/x HTTP/1.1", HOST, "Authorization: Bearer garbage"]),
    "A01 basic": ({401}, ["GET /pro/x HTTP/1.1", HOST, "Authorization: Basic YTpi"]),
    "A01 empty": ({401}, ["GET /pro/x HTTP/1.1", HOST, "Authorization: Bearer"]),
    "A03 no route, free": ({404}, ["GET /other HTTP/1.1", HOST, F]),
    "A03 no route, pro": ({404}, ["GET /other HTTP/1.1", HOST, P]),
    **{
        f"A04 {path}": ({400, 402, 404}, [f"GET {path} HTTP/1.1", HOST, F])
        for path in (
            *("/free/../pro/x", "/free/%2e%2e/pro/x", "/free/.%2e/pro", "/free/%252e%252e/pro", "/free/..;/pro"),
            *("/free/..%2fpro", "/free/%2e%2e%2fpro", "/free\\..\\pro", "/free%5c..%5cpro", "/free/%2E%2E/pro/x"),
        )
    },
    **{
        f"A05 {path}": ({400, 402, 404}, [f"GET {path} HTTP/1.1", HOST, F])
        for path in (
            *("//pro/x", "/./pro/x", "/free//../pro", "/%2fpro", "/pro%00", "/pro%2f", "/PRO/x", "/pro;a=b", "/pro/"),
            *("/pro%20", "/%70ro/x", "/pro/x;a=b", "/p%72o/x", "/pRo/x", "/pro%2Fx"),
        )
    },
    "A06 a fragment": ({400}, ["GET /free#/../pro HTTP/1.1", HOST, F]),
    "A06 an escaped fragment with dots": ({400, 404}, ["GET /free%23/../pro HTTP/1.1", HOST, F]),
    "A07 overlong dots": ({400, 404}, ["GET /free/%c0%ae%c0%ae/pro%zz HTTP/1.1", HOST, F]),
    "A07 a bad escape": ({400}, ["GET /free/%zz HTTP/1.1", HOST, F]),
    "A07 half an escape": ({400}, ["GET /free/% HTTP/1.1", HOST, F]),
    "A08 absolute, foreign": ({400}, ["GET http://evil/free/x HTTP/1.1", HOST, F]),
    "A08 absolute, ours": ({400, 402}, ["GET http://{host}/pro/x HTTP/1.1", HOST, F]),
    "A08 absolute websocket": (
        {400, 402},
        ["GET http://{host}/pro/x HTTP/1.1", HOST, F, "Connection: Upgrade", "Upgrade: websocket",
         "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    ),
    "A09 an authority as path": ({400, 404}, ["GET //127.0.0.1:9/x HTTP/1.1", HOST, P]),
    "A10 OPTIONS *": ({400, 405}, ["OPTIONS * HTTP/1.1", HOST, P]),
    "A10 GET *": ({400}, ["GET * HTTP/1.1", HOST, P]),
    "A10 CONNECT": ({400, 405}, ["CONNECT h:1 HTTP/1.1", HOST, P]),
    "A10 no slash": ({400}, ["GET pro/x HTTP/1.1", HOST, P]),
    **{
        f"A11 {field}": ({402}, ["GET /pro/x HTTP/1.1", HOST, F, f"{field}: {value}"])
        for field, value in (
            *(("X-Original-URL", "/free/x"), ("X-Rewrite-URL", "/free/x"), ("X-Forwarded-Uri", "/free/x")),
            *(("X-Forwarded-Prefix", "/free"), ("X-Forwarded-Path", "/free/x"), ("X-Forwarded-Method", "OPTIONS")),
            *(("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil"), ("User-Agent", "kube-probe/1.30")),
            *(("Origin", "http://evil"), ("Access-Control-Request-Method", "GET")),
        )
    },
    "A12 a path in Host": ({400}, ["GET /pro/x HTTP/1.1", "Host: {host}/free/x?", P]),
    "A12 a blank in Host": ({400}, ["GET /pro/x HTTP/1.1", "Host: a b", P]),
    "A12 two Hosts": ({400}, ["GET /pro/x HTTP/1.1", HOST, "Host: other", P]),
    "A12 no Host": ({400}, ["GET /pro/x HTTP/1.1", P]),
    "A12 an empty Host": ({400}, ["GET /pro/x HTTP/1.1", "Host:", P]),
    "A13 another method": ({405}, ["DELETE /only-get/x HTTP/1.1", HOST, P]),
    "A14 lower case": ({400, 405}, ["get /pro/x HTTP/1.1", HOST, F]),
    "A14 unknown method": ({400, 402, 405}, ["FOO /pro/x HTTP/1.1", HOST, F]),
    "A14 TRACE": ({400, 405}, ["TRACE /pro/x HTTP/1.1", HOST, P]),
    "A14 HEAD": ({402}, ["HEAD /pro/x HTTP/1.1", HOST, F]),
    "A15 pro, then free": ({400, 401}, ["GET /pro/x HTTP/1.1", HOST, P, F]),
    "A15 free, then pro": ({400, 401}, ["GET /pro/x HTTP/1.1", HOST, F, P]),
    "A15 the same twice": ({400, 401}, ["GET /pro/x HTTP/1.1", HOST, P, P]),
    "A15 in the query": ({401}, ["GET /pro/x?access_token={P} HTTP/1.1", HOST]),
    "A15 in a cookie": ({401}, ["GET /pro/x HTTP/1.1", HOST, "Cookie: token={P}"]),
    "the reserved prefix": ({404}, ["GET /_gateway/nothing HTTP/1.1", HOST, P]),
    "the reserved prefix, spelled otherwise": ({400, 401, 404}, ["GET /%5Fgateway/me HTTP/1.1", HOST]),
    "the reserved prefix, in capitals": ({400, 401, 404}, ["GET /_GATEWAY/me HTTP/1.1", HOST]),
    "a line folded into a header": ({400}, ["GET /pro/x HTTP/1.1", HOST, "X-A: b", " c", P]),
    "a blank before the colon": ({400}, ["GET /pro/x HTTP/1.1", HOST, "Authorization : Bearer {P}"]),
    "two lengths": ({400}, ["POST /pro/x HTTP/1.1", HOST, P, "Content-Length: 1", "Content-Length: 2"]),
    "length and chunked": (
        {400},
        ["POST /pro/x HTTP/1.1", HOST, P, "Content-Length: 1", "Transfer-Encoding: chunked"],
    ),
    "HTTP/2 in the clear": ({400, 505}, ["PRI * HTTP/2.0", "", "SM"]),
}  # fmt: skip


@pytest.mark.parametrize("attack", REFUSED)
def test_what_is_refused_never_reaches_the_api(box: Stack, recorder: Recorder, attack: str) -> None:
    allowed, request = REFUSED[attack]
    answer = _send(box, *request)
    assert answer.status in allowed, answer
    assert recorder.taken() == []
    assert "x-gateway-reason" in answer.headers, answer
    assert answer.headers["cache-control"] == "no-store"
    if answer.status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    if request[0].startswith("HEAD"):
        assert answer.body == b""
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert recorder.url.encode() not in answer.body


@pytest.mark.parametrize(
    "target",
    ["/free/x?/../pro", "/free/x?q=%2F..%2Fpro&&z", "/free/x?", "/free/%c3%a4", "/free/a%20b", "/free/a~b!$&'()*+,=:@"],
)
def test_what_is_forwarded_is_forwarded_byte_for_byte(box: Stack, recorder: Recorder, target: str) -> None:
    assert _send(box, f"GET {target} HTTP/1.1", HOST, F).status == 200
    assert _target(recorder) == target.encode()


def test_a_refused_upload_is_not_asked_for_and_does_not_spoil_the_next_request(box: Stack, recorder: Recorder) -> None:
    answer = _send(box, "POST /pro/x HTTP/1.1", HOST, F, "Content-Length: 10000000", "Expect: 100-continue")
    assert answer.status == 402
    assert not answer.all_bytes.startswith(b"HTTP/1.1 100")
    smuggled = f"GET /pro/x HTTP/1.1\r\nHost: x\r\n{P}\r\n\r\n"
    _send(box, "POST /pro/x HTTP/1.1", HOST, F, f"Content-Length: {len(smuggled)}", "", smuggled)
    assert recorder.taken() == []


@pytest.mark.parametrize("customer", [None, "F", "P"])
def test_the_api_sees_the_gateways_identity_headers_once_and_nobody_elses(
    box: Stack, recorder: Recorder, customer: str | None
) -> None:
    path = {None: "/public/x", "F": "/free/x", "P": "/pro/x"}[customer]
    forged = [
        *("X-Gateway-Customer: admin", "x_gateway_customer: admin", "X_Gateway-Tier: enterprise"),
        *("x-GATEWAY-tier: enterprise", "X-Gateway-Features: sso", "X-Gateway-Anything: 1", "X-Gateway-Status: active"),
        *("Connection: X-Gateway-Customer, X-Gateway-Tier, X-Hop", "X-Hop: 1", "Keep-Alive: 5", "TE: trailers"),
        *("Proxy-Authorization: Basic YTpi", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: evil"),
    ]
    token = [] if customer is None else [{"F": F, "P": P}[customer]]
    assert _send(box, f"GET {path} HTTP/1.1", HOST, *token, *forged).status == 200
    [request] = recorder.taken()
    named = [line.partition(b":") for line in request.lower().split(b"\r\n")[1:] if line]
    names = [name for name, _, _ in named]
    identity = [(name, value.strip()) for name, _, value in named if name.replace(b"_", b"-").startswith(b"x-gateway-")]
    free = [(b"x-gateway-customer", b"f"), (b"x-gateway-tier", b"free"), (b"x-gateway-features", b"")]
    pro = [(b"x-gateway-customer", b"p"), (b"x-gateway-tier", b"pro"), (b"x-gateway-features", b"export")]
    assert (
        identity
        == {
            None: [],
            "F": [*free, (b"x-gateway-status", b"none")],
            "P": [*pro, (b"x-gateway-status", b"active")],
        }[customer]
    )
    assert not {b"x-hop", b"keep-alive", b"te", b"proxy-authorization"} & set(names)
    assert b"evil" not in request
    assert b"10.0.0.1" not in request


def test_trailers_never_become_headers(box: Stack, recorder: Recorder) -> None:
    answer = _send(
        box, "POST /free/x HTTP/1.1", HOST, F, "Transfer-Encoding: chunked", "Trailer: X-Gateway-Tier", "",
        "1\r\na\r\n0\r\nX-Gateway-Tier: enterprise\r\nAuthorization: evil\r\n",
    )  # fmt: skip
    assert answer.status == 200
    [request] = recorder.taken()
    assert b"enterprise" not in request
    assert b"evil" not in request


def test_an_override_of_the_method_has_no_effect_on_the_verdict(box: Stack, recorder: Recorder) -> None:
    for field in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        answer = _send(box, "GET /only-get/x HTTP/1.1", HOST, P, f"{field}: DELETE")
        [request] = recorder.taken()
        assert answer.status == 200
        assert field.lower().encode() not in request.lower()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nPOISN"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\nPOISON"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nPOISON"),
    ],
)
def test_bytes_after_an_answer_never_reach_the_next_caller(
    box: Stack, recorder: Recorder, method: str, answer: bytes
) -> None:
    recorder.answers["/public/poison"] = answer
    for _ in range(10):
        _send(box, f"{method} /public/poison HTTP/1.1", HOST)
        assert _send(box, "GET /free/next HTTP/1.1", HOST, F).body == b"recorded"


def test_a_cookie_that_one_caller_is_given_is_never_sent_for_another(box: Stack, recorder: Recorder) -> None:
    recorder.answers["/public/cookie"] = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Gateway-Tier: forged\r\nContent-Length: 0\r\n\r\n"
    )
    answer = _send(box, "GET /public/cookie HTTP/1.1", HOST)
    assert [value for name, value in answer.fields if name == "set-cookie"] == ["a=1", "b=2"]
    assert "x-gateway-tier" not in answer.headers
    recorder.taken()
    _send(box, "GET /public/x HTTP/1.1", HOST)
    assert b"cookie" not in recorder.taken()[0].lower()


def test_an_answer_of_the_apis_own_passes_untouched(box: Stack, recorder: Recorder) -> None:
    for status in (b"401 Unauthorized", b"402 Payment Required", b"500 Oops", b"503 Busy"):
        recorder.answers["/public/own"] = b"HTTP/1.1 " + status + b"\r\nX-Own: 1\r\nContent-Length: 3\r\n\r\nown"
        answer = _send(box, "GET /public/own HTTP/1.1", HOST)
        assert (answer.status, answer.headers["x-own"], answer.body) == (int(status[:3]), "1", b"own")
        assert "x-gateway-reason" not in answer.headers


def test_a_caller_who_leaves_is_followed_by_the_end_of_the_call_to_the_api(box: Stack, recorder: Recorder) -> None:
    gone = recorder.departures["/public/left"] = threading.Event()
    raw = ask(box.gateway.address, lines("GET /public/left HTTP/1.1", "Host: x"), leave_after=0.3)
    assert raw.all_bytes == b""
    assert gone.wait(10)


def test_callers_who_leave_cost_nothing_that_lasts(box: Stack, recorder: Recorder) -> None:
    gone = recorder.departures["/public/churn"] = threading.Event()
    request = lines("GET /public/churn HTTP/1.1", "Host: x")
    ask(box.gateway.address, request, leave_after=0.2)
    assert gone.wait(10)
    descriptors = Path(f"/proc/{box.gateway.running.pid}/fd")
    if not descriptors.exists():
        pytest.skip("there is no /proc to count descriptors in")
    before = len(list(descriptors.iterdir()))
    callers = [threading.Thread(target=ask, args=(box.gateway.address, request, 0.05)) for _ in range(300)]
    for start in range(0, len(callers), 50):
        for caller in callers[start : start + 50]:
            caller.start()
        for caller in callers[start : start + 50]:
            caller.join()
    for _ in range(100):
        assert box.gateway.status("/public/x") == 200
    eventually(lambda: len(list(descriptors.iterdir())) <= before + 5)


def test_the_gateways_own_errors_say_nothing_of_what_is_behind_it(box: Stack, recorder: Recorder) -> None:
    recorder.answers["/public/broken"] = b"\x00\xff\xff garbage\r\n\r\n"
    answer = _send(box, "GET /public/broken HTTP/1.1", HOST)
    assert (answer.status, answer.headers["x-gateway-reason"]) == (502, "upstream_protocol_error")
    assert {"authorization", "accept"} <= {one.strip().lower() for one in answer.headers["vary"].split(",")}
    assert not re.search(rb"Traceback|File \"|127\.0\.0\.1:%d" % recorder.address[1], answer.body)


def test_no_token_link_or_query_is_in_any_log_metric_or_page_of_the_operator(box: Stack) -> None:
    token = token_for("F")
    box.gateway.http.get(
        f"{box.gateway.base}/free/x?{SECRET_QUERY}",
        headers={"Authorization": f"Bearer {token}", "Cookie": "c=a-cookie"},
    )
    link = box.refusal("F")["pay_url"]
    for method in ("GET", "POST"):
        box.gateway.http.request(method, link)
        box.gateway.http.request(method, link.replace("_gateway", "_GATEWAY") + "x")
    _send(box, "GET /free/%0d%0aInjected:1 HTTP/1.1", HOST, F)
    box.gateway.http.get(f"{box.gateway.base}/free/" + "\N{LATIN SMALL LETTER U WITH DIAERESIS}")
    time.sleep(0.5)  # the access log is written five times a second
    told = box.gateway.everything_said() + box.gateway.operator_get("/metrics").text
    for secret in (
        *(token, token.split(".")[2], link.rpartition("/")[2], link.rpartition("/")[2][-30:]),
        *("a-secret-of-the-query", "a-cookie", "whsec_of", "a-token-secret"),
    ):
        assert secret not in told, secret[:12]
    assert "\nInjected" not in told
    assert "Traceback" not in told
