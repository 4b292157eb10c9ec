"""The verbs that work on the ledger: customers, grants, blocks, events, migrations.

They need no running gateway. What they commit is in force in every gateway process within a second: those follow the
ledger's changes.
"""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from admin.operations import Done, Malformed, Rejected, Unavailable, format_time
from gateway.console import COULD_NOT_START, PROBLEMS, USAGE, ConfigOption, fail, load_or_fail, show_table

if TYPE_CHECKING:
    from admin.api_keys import NoSuchKey
    from gateway.ledger_session import LedgerSession

T = TypeVar("T")
Reason = Annotated[str, typer.Option(help="Why, for whoever looks at this customer later.")]
Config = Annotated[Path, ConfigOption]
_DEFAULT = Path("gateway.yaml")

events = typer.Typer(help="Stripe's events, as the inbox keeps them.", invoke_without_command=True)
db = typer.Typer(help="The ledger's schema.", no_args_is_help=True)


def add_ledger_verbs(app: typer.Typer) -> None:
    """Add them to `app`."""
    for verb in (customers, grant, revoke, block, unblock):
        app.command()(verb)
    app.add_typer(events, name="events")
    app.add_typer(db, name="db")


def customers(
    search: Annotated[
        str, typer.Argument(help="Part of a customer's name or Stripe id; the whole name shows one.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    config: Config = _DEFAULT,
) -> None:
    """List customers, or show one with everything on record."""

    async def work(session: LedgerSession) -> None:
        record = await session.records.show_customer(search) if search else None
        if record is not None:
            view = session.view(record)
            typer.echo(view.model_dump_json(indent=2))
            return
        lines = await session.lines(search, limit)
        if not lines and search:
            fail(f"there is nothing on record about '{search}'.", PROBLEMS)
        if not lines:
            typer.echo("No customer is on record.", err=True)
            return
        show_table(
            ("CUSTOMER", "TIER", "STATUS", "UNTIL", "STRIPE"),
            [
                (
                    line.customer,
                    line.tier or "-",
                    "blocked" if line.blocked is not None else line.status,
                    "-" if line.access_until is None else format_time(line.access_until),
                    " ".join(line.stripe_customers) or "-",
                )
                for line in lines
            ],
        )

    on_ledger(config, work)


def grant(
    customer: str,
    tier: str,
    reason: Reason,
    until: Annotated[str | None, typer.Option(help="30d, or 2026-12-31; without it the grant has no end.")] = None,
    config: Config = _DEFAULT,
) -> None:
    """Give a customer a tier by hand."""
    _operate(config, lambda session: session.operations.grant(customer, tier, until=until, reason=reason, by=by_whom()))


def revoke(
    customer: str,
    reason: Reason,
    tier: Annotated[str | None, typer.Option(help="Only grants of this tier.")] = None,
    config: Config = _DEFAULT,
) -> None:
    """End a customer's grants. What is paid for stays."""
    _operate(config, lambda session: session.operations.revoke(customer, tier=tier, reason=reason, by=by_whom()))


def block(customer: str, reason: Reason, config: Config = _DEFAULT) -> None:
    """Refuse a customer everything, paid or not."""
    _operate(config, lambda session: session.operations.block(customer, reason=reason, by=by_whom()))


def unblock(customer: str, config: Config = _DEFAULT) -> None:
    """Lift a block."""
    _operate(config, lambda session: session.operations.unblock(customer))


@events.callback()
def list_events(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="pending, done, ignored or dead.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    config: Config = _DEFAULT,
) -> None:
    """List events, newest first."""
    if context.invoked_subcommand is not None:
        return
    if status not in {None, "pending", "done", "ignored", "dead"}:
        fail(f"--status is pending, done, ignored or dead, not '{status}'.", USAGE)

    async def work(session: LedgerSession) -> None:
        found = await session.records.find_events(status, None, limit)  # type: ignore[arg-type]  # checked above
        if not found:
            typer.echo("No event is on record." if status is None else f"No event is {status}.", err=True)
            return
        show_table(
            ("EVENT", "TYPE", "STATUS", "RECEIVED", "CUSTOMER", "OUTCOME"),
            [
                (
                    event.event_id,
                    event.type,
                    event.status,
                    format_time(event.received_at),
                    event.stripe_customer or "-",
                    event.error or event.outcome or "-",
                )
                for event in found
            ],
        )

    on_ledger(config, work)


@events.command()
def replay(event: Annotated[str, typer.Argument(metavar="ID")], config: Config = _DEFAULT) -> None:
    """Act on an event again: a running gateway's worker does it within seconds."""

    async def work(session: LedgerSession) -> None:
        if not await session.records.replay_event(event):
            fail(f"there is no event {event} in the inbox.", PROBLEMS)
        typer.echo(f"{event} is pending again.")

    on_ledger(config, work)


@db.command()
def upgrade(config: Config = _DEFAULT) -> None:
    """Bring the ledger to this version's schema."""
    from admin.ledger.opening import LedgerUnavailable  # noqa: PLC0415
    from admin.ledger.schema import upgrade as to_head  # noqa: PLC0415

    loaded, _ = load_or_fail(config, quiet=True)
    done = asyncio.run(to_head(loaded.database.get_secret_value()))
    if isinstance(done, LedgerUnavailable):
        fail(done.detail, COULD_NOT_START)
    typer.echo(f"The ledger is at {done.after}." if done.before == done.after else f"Upgraded to {done.after}.")


def _operate(path: Path, operation: Callable[[LedgerSession], Awaitable[Done | Rejected]]) -> None:
    async def work(session: LedgerSession) -> None:
        outcome = await operation(session)
        if isinstance(outcome, Rejected):
            refuse(outcome)
        typer.echo(outcome.detail)

    on_ledger(path, work)


def refuse(outcome: Rejected | NoSuchKey) -> NoReturn:
    """End with what keeps an operation from being done."""
    if isinstance(outcome, Unavailable):
        fail(outcome.detail, COULD_NOT_START)
    fail(outcome.detail, USAGE if isinstance(outcome, Malformed) else PROBLEMS)


def on_ledger(path: Path, work: Callable[[LedgerSession], Awaitable[None]]) -> None:
    """Work on the ledger of the gateway.yaml at `path`; what keeps it from being used ends the command."""
    from admin.ledger.engine import LedgerDownError  # noqa: PLC0415
    from gateway.ledger_session import SessionProblem, open_session  # noqa: PLC0415
    from gateway.logs import configure_logging  # noqa: PLC0415

    config, _ = load_or_fail(path, quiet=True)
    configure_logging()

    async def whole() -> str | None:
        async with open_session(config) as session:
            if isinstance(session, SessionProblem):
                return session.detail
            try:
                await work(session)
            except LedgerDownError as error:
                return f"the ledger could not be used: {error}"
            return None

    problem = asyncio.run(whole())
    if problem is not None:
        fail(problem, COULD_NOT_START)


def by_whom() -> str:
    """Who sits at the command line, for the record."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"
