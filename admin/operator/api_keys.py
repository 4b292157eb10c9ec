"""API keys in the operator's API: whose there are, new ones, and the end of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from admin.api_keys import DEFAULT_OVERLAP, KeyOperations, KeyView, Made, NoSuchKey
from admin.operations import LONGEST_NAME, Done, Rejected
from admin.operator.views import Outcome
from policies.caller import customer_problem

By = Annotated[
    str, Field(description="Who does this, for the record.", max_length=LONGEST_NAME, pattern=r"^[^\x00-\x1f\x7f]*$")
]


class KeyRequest(BaseModel, extra="forbid"):
    """A new key."""

    name: str = ""
    expires: str | None = Field(None, description="A duration such as 90d, or a date; without it the key has no end.")
    scopes: list[str] | None = Field(None, description="What the key is narrowed to; without it, to nothing.")
    by: By = "operator"


class RotateRequest(BaseModel, extra="forbid"):
    """A new key in the place of an old one."""

    overlap: str = Field(
        DEFAULT_OVERLAP, description="How long the old one stays good, at most 30d; 0s ends it at once."
    )
    by: By = "operator"


class EndRequest(BaseModel, extra="forbid"):
    """The end of keys."""

    by: By = "operator"


class NewKeyView(KeyView):
    """A new key. `key` is shown now and never again."""

    key: str = Field(repr=False)


def mount_keys(app: FastAPI, operations: Callable[[], KeyOperations]) -> None:
    """Add them to the operator's API."""

    @app.get("/api/keys/{customer:path}")
    async def keys(customer: str) -> list[KeyView]:
        """The customer's API keys, the youngest first, ended ones too."""
        return [] if customer_problem(customer) else await operations().keys_of(customer)

    @app.post("/api/keys/{customer:path}", status_code=201)
    async def create(customer: str, body: KeyRequest) -> NewKeyView:
        """Make a key. The answer holds it, once."""
        scopes = None if body.scopes is None else tuple(body.scopes)
        made = await operations().create(customer, name=body.name, expires=body.expires, scopes=scopes, by=body.by)
        return _new(made)

    @app.post("/api/key/{key}/rotate", status_code=201)
    async def rotate(key: str, body: RotateRequest) -> NewKeyView:
        """Make a key like this one, which stays good for a while. The answer holds the new one, once."""
        return _new(await operations().rotate(key, overlap=body.overlap, by=body.by))

    @app.post("/api/key/{key}/revoke")
    async def revoke(key: str, body: EndRequest) -> Outcome:
        """End one key at once."""
        return _outcome(await operations().revoke(key, by=body.by))

    @app.post("/api/revoke-keys/{customer:path}")
    async def revoke_all(customer: str, body: EndRequest) -> Outcome:
        """End every key of a customer at once."""
        return _outcome(await operations().revoke_all(customer, by=body.by))


def _new(made: Made | Rejected | NoSuchKey) -> NewKeyView:
    if isinstance(made, Made):
        return NewKeyView(key=made.text, **made.view.model_dump())
    raise _refusal(made)


def _outcome(outcome: Done | Rejected | NoSuchKey) -> Outcome:
    if isinstance(outcome, Done):
        return Outcome(detail=outcome.detail)
    raise _refusal(outcome)


def _refusal(outcome: Rejected | NoSuchKey) -> HTTPException:
    return HTTPException(404 if isinstance(outcome, NoSuchKey) else 422, outcome.detail)
