"""`gateway explain`: why a request is answered as it is, on the command line.

It decides words and exit codes: 0 whatever the answer is, since the question was answered; 1 about a tier that isn't there. The ledger is opened only
where the answer depends on it, and is left as it is.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar, cast, get_args

import typer

from gateway.console import COULD_NOT_START, PROBLEMS, USAGE, ConfigOption, fail, load_or_fail
from policies.moments import format_moment, parse_moment
from policies.routes import RouteTable
from policies.schema import Config, SupposedStatus

if TYPE_CHECKING:
    from gateway.credentials import ApiKeys
    from gateway.in_force import InForce
    from gateway.ledger_session import LedgerSession
    from policies.explain_report import Asking, Fields, NotExplained, Report
    from policies.facts import CustomerFacts
    from policies.supposed import Supposition

T = TypeVar("T")
_DEFAULT: Final = Path("gateway.yaml")


class Format(StrEnum):
    """For people or for programs."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="For people or for programs.")]


def explain(
    method: Annotated[str, typer.Argument(help="GET, POST, …")],
    path: Annotated[str, typer.Argument(help="As it stands in the request line, with its query.")],
    host: Annotated[str, typer.Option(help="The Host header.")] = "",
    token: Annotated[
        str | None, typer.Option(help="A token, judged as the gateway judges it; '-' reads stdin.")
    ] = None,
    customer: Annotated[str | None, typer.Option(help="A customer as the ledger knows them.")] = None,
    tier: Annotated[str | None, typer.Option(help="Somebody made up, on this tier.")] = None,
    status: Annotated[
        str | None, typer.Option(help=f"How that somebody stands: {', '.join(get_args(SupposedStatus))}.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Until when that somebody has paid, such as 2026-12-01.")] = None,
    at: Annotated[str | None, typer.Option(help="When it is asked, such as 2026-12-01T18:00Z; now without it.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="A header of the request, such as 'Accept: text/html'.")
    ] = None,
    config: Annotated[Path, ConfigOption] = _DEFAULT,
    output: FormatOption = Format.TEXT,
) -> None:
    """Say which route judges a request, what it would be answered, why, and what would change it."""
    from policies.explain_report import Asking, NotExplained  # noqa: PLC0415

    supposed = _supposition(tier, status, until)
    if sum(one is not None for one in (token, customer, supposed)) > 1:
        fail("ask with --token, with --customer, or about somebody made up (--tier, --status, --until).", USAGE)
    headers = [_header(one) for one in header or ()]
    if token is not None:
        bearer = sys.stdin.readline().strip() if token == "-" else token
        headers.append(("authorization", f"Bearer {bearer}"))
    moment = None if at is None else _moment("--at", at)
    asking = Asking(method, path, host, tuple(headers), customer, supposed, moment)
    loaded, table = load_or_fail(config, quiet=True)
    found = asyncio.run(explained(loaded, table, asking))
    if isinstance(found, NotExplained):
        fail(found.detail, PROBLEMS if found.names_what_is_not_there else USAGE)
    if isinstance(found, str):
        fail(found, COULD_NOT_START)
    if output is Format.JSON:
        sys.stdout.write(json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(told(found))


def _supposition(tier: str | None, status: str | None, until: str | None) -> Supposition | None:
    from policies.supposed import STATUSES, Supposition  # noqa: PLC0415

    if tier is None and status is None and until is None:
        return None
    if status is not None and status not in STATUSES:
        fail(f"--status is one of {', '.join(STATUSES)}, not '{status}'.", USAGE)
    return Supposition(
        tier, cast("SupposedStatus | None", status), None if until is None else _moment("--until", until)
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        fail("--header is a name, a colon and a value, such as 'Accept: text/html'.", USAGE)
    return name.strip().lower(), value.strip()


def _moment(option: str, text: str) -> int:
    try:
        return parse_moment(text)
    except ValueError as error:
        fail(f"{option} {error}.", USAGE)


async def explained(config: Config, table: RouteTable, asking: Asking) -> Report | NotExplained | str:
    """The report, or why there is none; a text where the ledger is the reason."""
    from gateway.ledger_session import clock_of  # noqa: PLC0415

    if not _is_about_a_customer(config, asking):
        return await _asked(_in_force(config, table, None), asking, _nobody_on_record, await clock_of(config))

    async def about_a_customer(session: LedgerSession) -> Report | NotExplained:
        api_keys = await session.api_keys()
        in_force = _in_force(config, table, await session.signing_key(), api_keys)
        in_force.known_offers = await session.offers()
        in_force.use_pins(session.pins)
        try:
            return await _asked(in_force, asking, session.facts_of, session.now)
        finally:
            await api_keys.aclose()

    return await in_session(config, about_a_customer)


async def in_session(config: Config, work: Callable[[LedgerSession], Awaitable[T]]) -> T | str:
    """What `work` makes of the ledger, or what is wrong with the ledger."""
    from admin.ledger.engine import LedgerDownError  # noqa: PLC0415
    from gateway.ledger_session import SessionProblem, open_session  # noqa: PLC0415

    async with open_session(config) as session:
        if isinstance(session, SessionProblem):
            return session.detail
        try:
            return await work(session)
        except LedgerDownError as error:
            return f"the ledger could not be used: {error}"


async def _asked(
    in_force: InForce, asking: Asking, facts_of: Callable[[str], Awaitable[CustomerFacts]], now: Callable[[], float]
) -> Report | NotExplained:
    from gateway.explaining import Explainer  # noqa: PLC0415

    await in_force.authenticator.start()  # the keys of an issuer that publishes them, for --token
    try:
        return await Explainer(lambda: in_force.plan, facts_of=facts_of, now=now)(asking)
    finally:
        await in_force.authenticator.stop()


def _is_about_a_customer(config: Config, asking: Asking) -> bool:
    """Whether the ledger may have a say: somebody on record is named, or a credential may name one."""
    from gateway.credentials import Authenticator, Unauthenticated  # noqa: PLC0415
    from gateway.credentials.bearer import find_token  # noqa: PLC0415

    if asking.customer is not None or asking.supposition is not None:
        return asking.customer is not None
    headers = [(name.encode("utf-8"), value.encode("utf-8")) for name, value in asking.headers]
    query = asking.target.encode("utf-8", "surrogatepass").partition(b"?")[2]
    sources = Authenticator(config.auth, now=time.time).sources
    return not isinstance(find_token(sources, headers, query), Unauthenticated)


def _in_force(config: Config, table: RouteTable, signing_key: str | None, api_keys: ApiKeys | None = None) -> InForce:
    """The configuration as a gateway would have it. Without a key, payment links are signed with one of this moment."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from gateway.in_force import InForce  # noqa: PLC0415
    from gateway.telemetry import Metrics  # noqa: PLC0415
    from gateway.version import VERSION  # noqa: PLC0415

    key = signing_key or config.server.signing_key.get_secret_value() or secrets.token_urlsafe(32)
    return InForce(config, table, signing_key=key, metrics=Metrics(CollectorRegistry(), VERSION), api_keys=api_keys)


async def _nobody_on_record(customer: str) -> CustomerFacts:
    from policies.facts import CustomerFacts  # noqa: PLC0415

    return CustomerFacts(customer, 0)


def told(found: Report) -> str:
    """For people: the answer first, then the way to it."""
    lines = [f"{found.request} from {found.who}, at {format_moment(found.at)}", f"  {found.outcome}: {found.why}", ""]
    lines += _section("checked", [f"{check.what}: {check.found}" for check in found.checks])
    lines += _section("routes that match the path and lost", [f"{one.route}: {one.why}" for one in found.losers])
    lines += _section("what would change it", [f"if {one.what}: {one.outcome}" for one in found.changes])
    if found.forwarded is not None:
        sent = found.forwarded
        first = f"{sent.method} {sent.target} HTTP/1.1"
        lines += _section(f"sent to the upstream {sent.upstream}", [first, *_fields(sent.headers)])
    if found.answer is not None:
        answer = found.answer
        head = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}", *_fields(answer.headers), ""]
        lines += _section("the answer, byte for byte", [*head, *answer.body.rstrip("\n").split("\n")])
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, entries: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {entry}".rstrip() for entry in entries), ""] if entries else []


def _fields(headers: Fields) -> list[str]:
    return [f"{name}: {value}" for name, value in headers]
