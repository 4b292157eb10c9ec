"""What the manual says of answers, headers, metrics and programs, held against the code that makes them."""

from __future__ import annotations

import ast
import json
import re
from datetime import datetime
from functools import cache
from typing import Any, Final

import httpx
import pytest

from gateway.answers import Answer, Answers, Asked
from gateway.credentials.jwks import KeyState
from policies.entitlement import Standing
from policies.offers import Offer, Payment
from policies.reasons import ANSWERS as TABLE
from policies.reasons import Reason
from policies.requirement import Access, Requirement
from tests.docs.manual import (
    ANSWERS,
    DESIGN,
    OPERATING,
    PAGES,
    README,
    ROOT,
    Block,
    blocks,
    blocks_of,
    prose_of,
    reference,
    rows,
    section,
    words_of,
)

NOW: Final = 1_800_000_000.0
ASKED: Final = Asked("GET", "/headers", "1f68284d80bfcc1d")
EXPOSITION: Final = {"Counter", "Counts", "Gauge", "Histogram", "Summary", "Timings"}


def answers() -> Answers:
    return Answers(
        public_url="http://localhost:8080",
        signing_key=b"k" * 32,
        pay_link_ttl=3600,
        cors_origins=(),
        cors_credentials=False,
        offers=lambda tier: (
            Offer(tier, "price_pro_monthly", 2900, "usd", "month"),
            Offer(tier, "price_pro_yearly", 29000, "usd", "year"),
        ),
        wall=lambda: NOW,
    )


def refusal(reason: Reason, *, status: str = "none") -> Answer:
    """A real 402 for somebody on the tier `free`."""
    standing = Standing(0, "free", status, None, ())
    payment = Payment("alice", Requirement(Access.TIER, 1, "pro"), standing, "pro")
    return answers().payment_required(reason, payment, ASKED)


def shape(value: Any) -> Any:
    """Keys and types all the way down; a list by its first entry."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value)


def json_blocks() -> list[Block]:
    return blocks("json")


@pytest.mark.parametrize("block", json_blocks(), ids=str)
def test_every_json_block_of_the_manual_parses(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


@pytest.mark.parametrize(
    "block", [block for block in json_blocks() if '"reason"' in block.text and '"type"' in block.text], ids=str
)
def test_every_problem_in_the_manual_has_the_shape_and_the_words_of_a_real_one(block: Block) -> None:
    shown = json.loads(block.text)
    reason = Reason(shown["reason"])
    if TABLE[reason].status == 402:
        real = json.loads(refusal(reason, status=shown["current"]["status"]).body)
    else:
        real = json.loads(answers().refuse(reason, shown["detail"], ASKED).body)

    assert list(shown) == list(real)
    assert shape(shown) == shape(real)
    assert shown["detail"].partition(": http")[0] == real["detail"].partition(": http")[0]
    assert {key: shown[key] for key in ("type", "title", "status", "reason")} == {
        key: real[key] for key in ("type", "title", "status", "reason")
    }


def test_the_402_of_the_readme_is_word_for_word_a_real_one() -> None:
    shown = next(json.loads(block.text) for block in blocks_of(README) if block.language == "json")
    real = json.loads(refusal(Reason.TIER_REQUIRED).body)
    link = real["pay_url"]

    assert shown == json.loads(json.dumps(real).replace(link, "http://localhost:8080/_gateway/pay/eyJ\\u2026"))


def test_the_402s_headers_in_the_readme_are_sent() -> None:
    (shown,) = [block for block in blocks_of(README) if block.language == "http"]
    sent = {name.decode(): value.decode() for name, value in refusal(Reason.TIER_REQUIRED).headers}

    for line in shown.text.splitlines()[1:]:
        name, _, value = line.partition(": ")
        assert value.partition("eyJ")[0] == sent[name.lower()].partition("eyJ")[0]
        assert value.partition("…>")[2] == "" or sent[name.lower()].endswith(value.partition("…>")[2])


def test_every_reason_stands_in_the_table_with_its_status_and_no_other_does() -> None:
    listed = {words_of(cells[1])[0]: int(cells[0]) for cells in rows(ANSWERS) if len(cells) == 4 and cells[0].isdigit()}

    assert listed == {reason.value: answer.status for reason, answer in TABLE.items()}


@cache
def nodes_of(room: str) -> list[tuple[str, ast.AST]]:
    """Every node of a room's code, with the name of its file."""
    return [
        (file.name, node)
        for file in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    ]


def used_reasons() -> set[str]:
    """Reasons that some code outside the tables of texts can give, by their names."""
    tables = {"reasons.py", "reason_pages.py", "answers.py"}
    return {
        node.attr
        for room in ("gateway", "admin", "policies")
        for file, node in nodes_of(room)
        if file not in tables
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }


def test_reasons_that_nothing_gives_are_called_reserved_and_only_those() -> None:
    reserved = {words_of(cells[1])[0] for cells in rows(ANSWERS) if len(cells) == 4 and cells[2].startswith("reserved")}

    used = used_reasons()
    assert reserved == {reason.value for reason in Reason if reason.name not in used}


