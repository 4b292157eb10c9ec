"""`GET /api/explain`: why a request is answered as it is, and the answer itself, as `gateway explain` shows them.

It takes no token: an address is written into histories and logs. Ask with the customer that the token names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query

from policies.explain_report import Asking, NotExplained, Report
from policies.moments import parse_moment
from policies.schema import SupposedStatus
from policies.supposed import Supposition

Explain = Callable[[Asking], Awaitable[Report | NotExplained]]


def mount_explain(app: FastAPI, explain: Explain) -> None:
    """Add it to the operator's API."""

    @app.get("/api/explain")
    async def explained(
        path: Annotated[str, Query(max_length=8192, description="As it stands in the request line, with its query.")],
        method: Annotated[str, Query(max_length=32, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")] = "GET",
        host: Annotated[str, Query(max_length=255, pattern=r"^[\x21-\x7e]*$")] = "",
        customer: Annotated[
            str | None, Query(max_length=255, description="A customer as the ledger knows them.")
        ] = None,
        tier: Annotated[str | None, Query(description="Somebody made up, on this tier.")] = None,
        status: Annotated[SupposedStatus | None, Query(description="How that somebody stands.")] = None,
        until: Annotated[str | None, Query(description="Until when that somebody has paid.")] = None,
        at: Annotated[str | None, Query(description="A date or UTC time; now without it.")] = None,
    ) -> Report:
        """Which route judges a request, which lost and why, the answer byte for byte, and what would change it."""
        asking = Asking(
            method=method,
            target=path,
            host=host,
            customer=customer,
            supposition=_supposition(customer, tier, status, until),
            at=_moment("at", at),
        )
        found = await explain(asking)
        if isinstance(found, NotExplained):
            raise HTTPException(422, found.detail)
        return found


def _supposition(
    customer: str | None, tier: str | None, status: SupposedStatus | None, until: str | None
) -> Supposition | None:
    if tier is None and status is None and until is None:
        return None
    if customer is not None:
        raise HTTPException(422, "Ask about a customer on record, or about somebody made up (tier, status, until).")
    return Supposition(tier, status, _moment("until", until))


def _moment(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_moment(text)
    except ValueError as error:
        raise HTTPException(422, f"'{name}' {error}.") from None
