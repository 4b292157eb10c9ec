"""What each test says: a request that can be read, somebody who can exist, an outcome that a route can decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.crosschecks.tiers import tiers_there_are
from policies.crosschecks.upstreams import TOKEN
from policies.diagnostics import nearest, quoted
from policies.expectations import moment_of, read_expected, read_request, read_who
from policies.paths import BadTarget, read_target
from policies.patterns import RESERVED, host_of
from policies.supposed import Impossible, suppose

if TYPE_CHECKING:
    from policies.diagnostics import Findings
    from policies.draft import Draft
    from policies.schema import Expectation


def check(draft: Draft, findings: Findings) -> None:
    """`tests` and `run_tests_at_load`."""
    for index, test in enumerate(draft.config.tests):
        _request(draft, index, test, findings)
        _expect(draft, index, test, findings)
        _who(draft, index, test, findings)
    if draft.config.run_tests_at_load and not draft.config.tests and draft.is_whole("tests"):
        findings.warning(
            "no-tests",
            draft.positions.value("run_tests_at_load"),
            "'run_tests_at_load' is true, and there are no 'tests'",
        )


def _request(draft: Draft, index: int, test: Expectation, findings: Findings) -> None:
    at = ("tests", index, "request")
    mark, shown = draft.positions.value(*at), draft.shown(*at)
    request = read_request(test.request)
    if isinstance(request, str):
        findings.error("bad-request", mark, f"{shown} {request}")
        return
    method, target = request
    if method != method.upper() or not TOKEN.fullmatch(method):
        findings.error("bad-method", mark, f"methods are written in capitals; {shown} would match no route")
    reading = read_target(target)
    if not isinstance(reading, BadTarget) and reading.folded[:1] == (RESERVED,):
        findings.error("own-path", mark, f"{shown} is for the gateway's own paths, which no route decides")
    if test.host is not None and host_of(test.host) is None:
        findings.error(
            "bad-host",
            draft.positions.value("tests", index, "host"),
            f"{draft.shown('tests', index, 'host')} is not a host; write a name such as api.example.com",
        )


def _expect(draft: Draft, index: int, test: Expectation, findings: Findings) -> None:
    at = ("tests", index, "expect")
    problem = read_expected(test.expect)
    if isinstance(problem, str):
        if not draft.is_literal(*at):
            problem = "is neither forward nor a status and a reason, such as 402 tier_required"
        findings.error("bad-expectation", draft.positions.value(*at), f"{draft.shown(*at)} {problem}")


def _who(draft: Draft, index: int, test: Expectation, findings: Findings) -> None:
    at = ("tests", index, "who")
    who = read_who(test.who)
    if who is None or draft.has_losses(*at) or draft.is_lost("tests", index, "at"):
        return
    if who.until is not None and test.at is None:
        findings.error(
            "no-time",
            draft.positions.value(*at, "until"),
            "a test with 'until' needs 'at', the time at which it plays, or its outcome would depend on the day it is run",
        )
        return
    if not draft.is_whole("tiers"):
        return
    impossible = suppose(who, draft.config.tiers, moment_of(test))
    if isinstance(impossible, Impossible):
        where = draft.positions.value(*at, impossible.field)
        message = impossible.message.replace(quoted(who.tier or ""), draft.shown(*at, "tier"))
        if impossible.code == "unknown-tier":
            names = [tier.name for tier in draft.config.tiers]
            near = nearest(who.tier or "", names) if draft.is_literal(*at, "tier") else ""
            message = f"there is no tier {draft.shown(*at, 'tier')}{near or tiers_there_are(draft)}"
        findings.error(impossible.code, where, message)
