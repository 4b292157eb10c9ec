"""The `gateway` command: a thin skin over what the rooms do, one function a verb.

It decides words and exit codes. The verbs that work on the ledger are in `gateway.cli_ledger`, those that serve in
`gateway.cli_serve`; what they import is imported when they run, so that `gateway check` starts at once.
"""

from __future__ import annotations

import json
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli_keys import add_key_verbs
from gateway.cli_ledger import add_ledger_verbs
from gateway.cli_openapi import openapi
from gateway.cli_policy import add_policy_verbs
from gateway.cli_rehearse import rehearse
from gateway.cli_reload import add_reload_verb
from gateway.cli_serve import add_serving_verbs
from gateway.cli_stripe import add_stripe_verbs
from gateway.console import COULD_NOT_START, PROBLEMS, USAGE, ConfigOption, fail, have_places_to_write, load_or_fail
from gateway.loading import LoadedFile, Unreadable, load_file
from gateway.version import VERSION
from policies.diagnostics import Diagnostic, Severity, render

app = typer.Typer(
    name="gateway",
    help="Puts a Stripe subscription in front of any HTTP API.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Format(StrEnum):
    """How `gateway check` writes its findings."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


@app.callback(invoke_without_command=True)
def whole(
    context: typer.Context, show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Puts a Stripe subscription in front of any HTTP API."""
    if show_version:
        version()
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")
        raise typer.Exit(USAGE)


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"{VERSION}\n")


@app.command()
def check(
    config: Annotated[Path, ConfigOption] = Path("gateway.yaml"),
    output: Annotated[Format, typer.Option("--format", help="How to write what was found.")] = Format.TEXT,
    show: Annotated[bool, typer.Option("--print", help="Print the effective configuration, secrets masked.")] = False,
    stripe: Annotated[
        bool, typer.Option("--stripe", help="Ask Stripe, too: ids that it doesn't know, and who pays for no tier.")
    ] = False,
) -> None:
    """Read gateway.yaml, run its tests and name every problem at once; exit code 1 if there is an error."""
    import os  # noqa: PLC0415

    from policies.effective import effective_yaml  # noqa: PLC0415

    loaded = load_file(config, os.environ, run_tests=True)
    if isinstance(loaded, Unreadable):
        fail(loaded.detail, COULD_NOT_START)
    found = loaded.diagnostics
    if stripe and loaded.ready is not None:
        found = tuple(sorted((*found, *_asked(loaded, config))))
    if output is Format.JSON:
        sys.stdout.write(json.dumps([one.as_dict() for one in found], indent=2) + "\n")
    elif output is Format.GITHUB:
        sys.stdout.writelines(one.as_github_annotation() + "\n" for one in found)
    elif found:
        sys.stdout.write(render(found).rstrip("\n") + "\n")
    if loaded.ready is None or any(one.severity is Severity.ERROR for one in found):
        raise typer.Exit(PROBLEMS)
    if show:
        sys.stdout.write(effective_yaml(loaded.ready[0]))
    elif output is Format.TEXT:
        routes, tests = len(loaded.ready[0].routes), len(loaded.ready[0].tests)
        passed = f", {tests} test{'' if tests == 1 else 's'} passed" if tests else ""
        sys.stderr.write(f"{config} is good: {routes} route{'' if routes == 1 else 's'}{passed}.\n")


def _asked(loaded: LoadedFile, config: Path) -> tuple[Diagnostic, ...]:
    import asyncio  # noqa: PLC0415

    from admin.stripe.fetch import Failed  # noqa: PLC0415
    from gateway.stripe_check import ask_stripe  # noqa: PLC0415

    assert loaded.ready is not None  # noqa: S101 - asked only about a file that is in order
    found = asyncio.run(ask_stripe(loaded.ready[0], str(config), loaded.positions))
    if isinstance(found, Failed):
        fail(f"Stripe could not be asked: {found.detail}.", COULD_NOT_START)
    return found


@app.command()
def token(
    customer: Annotated[str, typer.Option(help="Whom the token is for.")],
    lifetime: Annotated[str, typer.Option(help="How long it is good for, such as 1h or 30d.")] = "24h",
    issuer: Annotated[str | None, typer.Option(help="The issuer, where several have a secret.")] = None,
    config: Annotated[Path, ConfigOption] = Path("gateway.yaml"),
) -> None:
    """Make a development token, for an issuer whose `secret` is in gateway.yaml."""
    from gateway.credentials import MintProblem, mint_development_token  # noqa: PLC0415
    from policies.units import parse_duration  # noqa: PLC0415

    loaded, _ = load_or_fail(config, quiet=True)
    candidates = [one for one in loaded.auth.issuers if one.secret is not None and issuer in {None, one.issuer}]
    if not candidates:
        known = [one.issuer for one in loaded.auth.issuers if one.secret is not None]
        if known:
            fail(f"'{issuer}' is not an issuer with a secret; gateway.yaml has {', '.join(known)}.", PROBLEMS)
        fail(
            "no issuer of gateway.yaml has a secret to sign with; tokens come from your identity provider.",
            COULD_NOT_START,
        )
    try:
        seconds = round(parse_duration(lifetime))
    except ValueError as error:
        fail(f"--lifetime {error}.", USAGE)
    made = mint_development_token(candidates[0], customer=customer, lifetime_seconds=seconds, now=time.time())
    if isinstance(made, MintProblem):
        fail(made.detail, USAGE if made.is_malformed else PROBLEMS)
    sys.stdout.write(made + "\n")


add_serving_verbs(app)
add_ledger_verbs(app)
add_stripe_verbs(app)
add_key_verbs(app)
add_policy_verbs(app)
app.command()(openapi)
app.command()(rehearse)
add_reload_verb(app)


def main() -> None:
    """The console script. Ctrl-C while it is still loading is a wish to stop, not a fault."""
    with have_places_to_write():
        _main()


def _main() -> None:
    if any(argument.encode("utf-8", "replace").decode() != argument for argument in sys.argv):
        sys.stderr.write("gateway: an argument is not valid UTF-8.\n")
        sys.exit(USAGE)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
