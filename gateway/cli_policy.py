"""The verbs that read the rules and change nothing: schema, routes, diff. `explain` is in `gateway.cli_explain`.

They decide words and exit codes. Only `diff --ledger` opens a ledger, and leaves it as it is.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli_explain import Format, FormatOption, explain, in_session
from gateway.console import COULD_NOT_START, PROBLEMS, ConfigOption, fail, load_or_fail, show_table
from policies.schema import Config

if TYPE_CHECKING:
    from gateway.ledger_session import LedgerSession
    from policies.access_diff import Affected, Comparison

_DEFAULT: Final = Path("gateway.yaml")
_LATE_PAYERS: Final = dict.fromkeys(("billing.renewal_leeway", "billing.past_due_grace"), "late payers")
_WHO: Final = {"public": "everybody", "authenticated": "any valid token", "deny": "nobody: 404 no_route"}


def add_policy_verbs(app: typer.Typer) -> None:
    """Add them to `app`."""
    for verb in (schema, routes, explain, diff):
        app.command()(verb)


def schema() -> None:
    """Print the JSON Schema of gateway.yaml, for editors."""
    from policies.json_schema import json_schema  # noqa: PLC0415

    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")


def routes(config: Annotated[Path, ConfigOption] = _DEFAULT, output: FormatOption = Format.TEXT) -> None:
    """Print the routes in the order in which they win, and what happens to everything else."""
    from policies.explain_table import effective_table  # noqa: PLC0415

    loaded, table = load_or_fail(config, quiet=True)
    lines = effective_table(loaded, table)
    if output is Format.JSON:
        sys.stdout.write(json.dumps([line.as_dict() for line in lines], indent=2, ensure_ascii=False) + "\n")
        return
    show_table(
        ("ORDER", "METHODS", "HOST", "PATH", "WHO GETS IN", "ENFORCED", "UPSTREAM", "SPELLING"),
        [
            (
                str(line.order),
                "any" if line.methods is None else ",".join(line.methods),
                line.host or "any",
                line.path or "default",
                _WHO.get(line.access) or line.asks,
                line.enforce or "-",
                line.upstream or "-",
                ", ".join((line.spelling or "-", *line.literal)),
            )
            for line in lines
        ],
    )


def diff(
    old: Annotated[Path, typer.Argument(help="The gateway.yaml in force.", readable=False)],
    new: Annotated[Path, typer.Argument(help="The one that is to take its place.", readable=False)],
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Count the customers of OLD's ledger that it touches.")
    ] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Say which routes change for which tiers; exit code 1 when somebody loses access."""
    from policies.access_diff import affected, compare  # noqa: PLC0415
    from policies.explain import Rules  # noqa: PLC0415
    from policies.tiers import build_ladder  # noqa: PLC0415

    (old_config, old_table), (new_config, new_table) = load_or_fail(old, quiet=True), load_or_fail(new, quiet=True)
    before = Rules(old_config, old_table, build_ladder(old_config.tiers))
    after = Rules(new_config, new_table, build_ladder(new_config.tiers))
    comparison = compare(before, after)
    counted: tuple[Affected, ...] | None = None
    if ledger:

        async def count(session: LedgerSession) -> tuple[Affected, ...]:
            pinned = Rules(old_config, old_table, session.ladder)
            to_be = Rules(new_config, new_table, build_ladder(new_config.tiers, session.pins))
            everybody = [facts async for facts in session.all_facts()]
            return affected(comparison, pinned, to_be, everybody, session.now())

        counted = _on_ledger(old_config, count)
    if output is Format.JSON:
        sys.stdout.write(json.dumps(_diff_dict(comparison, counted), indent=2, ensure_ascii=False) + "\n")
    else:
        _show_diff(comparison, counted)
    if comparison.somebody_loses or any(one.losing for one in counted or ()):
        raise typer.Exit(PROBLEMS)


def _on_ledger(
    config: Config, count: Callable[[LedgerSession], Awaitable[tuple[Affected, ...]]]
) -> tuple[Affected, ...]:
    counted = asyncio.run(in_session(config, count))
    return fail(counted, COULD_NOT_START) if isinstance(counted, str) else counted


def _diff_dict(comparison: Comparison, counted: tuple[Affected, ...] | None) -> dict[str, Any]:
    customers = {} if counted is None else {"customers": [asdict(one) for one in counted]}
    return {
        "somebody_loses": comparison.somebody_loses,
        "differences": [asdict(one) for one in comparison.differences],
        "settings": [asdict(one) for one in comparison.settings],
        **customers,
    }


def _show_diff(comparison: Comparison, counted: tuple[Affected, ...] | None) -> None:
    rows: list[tuple[str, ...]] = [
        (
            one.effect.value,
            _methods(one.methods),
            one.host + one.path,
            ", ".join(one.who),
            f"{one.before} -> {one.after}",
            f"{one.route_before or 'no route'} -> {one.route_after or 'no route'}",
        )
        for one in comparison.differences
    ]
    rows += [
        (one.effect.value, "", one.name, _LATE_PAYERS.get(one.name, ""), f"{one.before} -> {one.after}", "")
        for one in comparison.settings
    ]
    if rows:
        show_table(("", "METHODS", "SUCH AS", "WHO", "ANSWER", "ROUTE"), sorted(rows, key=_severest))
        sys.stderr.write("".join(f"{line}\n" for line in _legend(comparison)))
    else:
        sys.stderr.write("Nothing changes for anybody.\n")
    if counted is not None:
        for one in counted:
            sys.stdout.write(
                f"{_methods(one.methods)} {one.host}{one.path}: "
                f"{one.losing} customers lose it ({one.losing_paying} of them pay), "
                f"{one.gaining} gain it ({one.gaining_paying} of them pay)\n"
            )
        if not counted:
            sys.stdout.write("No customer of the ledger gains or loses a route.\n")


def _legend(comparison: Comparison) -> Iterator[str]:
    """What the signs in the table stand for, if they are there."""
    from policies.access_cells import OTHER_METHODS  # noqa: PLC0415

    unnamed = {segment for one in comparison.differences for segment in one.path.split("/") if _is_unnamed(segment)}
    for segment in sorted(unnamed):
        yield f"{segment} stands for any segment that no route names."
    if any(OTHER_METHODS in one.methods for one in comparison.differences):
        yield f"{OTHER_METHODS} stands for every method that no route names."


def _is_unnamed(segment: str) -> bool:
    return bool(segment) and set(segment) == {"~"}


def _severest(row: Sequence[str]) -> tuple[int, str]:
    return ("loses", "differs", "gains").index(row[0]), row[2]


def _methods(methods: tuple[str, ...]) -> str:
    """HEAD goes with GET unless it stands alone; `*` is every method that neither file names."""
    return ",".join(method for method in methods if method != "HEAD" or "GET" not in methods)
