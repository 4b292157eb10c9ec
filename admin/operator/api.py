"""The operator's JSON API, with its documentation at `/docs`.

Who may call it was decided by the operator's listener. Customers stand in the query or at the end of the path as they
are, slashes and all. Every change says who made it and why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, Field

from admin.api_keys import KeyOperations
from admin.ledger.customer_records import CustomerRecord, CustomerSummary
from admin.ledger.engine import LedgerDownError
from admin.ledger.inbox_rows import InboxRow, Status
from admin.operations import Done, Operations, Rejected
from admin.operator.api_keys import mount_keys
from admin.operator.docs_page import docs_page
from admin.operator.views import (
    CustomerLine,
    CustomerView,
    EventLine,
    Outcome,
    customer_line,
    customer_view,
    event_line,
)
from policies.caller import customer_problem
from policies.entitlement import Entitlement
from policies.facts import CustomerFacts

By = Annotated[str, Field(description="Who does this, for the record.")]
Why = Annotated[str, Field(description="Why, for whoever looks at this customer later.")]
_NO_NUL: Final = r"^[^\x00]*$"
"""PostgreSQL takes no NUL in a text, and no name holds one."""

Name = Annotated[str, Query(max_length=255, pattern=_NO_NUL)]
LARGEST_SEQ: Final = 2**63 - 1


class Records(Protocol):
    """The ledger, as the operator reads it."""

    async def find_customers(self, text: str, limit: int, after: str) -> list[CustomerSummary]:
        """Customers beyond `after` whose name or Stripe id holds `text`."""

    async def show_customer(self, customer: str) -> CustomerRecord | None:
        """Everything on record."""

    async def find_events(self, status: Status | None, before_seq: int | None, limit: int) -> list[InboxRow]:
        """Events, newest first."""

    async def replay_event(self, event_id: str) -> bool:
        """Put a dead or done event back into the inbox; False where there is none."""


@dataclass(frozen=True, slots=True)
class OperatorPorts:
    """What the API works on. `sync` fetches a customer's subscriptions from Stripe now, and says what came of it."""

    records: Records
    operations: Operations
    derive: Callable[[CustomerFacts], Entitlement]
    now: Callable[[], float]
    sync: Callable[[str], Awaitable[Done | Rejected]]
    keys: KeyOperations


_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Outcome, "description": "The body can't be read."},
    401: {"model": Outcome, "description": "The operator's token is missing or wrong."},
    404: {"model": Outcome, "description": "There is no such thing."},
    422: {"model": Outcome, "description": "It can't be done, and why."},
    503: {"model": Outcome, "description": "The ledger can't be reached right now."},
}

_WRONG: Final = {"model_attributes_type": "is not a JSON object sent with 'Content-Type: application/json'"}


class GrantRequest(BaseModel, extra="forbid"):
    """Access by hand."""

    tier: str
    until: str | None = Field(None, description="A duration such as 30d, or a date; without it the grant has no end.")
    reason: Why
    by: By = "operator"


class RevokeRequest(BaseModel, extra="forbid"):
    """The end of grants."""

    tier: str | None = Field(None, description="Only grants of this tier.")
    reason: Why
    by: By = "operator"


class BlockRequest(BaseModel, extra="forbid"):
    """Refuse a customer everything."""

    reason: Why
    by: By = "operator"


def build_operator_app(ports: OperatorPorts, version: str) -> FastAPI:
    """The API and its documentation."""
    app = FastAPI(
        title="Entitlement Gateway: operator", version=version, docs_url=None, redoc_url=None, responses=_REFUSALS
    )

    @app.exception_handler(LedgerDownError)
    async def ledger_down(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "The ledger can't be reached right now."}, status_code=503)

    @app.exception_handler(RequestValidationError)
    async def misunderstood(_request: Request, error: RequestValidationError) -> JSONResponse:
        # Without what was sent: it may hold what no answer can be encoded with, and the sender knows it.
        problems = [
            f"{'.'.join(map(str, one['loc']))}: {_WRONG.get(one['type'], one['msg'])}" for one in error.errors()
        ]
        return JSONResponse({"detail": "; ".join(problems)}, status_code=422)

    @app.get("/", include_in_schema=False)
    async def front() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return docs_page(app.openapi())

    @app.get("/api/customers")
    async def customers(
        search: Name = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        after: Name = "",
    ) -> list[CustomerLine]:
        """Customers by name, or by their Stripe id; `after` is the last one of the page before."""
        now = ports.now()
        found = await ports.records.find_customers(search, limit, after)
        return [customer_line(one, ports.derive(one.facts), now) for one in found]

    @app.get("/api/customers/{customer:path}")
    async def customer(customer: str) -> CustomerView:
        """One customer with subscriptions, grants, links and events, and what they give right now."""
        record = None if customer_problem(customer) else await ports.records.show_customer(customer)
        if record is None:
            raise HTTPException(404, f"There is nothing on record about '{customer[:255]}'.")
        return customer_view(record, ports.derive(record.facts), ports.now())

    @app.post("/api/grant/{customer:path}")
    async def grant(customer: str, body: GrantRequest) -> Outcome:
        """Give a tier by hand."""
        given = await ports.operations.grant(customer, body.tier, until=body.until, reason=body.reason, by=body.by)
        return _outcome(given)

    @app.post("/api/revoke/{customer:path}")
    async def revoke(customer: str, body: RevokeRequest) -> Outcome:
        """End grants; what is paid for stays."""
        return _outcome(await ports.operations.revoke(customer, tier=body.tier, reason=body.reason, by=body.by))

    @app.post("/api/block/{customer:path}")
    async def block(customer: str, body: BlockRequest) -> Outcome:
        """Refuse this customer everything, paid or not."""
        return _outcome(await ports.operations.block(customer, reason=body.reason, by=body.by))

    @app.post("/api/unblock/{customer:path}")
    async def unblock(customer: str) -> Outcome:
        """Lift the block."""
        return _outcome(await ports.operations.unblock(customer))

    @app.post("/api/sync/{customer:path}")
    async def sync(customer: str) -> Outcome:
        """Fetch the customer's subscriptions from Stripe now."""
        problem = customer_problem(customer)
        return _outcome(Rejected(f"The customer's name {problem}.") if problem else await ports.sync(customer))

    @app.get("/api/events")
    async def events(
        status: Status | None = None,
        before: Annotated[int | None, Query(ge=1, le=LARGEST_SEQ, description="The `seq` to continue from.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> list[EventLine]:
        """Stripe's events as the inbox keeps them, newest first."""
        return [event_line(event) for event in await ports.records.find_events(status, before, limit)]

    @app.post("/api/events/{event_id}/replay")
    async def replay(event_id: str) -> Outcome:
        """Act on an event again, at the worker's next turn."""
        if "\x00" in event_id or not await ports.records.replay_event(event_id):
            raise HTTPException(404, "There is no such event.")
        return Outcome(detail="The event is pending again.")

    mount_keys(app, lambda: ports.keys)
    return app


def _outcome(outcome: Done | Rejected) -> Outcome:
    if isinstance(outcome, Rejected):
        raise HTTPException(422, outcome.detail)
    return Outcome(detail=outcome.detail)
