"""`gateway openapi`: routes drafted from an API's OpenAPI document, or what of it a gateway.yaml leaves out.

It decides words and exit codes: 0 fine, 1 where an operation has no route or can't have one, 2 usage, 3 where there is
nothing to read. It writes no file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit, urlunsplit

import typer

from gateway.cli_explain import Format, FormatOption
from gateway.console import COULD_NOT_START, PROBLEMS, USAGE, fail, load_or_fail

if TYPE_CHECKING:
    from policies.openapi import Offered


def openapi(
    document: Annotated[str, typer.Argument(help="The OpenAPI document: a file or an address.", metavar="URL|FILE")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Report what this gateway.yaml leaves out, and draft nothing.",
            metavar="FILE",
            readable=False,
        ),
    ] = None,
    tier: Annotated[
        str | None, typer.Option(help="The tier that drafted routes ask for; without it, any valid token.")
    ] = None,
    catch_all: Annotated[
        list[str] | None, typer.Option(help="A last path parameter that spans several segments. May be repeated.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Draft routes from an OpenAPI document or, with --config, name the operations that no route covers."""
    if config is not None and tier is not None:
        fail("--tier is for drafting; with --config nothing is drafted.", USAGE)
    offered = _offered(document)
    for problem in offered.problems:
        sys.stderr.write(f"gateway: {problem}\n")
    if not offered.operations:
        fail("the document has no operation.", PROBLEMS)
    names = frozenset(catch_all or ())
    has_problems = _draft(offered, tier, names, output) if config is None else _report(offered, config, names, output)
    if has_problems or offered.problems:
        raise typer.Exit(PROBLEMS)


def _offered(document: str) -> Offered:
    from gateway.openapi_document import is_address, read_document  # noqa: PLC0415
    from policies.openapi import NotOpenApi, printable, read_operations  # noqa: PLC0415

    try:
        shown = printable(_without_secrets(document) if is_address(document) else document)
        read = read_document(document)
        offered = NotOpenApi(read) if isinstance(read, str) else read_operations(read, address=_base(document))
    except ValueError:  # an address that can't be taken apart
        fail("the address of the document is none.", USAGE)
    if isinstance(offered, NotOpenApi):
        clause = offered.clause if offered.clause.startswith("it ") else f"it {offered.clause}"
        fail(f"{shown} is no OpenAPI document to read: {clause}.", COULD_NOT_START)
    return offered


def _base(document: str) -> str:
    from gateway.openapi_document import is_address  # noqa: PLC0415

    return document if is_address(document) else ""


def _without_secrets(address: str) -> str:
    """The address for messages: a user, a password or a query may be a secret (P9)."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _draft(offered: Offered, tier: str | None, catch_all: frozenset[str], output: Format) -> bool:
    from policies.openapi_routes import as_yaml, draft  # noqa: PLC0415

    drafted = draft(offered.operations, tier, catch_all)
    if output is Format.JSON:
        sys.stdout.write(json.dumps(asdict(drafted), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(as_yaml(drafted))
    for operation, why in drafted.left_out:
        sys.stderr.write(f"gateway: no route for {operation}: {why}.\n")
    return bool(drafted.left_out)


def _report(offered: Offered, config: Path, catch_all: frozenset[str], output: Format) -> bool:
    from policies.openapi_routes import coverage  # noqa: PLC0415

    loaded, table = load_or_fail(config, quiet=True)
    found = coverage(loaded, table, offered.operations, catch_all)
    if output is Format.JSON:
        sys.stdout.write(json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(f"uncovered\t{operation}\t{why}\n" for operation, why in found.uncovered)
        sys.stdout.writelines(f"unmatched\t{route}\tno operation of the document\n" for route in found.unmatched)
        covered = len(offered.operations) - len(found.uncovered)
        sys.stderr.write(f"{covered} of {len(offered.operations)} operations have a route.\n")
    return bool(found.uncovered)
