"""`gateway keys`: API keys on the command line, in the ledger of one gateway.yaml, whether a gateway runs or not.

It decides words and exit codes. A new key goes to stdout, alone and once, so that it can go straight into a secret store;
everything that is said about it goes to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from admin.operations import Done, format_time
from gateway.cli_ledger import by_whom, on_ledger, refuse
from gateway.console import USAGE, ConfigOption, fail, show_table

if TYPE_CHECKING:
    from admin.api_keys import KeyView, Made, NoSuchKey
    from admin.operations import Rejected
    from gateway.ledger_session import LedgerSession

Config = Annotated[Path, ConfigOption]
_DEFAULT = Path("gateway.yaml")

keys = typer.Typer(help="API keys: what callers may send in place of a token.", no_args_is_help=True)


def add_key_verbs(app: typer.Typer) -> None:
    """Add them to `app`."""
    app.add_typer(keys, name="keys")


@keys.command("list")
def list_keys(customer: str, config: Config = _DEFAULT) -> None:
    """List a customer's keys, the youngest first, ended ones too."""

    async def work(session: LedgerSession) -> None:
        found = await session.keys.keys_of(customer)
        if not found:
            typer.echo(f"{customer} has no API key.", err=True)
            return
        show_table(
            ("KEY", "NAME", "STATUS", "CREATED", "EXPIRES", "LAST USED", "SCOPES"),
            [
                (
                    key.id,
                    key.name or "-",
                    key.status,
                    format_time(key.created_at),
                    _time(key.expires_at),
                    _time(key.last_used_at),
                    "-" if key.scopes is None else " ".join(key.scopes),
                )
                for key in found
            ],
        )

    on_ledger(config, work)


@keys.command()
def create(
    customer: str,
    name: Annotated[str, typer.Option(help="What it is for, for whoever looks at the list later.")] = "",
    expires: Annotated[str | None, typer.Option(help="90d, or 2026-12-31; without it the key has no end.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Narrow the key to this; may be repeated.")] = None,
    config: Config = _DEFAULT,
) -> None:
    """Make a key, and print it: it can't be shown again."""

    async def work(session: LedgerSession) -> None:
        scopes = tuple(scope) if scope else None
        _print_new(await session.keys.create(customer, name=name, expires=expires, scopes=scopes, by=by_whom()))

    on_ledger(config, work)


@keys.command()
def rotate(
    key: Annotated[str, typer.Argument(metavar="ID")],
    overlap: Annotated[str, typer.Option(help="How long the old key stays good, at most 30d.")] = "24h",
    config: Config = _DEFAULT,
) -> None:
    """Make a key like this one, and print it. The old one stays good for the overlap."""

    async def work(session: LedgerSession) -> None:
        _print_new(await session.keys.rotate(key, overlap=overlap, by=by_whom()))

    on_ledger(config, work)


@keys.command()
def revoke(
    key: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The key's id, or a whole key that got out.")
    ] = None,
    customer: Annotated[str | None, typer.Option(help="Every key of this customer.")] = None,
    config: Config = _DEFAULT,
) -> None:
    """End one key at once, or all of a customer's."""
    if (key is None) == (customer is None):
        fail("name one key by its id, or --customer for all of theirs.", USAGE)

    async def work(session: LedgerSession) -> None:
        if key is not None:
            outcome = await session.keys.revoke(key, by=by_whom())
        else:
            outcome = await session.keys.revoke_all(customer or "", by=by_whom())
        if not isinstance(outcome, Done):
            refuse(outcome)
        typer.echo(outcome.detail)

    on_ledger(config, work)


def _print_new(made: Made | Rejected | NoSuchKey) -> None:
    from admin.api_keys import Made, ending  # noqa: PLC0415

    if not isinstance(made, Made):
        refuse(made)
    view: KeyView = made.view
    typer.echo(f"{view.id} of {view.customer}, {ending(view)}. The key is shown this once:", err=True)
    typer.echo(made.text)


def _time(at: int | None) -> str:
    return "-" if at is None else format_time(at)
