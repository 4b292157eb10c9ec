"""The verbs that ask Stripe: sync, import, and events backfill.

They share one budget of calls with every running gateway and stand behind whoever waits for an answer, so a sync of a
hundred thousand customers takes hours and bothers nobody. It may be stopped at any time: it goes on where it was.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from admin.operations import Rejected
from gateway.cli_ledger import events, on_ledger, refuse
from gateway.console import COULD_NOT_START, PROBLEMS, USAGE, ConfigOption, bar_on_stderr, fail
from policies.units import parse_duration

if TYPE_CHECKING:
    from admin.stripe.adoption import Adopted, Rule
    from admin.stripe.everybody import Sweep
    from gateway.ledger_session import LedgerSession
    from gateway.stripe_session import StripeSession

Config = Annotated[Path, ConfigOption]
_DEFAULT: Final = Path("gateway.yaml")
_SHOWN_OF_EACH: Final = 20
LONGEST_BACKFILL_SECONDS: Final = 30 * 86_400.0
"""Stripe lists events for thirty days."""


def add_stripe_verbs(app: typer.Typer) -> None:
    """Add them to `app`."""
    app.command()(sync)
    app.command("import")(adopt)
    events.command()(backfill)


def sync(
    customer: Annotated[str | None, typer.Argument(help="A customer, or a Stripe customer's id.")] = None,
    everybody: Annotated[
        bool, typer.Option("--all", help="Everybody on record; one that was cut off goes on where it was.")
    ] = False,
    anew: Annotated[bool, typer.Option("--anew", help="With --all: from the beginning.")] = False,
    config: Config = _DEFAULT,
) -> None:
    """Fetch subscriptions from Stripe now, of one customer or of all."""
    if (customer is None) is not everybody:
        fail("name a customer, or say --all for everybody.", USAGE)

    async def work(session: StripeSession) -> None:
        if customer is not None:
            outcome = await session.sync(customer)
            if isinstance(outcome, Rejected):
                refuse(outcome)
            typer.echo(outcome.detail)
            return
        done = 0 if anew else await session.left_off()
        if done:
            sys.stderr.write(f"gateway: going on after the first {done}; --anew begins again.\n")
        try:
            with bar_on_stderr("Fetching") as move:
                sweep = await session.sync_everybody(lambda at: move(at.done, at.total), anew=anew)
        except asyncio.CancelledError:  # Ctrl-C
            sys.stderr.write("gateway: stopped; run it again to go on from there.\n")
            raise
        _tell(sweep)

    _on_stripe(config, work)


def adopt(
    match: Annotated[str, typer.Option(help="Where your name of a customer stands: metadata:KEY, email or id.")],
    write: Annotated[bool, typer.Option("--write", help="Link and fetch them; without it nothing is changed.")] = False,
    config: Config = _DEFAULT,
) -> None:
    """Take over customers that Stripe has already: show who would be whom, and with --write make it so."""
    from admin.stripe.adoption import read_rule  # noqa: PLC0415

    rule = read_rule(match)
    if isinstance(rule, str):
        fail(f"--match {rule}, not '{match}'.", USAGE)

    async def work(session: StripeSession) -> None:
        counts, problem = await _adopted(session, rule, write=write)
        verb = "linked" if write else "to link"
        typer.echo(
            f"{counts['new']} {verb}, {counts['known']} linked before, {counts['conflict']} in conflict, "
            f"{counts['unnamed']} without a name.",
            err=not sys.stdout.isatty(),
        )
        if problem is not None:
            fail(f"Stripe's customers could not all be read: {problem}. Run it again to go on.", COULD_NOT_START)
        if counts["unfetched"]:
            fail(f"{counts['unfetched']} are linked and could not be fetched; run it again.", PROBLEMS)
        if not write and counts["new"]:
            sys.stderr.write("gateway: nothing was changed; --write does it.\n")

    _on_stripe(config, work)


def backfill(
    since: Annotated[str, typer.Option(help="How far back, such as 3d; Stripe lists thirty days.")],
    config: Config = _DEFAULT,
) -> None:
    """Put into the inbox what Stripe has sent and it lacks: a running gateway's worker acts on it within seconds."""
    try:
        seconds = parse_duration(since)
    except ValueError as error:
        fail(f"--since {error}.", USAGE)
    if not 0 < seconds <= LONGEST_BACKFILL_SECONDS:
        fail("--since is at most 30d: Stripe lists events for no longer.", USAGE)

    async def work(session: StripeSession) -> None:
        from admin.stripe.reconcile import NotCaughtUp  # noqa: PLC0415

        outcome = await session.backfill(seconds)
        if isinstance(outcome, NotCaughtUp):
            fail(f"Stripe's events could not be read: {outcome.detail}. Run it again to go on.", COULD_NOT_START)
        typer.echo(f"{outcome.stored} events of the last {since} were missing and are pending now.")

    _on_stripe(config, work)


async def _adopted(session: StripeSession, rule: Rule, *, write: bool) -> tuple[Counter[str], str | None]:
    """How many there are of each fate, and why the reading ended early if it did. Lines go out as they come."""
    from admin.stripe.adoption import NotRead  # noqa: PLC0415

    counts: Counter[str] = Counter()
    with bar_on_stderr("Reading") as move:
        async for report in session.adopt(rule, write=write):
            if isinstance(report, NotRead):
                return counts, report.detail
            counts[report.fate.value] += 1
            counts["unfetched"] += report.unfetched
            move(counts.total() - counts["unfetched"], None)
            # On a terminal a hundred thousand lines help nobody; piped, every line is there.
            if not sys.stdout.isatty() or counts[report.fate.value] <= _SHOWN_OF_EACH:
                sys.stdout.write(_line(report))
    return counts, None


def _line(report: Adopted) -> str:
    return "\t".join((report.stripe_customer, report.customer or "-", report.fate.value, report.detail or "-")) + "\n"


def _tell(sweep: Sweep) -> None:
    if sweep.stopped_by is not None:
        fail(
            f"stopped after {sweep.done} of {sweep.total}: {sweep.stopped_by}. Run it again to go on from there.",
            COULD_NOT_START,
        )
    typer.echo(
        f"{sweep.done - sweep.failed} Stripe customers fetched, {sweep.repaired} of them were not as Stripe has them."
    )
    if sweep.failed:
        sys.stderr.writelines(f"  {failure}\n" for failure in sweep.failures)
        fail(f"{sweep.failed} could not be fetched; run it again, or `gateway sync` each.", PROBLEMS)


def _on_stripe(path: Path, work: Callable[[StripeSession], Awaitable[None]]) -> None:
    async def on_session(session: LedgerSession) -> None:
        async with session.stripe() as stripe:
            if isinstance(stripe, Rejected):
                refuse(stripe)
            await work(stripe)

    on_ledger(path, on_session)