def metric_names() -> set[str]:
    """Every metric that the rooms register, from the calls that make them."""
    return {
        node.args[0].value
        for room in ("gateway", "admin")
        for _, node in nodes_of(room)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in EXPOSITION
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def test_the_manual_lists_every_metric_and_no_other() -> None:
    listed = {
        words_of(cells[0])[0]
        for cells in rows(OPERATING)
        if len(cells) == 3 and re.fullmatch(r"`(gateway|admin)_[a-z_]+`", cells[0])
    }

    assert metric_names()
    assert listed == metric_names()


def test_every_header_of_the_gateways_own_is_in_the_manual() -> None:
    made = {
        header.lower()
        for room in ("gateway", "admin")
        for file in (ROOT / room).rglob("*.py")
        for header in re.findall(r"[xX]-[gG]ateway-[A-Za-z]+", file.read_text(encoding="utf-8"))
    }

    assert {"x-gateway-reason", "x-gateway-customer", "x-gateway-tier"} <= made
    assert made <= {header.lower() for header in re.findall(r"X-Gateway-[A-Za-z]+", reference())}


def test_every_state_that_keys_can_be_in_is_in_the_manual() -> None:
    assert {state.value for state in KeyState} <= set(words_of(prose_of(section(OPERATING, "Probes"))))


def test_the_log_line_of_the_manual_is_one_to_the_byte(capsys: pytest.CaptureFixture[str]) -> None:
    from gateway.telemetry import AccessLog, RequestEnd

    (line,) = [block.text for block in blocks_of(OPERATING) if '"bytes"' in block.text]
    shown = json.loads(line)
    log = AccessLog(wall=lambda: datetime.fromisoformat(shown["time"]).timestamp())
    log.write(
        RequestEnd(
            request_id=shown["request_id"],
            method=shown["method"],
            path=shown["path"],
            route=shown["route"],
            status=shown["status"],
            reason=shown["reason"],
            customer=shown["customer"],
            tier=shown["tier"],
            upstream=shown["upstream"],
            seconds=shown["ms"] / 1000,
            upstream_seconds=shown["upstream_ms"],
            bytes_sent=shown["bytes"],
        )
    )
    log.flush()

    assert line == capsys.readouterr().out


def python_of(page: Any) -> dict[str, Any]:
    """The page's program, run."""
    (block,) = [block for block in blocks_of(page) if block.language == "python"]
    program: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), program)
    return program


async def test_the_api_of_the_readme_takes_only_calls_that_bear_the_shared_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_SHARED_SECRET", "s3cret")
    identity = {"X-Gateway-Customer": "alice", "X-Gateway-Tier": "pro"}

    transport = httpx.ASGITransport(python_of(README)["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=identity) as client:
        directly = await client.get("/v1/reports/7")
        guessed = await client.get("/v1/reports/7", headers={"X-Shared-Secret": "s3cres"})
        forwarded = await client.get("/v1/reports/7", headers={"X-Shared-Secret": "s3cret"})

    assert (directly.status_code, guessed.status_code) == (403, 403)
    assert forwarded.json() == {"report": 7, "for": "alice", "on": "pro"}


def the_client(monkeypatch: pytest.MonkeyPatch, *given: Answer | httpx.Response) -> tuple[Any, dict[str, Any]]:
    """The manual's client before something that answers these, one after the other, and where it would have slept."""
    program = python_of(ANSWERS)
    slept: list[float] = []
    monkeypatch.setattr(program["time"], "sleep", slept.append)
    program["slept"] = slept
    left = iter(given)

    def answer(_request: httpx.Request) -> httpx.Response:
        one = next(left)
        return (
            one
            if isinstance(one, httpx.Response)
            else httpx.Response(one.status, headers=one.headers, content=one.body)
        )

    return httpx.Client(transport=httpx.MockTransport(answer)), program


def test_the_client_of_the_manual_hands_on_the_apis_own_402(monkeypatch: pytest.MonkeyPatch) -> None:
    client, program = the_client(monkeypatch, httpx.Response(402, text="of the API's own"))
    with client:
        assert program["call"](client, "http://localhost:8080/headers").text == "of the API's own"


def test_the_client_of_the_manual_says_where_to_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    client, program = the_client(monkeypatch, refusal(Reason.TIER_REQUIRED))
    with client, pytest.raises(program["PaymentNeededError"]) as raised:
        program["call"](client, "http://localhost:8080/headers")

    assert raised.value.pay_url.startswith("http://localhost:8080/_gateway/pay/")
    assert raised.value.offers[0]["price"] == "price_pro_monthly"


def test_the_client_of_the_manual_waits_as_long_as_a_503_says(monkeypatch: pytest.MonkeyPatch) -> None:
    unavailable = answers().refuse(Reason.ENTITLEMENT_UNAVAILABLE, "later", ASKED)
    client, program = the_client(monkeypatch, unavailable, unavailable, httpx.Response(200, text="at last"))
    with client:
        assert program["call"](client, "http://localhost:8080/headers").text == "at last"

    assert program["slept"] == [2.0, 2.0]


def test_the_client_of_the_manual_gives_up_on_what_no_wait_fixes(monkeypatch: pytest.MonkeyPatch) -> None:
    client, program = the_client(monkeypatch, answers().refuse(Reason.BLOCKED, "no", ASKED))
    with client, pytest.raises(httpx.HTTPStatusError):
        program["call"](client, "http://localhost:8080/headers")

    assert program["slept"] == []


@pytest.mark.parametrize("page", [*PAGES, DESIGN], ids=lambda page: page.name)
def test_every_link_within_the_manual_leads_to_a_file(page: Any) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_every_page_of_the_manual_can_be_found_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", README.read_text(encoding="utf-8")))

    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_every_decision_is_listed_and_numbered_without_a_gap() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(file.name for file in folder.glob("[0-9]*.md"))

    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    for name in records:
        text = (folder / name).read_text(encoding="utf-8")
        assert f"({name})" in (folder / "README.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {name[:4]} ")
        assert all(part in text for part in ("**Context.**", "**Decision.**", "**Consequence.**"))
