"""`gateway check --stripe`: what the file and its Stripe account think of each other, as findings with their place.

It decides how grave each is: an id that Stripe doesn't know is an error, everything else for a person to judge. It must
never take the ledger for a condition: without one it asks all the same, under a budget of its own.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from admin.stripe.client import StripeGateway
from admin.stripe.fetch import Failed
from admin.stripe.on_sale import UNKNOWN
from admin.stripe.review import Review, review
from gateway.ledger_session import LedgerSession, open_session
from policies.diagnostics import Diagnostic, Mark, Severity, listed, quoted
from policies.draft import Positions, find
from policies.tree import Scalar

if TYPE_CHECKING:
    from policies.schema import Config

_WORDS: Final = {"prices": "price", "products": "product", "lookup_keys": "lookup key"}


async def ask_stripe(config: Config, file: str, positions: Positions) -> tuple[Diagnostic, ...] | Failed:
    """Every finding, or why Stripe could not be asked."""
    key = config.billing.stripe.secret_key.get_secret_value()
    if not key:
        return Failed("there is no Stripe key in gateway.yaml", unavailable=False)
    async with AsyncExitStack() as stack:
        gateway = StripeGateway(key, config.billing.stripe.api_base)
        stack.push_async_callback(gateway.aclose)
        session = await stack.enter_async_context(open_session(config))
        pins: dict[str, str] = {}
        if isinstance(session, LedgerSession):
            pins = session.pins
            await session.share_budget(gateway, stack)
        found = await review(gateway, config, pins)
    return found if isinstance(found, Failed) else _findings(found, config, file, positions)


def _findings(found: Review, config: Config, file: str, positions: Positions) -> tuple[Diagnostic, ...]:
    findings: list[Diagnostic] = []

    def add(mark: Mark, severity: Severity, code: str, message: str) -> None:
        findings.append(Diagnostic(file, mark.line, mark.column, severity, code, message))

    for problem in found.problems:
        tier = next(index for index, one in enumerate(config.tiers) if one.name == problem.tier)
        place = ("tiers", tier, problem.setting, getattr(config.tiers[tier], problem.setting).index(problem.id))
        node = find(positions.tree, place)
        # What came from the environment is named as the file writes it.
        shown = quoted(node.written if isinstance(node, Scalar) else problem.id)
        unknown = problem.problem == UNKNOWN
        add(
            positions.value(*place),
            Severity.ERROR if unknown else Severity.WARNING,
            "unknown-in-stripe" if unknown else "not-for-sale",
            f"the {_WORDS[problem.setting]} {shown} {problem.problem}",
        )
    where = positions.key("tiers")
    for one in found.unmapped:
        prices = listed(one.prices, "and") or "nothing"
        message = (
            f"{one.subscription} of {one.stripe_customer} is {one.status} and pays for {prices}, which no tier has"
        )
        add(where, Severity.WARNING, "unmapped-subscription", message)
    if found.unmapped_count > len(found.unmapped):
        more = found.unmapped_count - len(found.unmapped)
        # Findings of one place are in the order of their words: this one stands behind those that begin with `sub_`.
        message = f"with {more} more, {found.unmapped_count} paying subscriptions belong to no tier"
        add(where, Severity.WARNING, "unmapped-subscription", message)
    return tuple(sorted(findings))
