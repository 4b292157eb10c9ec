"""`gateway rehearse`: the prices, leeway and grace of one's own gateway.yaml, lived through before anybody pays.

It decides words and exit codes. It never touches the file's ledger, Redis, Stripe account or network.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gateway.console import COULD_NOT_START, PROBLEMS, ConfigOption, bar_on_stderr, fail, load_or_fail, show_table

if TYPE_CHECKING:
    from admin.rehearsal.run import Disagreement, Report
    from admin.rehearsal.terms import Terms

_MOST_LIVES: Final = 1_000_000


def rehearse(
    lives: Annotated[int, typer.Option(help="How many customers, ten to a world.", min=1, max=_MOST_LIVES)] = 100,
    minutes: Annotated[float, typer.Option(help="After these no new world is begun.", min=0)] = 2.0,
    seed: Annotated[int, typer.Option(help="The first world; the same seed makes the same one.", min=0)] = 0,
    config: Annotated[Path, ConfigOption] = Path("gateway.yaml"),
) -> None:
    """Live random customers' lives under this file's tiers, against a simulated Stripe and a second opinion."""
    from admin.rehearsal.run import rehearse as run  # noqa: PLC0415
    from admin.rehearsal.terms import terms_from  # noqa: PLC0415

    loaded, _ = load_or_fail(config, quiet=True)
    terms = terms_from(loaded)
    if terms is None:
        fail(f"no tier of {config} has a price, product or lookup key, so there is nothing to buy.", COULD_NOT_START)
    with bar_on_stderr("Living") as move:
        report = run(terms, lives=lives, seconds=minutes * 60, seed=seed, told=lambda done: move(done, lives))
    _tell(report, terms, config)
    lived = report.tally.lives + sum(one.lives for one in report.disagreements)
    if lived < lives:
        sys.stdout.write(f"The time was over after {lived} of {lives} lives.\n")
    if report.disagreements:
        for one in report.disagreements:
            _show(one, config)
        fail(f"{len(report.disagreements)} of {len(report.seeds)} worlds went wrong.", PROBLEMS)
    sys.stdout.write(
        "Nobody who had paid was refused, and nobody was let in beyond what was paid, the leeway and the grace.\n"
    )


def _tell(report: Report, terms: Terms, config: Path) -> None:
    tally, seeds = report.tally, report.seeds
    told = ", ".join(f"{count} {kind}" for kind, count in tally.kinds.most_common())
    sys.stdout.write(
        f"Rehearsed {config}: {tally.lives} lives with {tally.steps} steps, "
        f"seeds {seeds[0]} to {seeds[-1]}, {report.seconds:.0f} s.\n"
        f"Events: {tally.kinds.total()} of Stripe's ({told or 'none'}).\n"
        f"Delivery: {tally.delivered} arrived, {tally.dropped} lost, {tally.cut_off} cut off, "
        f"{tally.overtaken} looks overtaken, {tally.restarts} restarts, {tally.faults} faults of Stripe's.\n"
        f"Checked: {tally.checks} times who is let in ({tally.admitted} were), "
        f"{tally.probes} moments at and before an end, {tally.reconciles} reconciles.\n"
    )
    leeway = _period(terms.leniency.leeway)
    rows = []
    for rank, tier in enumerate(terms.tiers):
        if tier.sold:
            account = tally.tier(rank)
            grace = terms.leniency.grace if tier.past_due_grace is None else tier.past_due_grace
            counts = (str(account.bought), str(account.upgraded), str(account.ended))
            rows.append((tier.name, *counts, _period(account.late), leeway, _period(account.unpaid), _period(grace)))
    show_table(("TIER", "BOUGHT", "UPGRADED TO", "ENDED", "LATE AT MOST", "LEEWAY", "UNPAID AT MOST", "GRACE"), rows)


def _show(one: Disagreement, config: Path) -> None:
    again = shlex.join(
        ["gateway", "rehearse", "--config", str(config), "--seed", str(one.seed), "--lives", str(one.lives)]
    )
    sys.stdout.write(f"\n{one.story.rstrip()}\nRepeat it: {again}\n")


def _period(seconds: float) -> str:
    """As a duration is written in gateway.yaml: whole minutes, the rest cut off."""
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours}h{minutes}m" if minutes else f"{hours}h"
