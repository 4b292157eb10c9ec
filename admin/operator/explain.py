"""`/api/explain`: why a request is answered as it is, and the answer itself, as `gateway explain` shows them.

A GET takes no token and no header: an address is written into histories and logs. A POST takes them in its body; none of
it comes back (P9).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, Field, SecretStr

from policies.explain_report import Asking, NotExplained, Report
from policies.moments import parse_moment
from policies.schema import SupposedStatus
from policies.supposed import Supposition

METHOD = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
HOST = r"^[\x21-\x7e]*$"


class ExplainRequest(BaseModel, extra="forbid"):
    """One request, and who sends it: a token, a customer, somebody made up, or nobody."""

    path: str = Field(max_length=8192, description="As it stands in the request line, with its query.")
    method: str = Field("GET", max_length=32, pattern=METHOD)
    host: str = Field("", max_length=255, pattern=HOST)
    headers: dict[str, str] = Field(default_factory=dict, max_length=100)
    token: SecretStr | None = Field(None, max_length=65536, description="A token or API key, judged and never shown.")
    customer: str | None = Field(None, max_length=255, description="A customer as the ledger knows them.")
    tier: str | None = Field(None, description="Somebody made up, on this tier.")
    status: SupposedStatus | None = Field(None, description="How that somebody stands.")
    until: str | None = Field(None, description="Until when that somebody has paid.")
    at: str | None = Field(None, description="A date or UTC time; now without it.")


Explain = Callable[[Asking], Awaitable[Report | NotExplained]]


def mount_explain(app: FastAPI, explain: Explain) -> None:
    """Add it to the operator's API."""

    @app.get("/api/explain")
    async def explained(
        path: Annotated[str, Query(max_length=8192, description="As it stands in the request line, with its query.")],
        method: Annotated[str, Query(max_length=32, pattern=METHOD)] = "GET",
        host: Annotated[str, Query(max_length=255, pattern=HOST)] = "",
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
        return await _explained(explain, asking)

    @app.post("/api/explain")
    async def explained_with(body: ExplainRequest) -> Report:
        """The same with headers and a token, which a GET would leave in histories and logs."""
        supposition = _supposition(body.customer, body.tier, body.status, body.until)
        headers = [(name.strip().lower(), value) for name, value in body.headers.items()]
        if body.token is not None:
            if body.customer is not None or supposition is not None:
                raise HTTPException(422, "Ask with a token, about a customer on record, or about somebody made up.")
            headers.append(("authorization", f"Bearer {body.token.get_secret_value()}"))
        asking = Asking(
            method=body.method,
            target=body.path,
            host=body.host,
            headers=tuple(headers),
            customer=body.customer,
            supposition=supposition,
            at=_moment("at", body.at),
        )
        return await _explained(explain, asking)


async def _explained(explain: Explain, asking: Asking) -> Report:
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
